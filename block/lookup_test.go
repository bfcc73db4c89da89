package block_test

import (
	"encoding/binary"
	"fmt"
	"runtime"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/blockseal/blockseal/block"
	"github.com/blockseal/blockseal/keyring"
	"github.com/blockseal/blockseal/vault"
	"github.com/blockseal/blockseal/vault/vaulttest"
)

// Between changes the engine's iterators are kept. Whatever changes then, and however,
// what a reader returns is no older than what was acknowledged, or what another reader
// returned, before it began.
func TestReadersBetweenChanges(t *testing.T) {
	for _, caches := range []int64{-1, 0} {
		t.Run(fmt.Sprint(caches), func(t *testing.T) {
			g := newRig(t)
			g.opts.NoSync = true
			g.opts.RecordCache, g.opts.RowCache = caches, caches
			s := g.open()
			id := []byte("counter")
			put := func(n uint64) {
				require.NoError(t, s.Put(g.ctx, id, binary.BigEndian.AppendUint64(nil, n)))
			}
			put(0)
			for i := range 100 {
				require.NoError(t, s.Put(g.ctx, fmt.Appendf(nil, "other %d", i), make([]byte, 100*i)))
			}
			var begun, least atomic.Uint64 // of the counter
			var reads atomic.Int64
			var stop atomic.Bool
			var wg sync.WaitGroup
			for range 3 {
				wg.Go(func() {
					for !stop.Load() {
						from := least.Load()
						got, err := s.Get(g.ctx, id, nil)
						if !check(t, err) {
							stop.Store(true)
							return
						}
						n := binary.BigEndian.Uint64(got)
						if to := begun.Load(); n < from || n > to {
							t.Errorf("read %d, where it had been %d to %d", n, from, to)
							stop.Store(true)
							return
						}
						for old := least.Load(); old < n && !least.CompareAndSwap(old, n); old = least.Load() {
						}
						reads.Add(1)
						runtime.Gosched() // or the writer has its turn after thousands of reads
					}
				})
			}
			for n := uint64(1); n <= 90 && !stop.Load(); n++ {
				for until := reads.Load() + 100; reads.Load() < until && !stop.Load(); {
					runtime.Gosched()
				}
				switch n % 15 { // what changes the engine besides Put
				case 3:
					require.NoError(t, s.RotateEpoch(g.ctx, nil))
				case 6:
					require.NoError(t, s.Rekey(g.ctx, block.Range{}, nil))
				case 9:
					_, err := s.Erase(g.ctx, nil)
					require.NoError(t, err)
				case 12:
					require.NoError(t, s.RotateKEK(g.ctx))
				}
				begun.Store(n)
				if n%5 == 0 {
					b := s.NewBatch()
					require.NoError(t, b.Delete(g.ctx, id))
					require.NoError(t, b.Put(g.ctx, id, binary.BigEndian.AppendUint64(nil, n)))
					require.NoError(t, b.Commit(g.ctx))
				} else {
					put(n)
				}
				for old := least.Load(); old < n && !least.CompareAndSwap(old, n); old = least.Load() {
				}
			}
			stop.Store(true)
			wg.Wait()

			// What is gone is gone at once.
			for range 50 {
				_, err := s.Get(g.ctx, id, nil)
				require.NoError(t, err)
			}
			require.NoError(t, s.Delete(g.ctx, id))
			for range 50 {
				_, err := s.Get(g.ctx, id, nil)
				require.ErrorIs(t, err, block.ErrNotFound)
			}
		})
	}
}

// A Get that waits for the vault holds nothing of the engine's, so that Close does not
// wait for it.
func TestCloseWhileGetAsksTheVault(t *testing.T) {
	for _, calm := range []int{0, 50} { // before and after iterators are kept
		t.Run(fmt.Sprint(calm), func(t *testing.T) {
			g := newRig(t)
			g.opts.Keyring.Wrapping, g.opts.Keyring.DEKCache = keyring.ByKEK, -1
			s, err := block.Open(g.ctx, g.dir, g.kek, &g.opts)
			require.NoError(t, err)
			require.NoError(t, s.Put(g.ctx, []byte("a"), []byte("data")))
			for range calm {
				_, err := s.Get(g.ctx, []byte("a"), nil)
				require.NoError(t, err)
			}
			remove := g.vault.Inject(vaulttest.Fault{Op: vault.OpUnwrapKey, Stuck: true})
			ended := make(chan error, 1)
			go func() {
				_, err := s.Get(g.ctx, []byte("a"), nil)
				ended <- err
			}()
			require.Eventually(t, func() bool { return g.vault.Waiting() == 1 }, time.Minute, time.Millisecond)
			require.NoError(t, s.Close(), "with nothing left open")
			remove()
			require.ErrorIs(t, <-ended, block.ErrClosed)
		})
	}
}
