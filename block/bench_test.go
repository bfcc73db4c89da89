package block_test

import (
	"context"
	"crypto/rand"
	"encoding/binary"
	"errors"
	"fmt"
	"os"
	"testing"

	"github.com/blockseal/blockseal/block"
	"github.com/blockseal/blockseal/kek"
	"github.com/blockseal/blockseal/vault/vaulttest"
)

// benchStore is a store on the real file system and the system's clock.
func benchStore(b *testing.B, opts *block.Options) *block.Store {
	b.Helper()
	s, _ := benchStoreAndVault(b, opts)
	return s
}

func benchStoreAndVault(b *testing.B, opts *block.Options) (*block.Store, *vaulttest.Vault) {
	b.Helper()
	v := vaulttest.New(nil)
	dir, err := os.MkdirTemp("", "blockseal-bench-")
	if err != nil {
		b.Fatal(err)
	}
	s, err := block.Open(context.Background(), dir, kek.New(v, v.CreateKey("k").Versionless()), opts)
	if err != nil {
		b.Fatal(err)
	}
	b.Cleanup(func() {
		if err := errors.Join(s.Close(), os.RemoveAll(dir)); err != nil {
			b.Error(err)
		}
	})
	return s, v
}

// sizes runs f for block sizes from 512 B to 1 MiB, with incompressible data.
func sizes(b *testing.B, f func(b *testing.B, data []byte)) {
	for _, n := range []int{512, 4 << 10, 16 << 10, 64 << 10, 1 << 20} {
		b.Run(fmt.Sprint(n), func(b *testing.B) {
			data := make([]byte, n)
			rand.Read(data)
			b.SetBytes(int64(n))
			b.ReportAllocs()
			f(b, data)
		})
	}
}

// benchID is one of n ids, far from its neighbours.
func benchID(id []byte, i, n int) []byte {
	return binary.BigEndian.AppendUint64(id[:0], uint64(i%n)*0x9e3779b97f4a7c15)
}

func benchPut(b *testing.B, opts block.Options) {
	sizes(b, func(b *testing.B, data []byte) {
		s := benchStore(b, &opts)
		ctx := context.Background()
		id := make([]byte, 0, 8)
		i := 0
		for b.Loop() {
			if err := s.Put(ctx, benchID(id, i, 10_000), data); err != nil {
				b.Fatal(err)
			}
			i++
		}
	})
}

func BenchmarkPutSynced(b *testing.B) { benchPut(b, block.Options{}) }
func BenchmarkPutNoSync(b *testing.B) { benchPut(b, block.Options{NoSync: true}) }

func BenchmarkBatchOf16(b *testing.B) {
	sizes(b, func(b *testing.B, data []byte) {
		s := benchStore(b, nil)
		ctx := context.Background()
		id := make([]byte, 0, 8)
		b.SetBytes(int64(16 * len(data)))
		i := 0
		for b.Loop() {
			batch := s.NewBatch()
			for range 16 {
				if err := batch.Put(ctx, benchID(id, i, 10_000), data); err != nil {
					b.Fatal(err)
				}
				i++
			}
			if err := batch.Commit(ctx); err != nil {
				b.Fatal(err)
			}
		}
	})
}

// fill puts n blocks, a few hundred MiB at the most.
func fill(b *testing.B, s *block.Store, data []byte) (n int) {
	n = min(10_000, 128<<20/len(data))
	id := make([]byte, 0, 8)
	for i := range n {
		if err := s.Put(context.Background(), benchID(id, i, n), data); err != nil {
			b.Fatal(err)
		}
	}
	return n
}

func benchGet(b *testing.B, opts block.Options) {
	opts.NoSync = true
	opts.Pebble.BlockCache = 512 << 20
	sizes(b, func(b *testing.B, data []byte) {
		s := benchStore(b, &opts)
		n := fill(b, s, data)
		ctx := context.Background()
		id, dst := make([]byte, 0, 8), make([]byte, 0, len(data))
		i := 0
		for b.Loop() {
			if _, err := s.Get(ctx, benchID(id, i, n), dst); err != nil {
				b.Fatal(err)
			}
			i++
		}
	})
}

func BenchmarkGet(b *testing.B)              { benchGet(b, block.Options{}) }
func BenchmarkGetNoRecordCache(b *testing.B) { benchGet(b, block.Options{RecordCache: -1}) }

func BenchmarkScan(b *testing.B) {
	sizes(b, func(b *testing.B, data []byte) {
		s := benchStore(b, &block.Options{NoSync: true, Pebble: block.PebbleOptions{BlockCache: 512 << 20}})
		n := fill(b, s, data)
		b.SetBytes(int64(n * len(data)))
		for b.Loop() {
			for _, err := range s.Blocks(context.Background(), block.Range{}) {
				if err != nil {
					b.Fatal(err)
				}
			}
		}
	})
}

// BenchmarkLeaseCheck is what the lease check costs a hot Get: the ratio of the two.
func BenchmarkLeaseCheck(b *testing.B) {
	s := benchStore(b, &block.Options{NoSync: true, Pebble: block.PebbleOptions{BlockCache: 512 << 20}})
	data := make([]byte, 4<<10)
	rand.Read(data)
	const n = 1000
	id, dst := make([]byte, 0, 8), make([]byte, 0, len(data))
	for i := range n {
		if err := s.Put(context.Background(), benchID(id, i, n), data); err != nil {
			b.Fatal(err)
		}
	}
	b.Run("check=yes", func(b *testing.B) {
		for i := 0; b.Loop(); i++ {
			if _, err := s.Get(context.Background(), benchID(id, i, n), dst); err != nil {
				b.Fatal(err)
			}
		}
	})
	b.Run("check=no", func(b *testing.B) {
		h, err := s.Hold()
		if err != nil {
			b.Fatal(err)
		}
		defer h.Release()
		for i := 0; b.Loop(); i++ {
			if _, err := s.GetHeld(context.Background(), &h, benchID(id, i, n), dst); err != nil {
				b.Fatal(err)
			}
		}
	})
}
