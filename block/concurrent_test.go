package block_test

import (
	"bytes"
	"errors"
	"flag"
	"fmt"
	"sync"
	"sync/atomic"
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/blockseal/blockseal/block"
	"github.com/blockseal/blockseal/internal/test/race"
)

// Whatever is written at the same time, a reader gets some version that was
// written, whole; with the record cache cold, tiny (many blocks to a bucket), or
// off.
func TestReadersGetWholeVersions(t *testing.T) {
	versions := 2000 // of each writer; every combination of size and operation comes in the first 1,000
	if race.Enabled {
		versions = 500
	}
	for _, cache := range []int64{1 << 20, 400, -1} {
		t.Run(fmt.Sprint(cache), func(t *testing.T) {
			g := newRig(t)
			g.opts.NoSync = true
			g.opts.RecordCache = cache
			s := g.open()
			const ids, writers, readers = 8, 3, 3
			id := func(i int) []byte { return fmt.Appendf(nil, "block %d", i%ids) }
			version := func(w, n int) []byte { return bytes.Repeat([]byte{byte(w), byte(n)}, 50+n%1000) }
			whole := func(b []byte) bool {
				if len(b) < 100 {
					return false
				}
				return bytes.Equal(b, bytes.Repeat(b[:2], len(b)/2))
			}
			var stop atomic.Bool
			var wg, writing sync.WaitGroup
			for w := range writers {
				writing.Go(func() {
					for n := range versions {
						var err error
						switch n % 10 {
						case 0:
							err = s.Delete(g.ctx, id(n))
						case 1:
							b := s.NewBatch()
							err = errors.Join(b.Put(g.ctx, id(n), version(w, n)), b.Put(g.ctx, id(n+1), version(w, n+1)), b.Commit(g.ctx))
						default:
							err = s.Put(g.ctx, id(n), version(w, n))
						}
						if !check(t, err) {
							return
						}
					}
				})
			}
			for r := range readers {
				wg.Go(func() {
					var buf []byte
					for n := r; !stop.Load(); n++ {
						got, err := s.Get(g.ctx, id(n), buf[:0])
						if errors.Is(err, block.ErrNotFound) {
							continue
						}
						if !check(t, err) {
							return
						}
						buf = got
						if !whole(got) {
							t.Errorf("a torn version of %d bytes", len(got))
							return
						}
					}
				})
			}
			wg.Go(func() {
				for !stop.Load() {
					snap := s.Snapshot()
					for b, err := range snap.Blocks(g.ctx, block.Range{}) {
						if !check(t, err) {
							return
						}
						again, err := snap.Get(g.ctx, b.ID, nil)
						if !check(t, err) || !bytes.Equal(again, b.Data) || !whole(again) {
							t.Errorf("a snapshot changed")
							return
						}
					}
					snap.Close()
				}
			})
			writing.Wait()
			stop.Store(true)
			wg.Wait()
		})
	}
}

var manyBlocks = flag.Int("many.blocks", 50_000, "how many blocks TestManyBlocks writes, in steps of 10,000")

// However many blocks there are, the store opens with one unwrap, and rotates with the same
// number of calls.
func TestManyBlocks(t *testing.T) {
	g := newRig(t)
	g.opts.NoSync = true
	g.opts.Pebble.MemTable = 0
	s, err := block.Open(g.ctx, g.dir, g.kek, &g.opts) // without the rig's verification, which reads it all
	require.NoError(t, err)
	n := *manyBlocks
	for i := 0; i < n; {
		b := s.NewBatch()
		for range 5000 {
			require.NoError(t, b.Put(g.ctx, fmt.Appendf(nil, "%07d", i), []byte("x")))
			i++
		}
		require.NoError(t, b.Commit(g.ctx))
		if i == 5000 || i == n/2 || i == n {
			g.vault.ResetCalls()
			require.NoError(t, s.RotateKEK(g.ctx))
			require.Equal(t, 3, g.vault.Calls().Total(), "%d blocks", i)
		}
	}
	require.NoError(t, s.Close())

	g.vault.ResetCalls()
	s, err = block.Open(g.ctx, g.dir, g.kek, &g.opts)
	require.NoError(t, err)
	require.Equal(t, 1, g.vault.Calls().Unwrap)
	for i := 0; i < n; i += n/10 - 9 {
		got, err := s.Get(g.ctx, fmt.Appendf(nil, "%07d", i), nil)
		require.NoError(t, err)
		require.Equal(t, "x", string(got))
	}
	require.Equal(t, 1, g.vault.Calls().Unwrap)
	require.Equal(t, 3, g.vault.Calls().Total())
	require.NoError(t, s.Close())
}
