package block_test

import (
	"context"
	"encoding/binary"
	"fmt"
	"os"
	"testing"
	"time"

	"github.com/blockseal/blockseal/block"
	"github.com/blockseal/blockseal/keyring"
)

// rotationSizes runs f for stores of 1,000 and 100,000 blocks, and of 1,000,000 with
// BLOCKSEAL_BENCH_1M set, which take some time to write.
func rotationSizes(b *testing.B, f func(b *testing.B, s *block.Store, n int)) {
	sizes := []int{1_000, 100_000}
	if os.Getenv("BLOCKSEAL_BENCH_1M") != "" {
		sizes = append(sizes, 1_000_000)
	}
	for _, n := range sizes {
		b.Run(fmt.Sprintf("blocks=%d", n), func(b *testing.B) {
			s := benchStore(b, &block.Options{NoSync: true})
			fillSmall(b, s, n)
			f(b, s, n)
		})
	}
}

// fillSmall puts n blocks of 100 bytes.
func fillSmall(b *testing.B, s *block.Store, n int) {
	ctx := context.Background()
	data := make([]byte, 100)
	for i := 0; i < n; {
		batch := s.NewBatch()
		for range min(10_000, n-i) {
			if err := batch.Put(ctx, binary.BigEndian.AppendUint64(nil, uint64(i)*0x9e3779b97f4a7c15), data); err != nil {
				b.Fatal(err)
			}
			i++
		}
		if err := batch.Commit(ctx); err != nil {
			b.Fatal(err)
		}
	}
}

func totalCalls(s *block.Store) uint64 {
	c := s.VaultCalls()
	return c.Get + c.Wrap + c.Unwrap
}

// reportCalls reports the vault calls and, if records is not 0, the records a second
// of each iteration.
func reportCalls(b *testing.B, s *block.Store, before uint64, records int) {
	b.ReportMetric(float64(totalCalls(s)-before)/float64(b.N), "vaultcalls/op")
	if records > 0 {
		b.ReportMetric(float64(records)*float64(b.N)/b.Elapsed().Seconds(), "records/s")
	}
}

// BenchmarkRotateKEK costs the same for any number of blocks: three vault calls and one
// small write.
func BenchmarkRotateKEK(b *testing.B) {
	rotationSizes(b, func(b *testing.B, s *block.Store, _ int) {
		before := totalCalls(s)
		for b.Loop() {
			if err := s.RotateKEK(context.Background()); err != nil {
				b.Fatal(err)
			}
		}
		reportCalls(b, s, before, 0)
	})
}

// BenchmarkRotateEpoch costs by the record, and calls no vault.
func BenchmarkRotateEpoch(b *testing.B) {
	rotationSizes(b, func(b *testing.B, s *block.Store, n int) {
		before := totalCalls(s)
		for b.Loop() {
			if err := s.RotateEpoch(context.Background(), nil); err != nil {
				b.Fatal(err)
			}
		}
		reportCalls(b, s, before, n)
	})
}

// BenchmarkRewrapDEKs is what a move to another KEK costs if DEKs are wrapped by it one
// by one (ByKEK), beside BenchmarkRotateKEK: here with a vault in this process, that
// nothing slows down; "s-at-rate/op" is how long it takes at the default VaultRate.
func BenchmarkRewrapDEKs(b *testing.B) {
	for _, n := range []int{100, 1_000} {
		b.Run(fmt.Sprintf("blocks=%d", n), func(b *testing.B) {
			s, v := benchStoreAndVault(b, &block.Options{NoSync: true, ManualRewrap: true, VaultRate: 1 << 30,
				Keyring: keyring.Options{Wrapping: keyring.ByKEK, DEKCache: -1}})
			fillSmall(b, s, n)
			ctx := context.Background()
			var calls uint64
			for b.Loop() {
				b.StopTimer()
				v.Rotate("k")
				if err := s.RotateKEK(ctx); err != nil {
					b.Fatal(err)
				}
				before := totalCalls(s)
				b.StartTimer()
				if err := s.RewrapDEKs(ctx, nil); err != nil {
					b.Fatal(err)
				}
				calls += totalCalls(s) - before
			}
			b.ReportMetric(float64(calls)/float64(b.N), "vaultcalls/op")
			b.ReportMetric(float64(n)*float64(b.N)/b.Elapsed().Seconds(), "records/s")
			atRate := time.Duration(calls) * 10 * time.Second / block.DefaultVaultRate / time.Duration(b.N)
			b.ReportMetric(atRate.Seconds(), "s-at-rate/op")
		})
	}
}
