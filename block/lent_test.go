package block_test

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"maps"
	"math/rand/v2"
	"runtime"
	"slices"
	"sync"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/blockseal/blockseal/block"
	"github.com/blockseal/blockseal/keyring"
	"github.com/blockseal/blockseal/vault"
	"github.com/blockseal/blockseal/vault/vaulttest"
)

// isWhole checks that a store has these blocks and no others.
func isWhole(t testing.TB, g *rig, s *block.Store, want map[string][]byte) {
	t.Helper()
	ids := slices.Sorted(maps.Keys(want))
	for b, err := range s.Blocks(g.ctx, block.Range{}) {
		require.NoError(t, err)
		require.NotEmpty(t, ids, "%s is too much", b.ID)
		require.Equal(t, ids[0], string(b.ID))
		require.True(t, bytes.Equal(want[ids[0]], b.Data), "block %s", b.ID)
		ids = ids[1:]
	}
	require.Empty(t, ids)
}

// Batches of blocks that are lent, put and deleted in any order leave what the last change of each
// block says, in whatever places of memory they were sealed; in a store of its own and in a DB.
func TestBatchOfLentBlocks(t *testing.T) {
	for _, w := range []keyring.Wrapping{keyring.ByKeyring, keyring.ByKEK} {
		t.Run(w.String(), func(t *testing.T) {
			g := newRig(t)
			g.opts.Keyring.Wrapping = w
			s := g.open()
			want := map[string][]byte{}
			r := rand.New(rand.NewPCG(1, uint64(w)))
			sizes := []int{0, 1, 100, 4 << 10, 70 << 10, 700 << 10}
			if w == keyring.ByKEK {
				sizes = sizes[:4]
			}
			for round := range 12 {
				b := s.NewBatch()
				for range 1 + r.IntN(40) {
					id := fmt.Sprintf("%02d", r.IntN(60))
					data := bytes.Repeat([]byte{byte(r.Uint32())}, sizes[r.IntN(len(sizes))])
					switch r.IntN(8) {
					case 0:
						require.NoError(t, b.Delete(g.ctx, []byte(id)))
						delete(want, id)
						continue
					case 1:
						require.NoError(t, b.Put(g.ctx, []byte(id), data))
					default:
						lent := []byte(id)
						require.NoError(t, b.PutLent(g.ctx, lent, data))
						lent[0] = 'x' // the id is the caller's again
					}
					want[id] = data
				}
				if round == 5 {
					require.NoError(t, s.RotateEpoch(g.ctx, nil), "what was sealed before is rewrapped, the rest is under the new epoch")
				}
				require.NoError(t, b.Commit(g.ctx))
				require.NoError(t, b.Close())
				isWhole(t, g, s, want)
			}
			require.NoError(t, s.Close())
			s = g.open()
			isWhole(t, g, s, want)
			require.Zero(t, s.Helpers())
		})
	}
}

// When Commit or Close has returned nobody reads what was lent: the race detector would see it, and
// a block would be another.
func TestLentDataIsTheCallersAgain(t *testing.T) {
	g := newRig(t)
	g.opts.NoSync = true
	s := g.open()
	data := make([]byte, 8<<10)
	for round := range 200 {
		b := s.NewBatch()
		for i := range 12 {
			require.NoError(t, b.PutLent(g.ctx, fmt.Appendf(nil, "%02d", i), data))
		}
		if round%2 == 0 {
			require.NoError(t, b.Commit(g.ctx))
		} else {
			require.NoError(t, b.Close())
		}
		for i := range data {
			data[i] = byte(round + 1)
		}
		if round%2 == 0 {
			for i := range 12 {
				got, err := s.Get(g.ctx, fmt.Appendf(nil, "%02d", i), nil)
				require.NoError(t, err)
				require.Equal(t, bytes.Repeat([]byte{byte(round)}, len(data)), got)
			}
		}
	}
}

// A batch that nobody commits or closes keeps no goroutine, and the store can be closed.
func TestLentBatchThatIsDropped(t *testing.T) {
	g := newRig(t)
	s := g.open()
	func() {
		b := s.NewBatch()
		for i := range 50 {
			require.NoError(t, b.PutLent(g.ctx, fmt.Appendf(nil, "%d", i), make([]byte, 20<<10)))
		}
	}()
	require.Eventually(t, func() bool { return s.Helpers() == 0 }, time.Minute, time.Millisecond)
	require.NoError(t, s.Close())
	s = g.open()
	isWhole(t, g, s, nil)
}

// A lock of the store ends a batch, wherever its sealing is; and so does Close of the store.
func TestLentBatchAcrossALock(t *testing.T) {
	for what, c := range map[string]struct {
		end  func(g *rig, s *block.Store)
		want error
	}{
		"locked and back": {func(g *rig, s *block.Store) {
			g.vault.SetEnabled(g.key, false)
			require.Error(g.t, s.Revalidate(g.ctx))
			require.Equal(g.t, keyring.Inaccessible, s.State().Status)
			g.vault.SetEnabled(g.key, true)
			require.NoError(g.t, s.Revalidate(g.ctx))
		}, block.ErrInaccessible},
		"closed": {func(g *rig, s *block.Store) { require.NoError(g.t, s.Close()) }, block.ErrClosed},
	} {
		t.Run(what, func(t *testing.T) {
			g := newRig(t)
			s := g.open()
			require.NoError(t, s.Put(g.ctx, []byte("first"), nil))
			for _, size := range []int{4 << 10, 300 << 10} { // the second waits for the batch to grow
				b := s.NewBatch()
				for i := range 12 {
					require.NoError(t, b.PutLent(g.ctx, fmt.Appendf(nil, "%d", i), make([]byte, size)))
				}
				c.end(g, s)
				err := b.Commit(g.ctx)
				require.ErrorIs(t, err, c.want)
				require.ErrorIs(t, b.PutLent(g.ctx, []byte("x"), nil), c.want, "it is spoiled for good")
				require.NoError(t, b.Close())
				require.NoError(t, s.Close())
				s = g.open()
				isWhole(t, g, s, map[string][]byte{"first": nil})
			}
		})
	}
}

// What goes wrong when a block is sealed is an error of Commit, which names it; nothing is committed.
func TestLentBlockThatIsNotSealed(t *testing.T) {
	g := newRig(t)
	g.opts.Keyring.Wrapping = keyring.ByKEK
	s := g.open()
	require.NoError(t, s.Put(g.ctx, []byte("first"), nil))
	remove := g.vault.Inject(vaulttest.Fault{Op: vault.OpWrapKey, Err: vault.ErrThrottled})
	b := s.NewBatch()
	require.NoError(t, b.PutLent(g.ctx, []byte("a"), []byte("data")))
	err := b.Commit(g.ctx)
	require.ErrorIs(t, err, vault.ErrThrottled)
	require.ErrorContains(t, err, `block "a"`)
	remove()
	require.ErrorIs(t, b.Commit(g.ctx), vault.ErrThrottled, "a batch that lacks a block stays spoiled")
	require.NoError(t, b.Close())
	isWhole(t, g, s, map[string][]byte{"first": nil})

	b = s.NewBatch()
	require.ErrorIs(t, b.PutLent(g.ctx, nil, nil), block.ErrInvalidID)
	require.ErrorIs(t, b.Commit(g.ctx), block.ErrInvalidID)
	require.NoError(t, b.Close())
}

// The context of PutLent bounds that call alone; that of Commit bounds the wait, after which the
// batch can still be committed.
func TestContextsOfALentBatch(t *testing.T) {
	g := newRig(t)
	s := g.open()
	b := s.NewBatch()
	ctx, cancel := context.WithCancel(g.ctx)
	want := map[string][]byte{}
	for i := range 20 {
		id := fmt.Sprint(i)
		want[id] = bytes.Repeat([]byte{byte(i)}, 30<<10)
		require.NoError(t, b.PutLent(ctx, []byte(id), want[id]))
	}
	cancel()
	require.ErrorIs(t, b.Commit(ctx), context.Canceled)
	isWhole(t, g, s, nil)
	require.NoError(t, b.Commit(g.ctx))
	isWhole(t, g, s, want)
	require.ErrorIs(t, b.PutLent(g.ctx, []byte("x"), nil), block.ErrClosed)
}

// While a vault hangs, Close gives up what is being wrapped, and the lock of a store does.
func TestLentBatchWhoseVaultHangs(t *testing.T) {
	g := newRig(t)
	g.opts.Keyring.Wrapping = keyring.ByKEK
	s := g.open()
	require.NoError(t, s.Put(g.ctx, []byte("first"), nil))
	defer g.vault.Inject(vaulttest.Fault{Op: vault.OpWrapKey, Hang: true})()
	b := s.NewBatch()
	for i := range 8 {
		require.NoError(t, b.PutLent(g.ctx, fmt.Appendf(nil, "%d", i), make([]byte, 8<<10)))
	}
	ctx, cancel := context.WithCancel(g.ctx)
	committed := make(chan error, 1)
	go func() { committed <- b.Commit(ctx) }()
	require.Eventually(t, func() bool { return g.vault.Waiting() > 0 }, time.Minute, time.Millisecond)
	require.NoError(t, s.Close())
	require.ErrorIs(t, <-committed, block.ErrClosed)
	cancel()
	require.NoError(t, b.Close())
}

// Many goroutines commit batches of lent blocks, beside locks and rotations: what is acknowledged is
// there, as a whole, and helpers are never more than they may be.
func TestLentBatchesUnderLoad(t *testing.T) {
	g := newRig(t)
	g.opts.NoSync = true
	s := g.open()
	var (
		wg    sync.WaitGroup
		mu    sync.Mutex
		acked = map[string][]byte{}
	)
	for who := range 6 {
		wg.Go(func() {
			for round := range 30 {
				b := s.NewBatch()
				lent := map[string][]byte{}
				var err error
				for i := range 10 {
					id := fmt.Sprintf("%d %d", who, i)
					lent[id] = bytes.Repeat([]byte{byte(round)}, 3<<10)
					err = errors.Join(err, b.PutLent(g.ctx, []byte(id), lent[id]))
				}
				if round%5 == 4 {
					b.Close()
					continue
				}
				if err == nil {
					err = b.Commit(g.ctx)
				}
				b.Close()
				mu.Lock()
				if err == nil {
					maps.Copy(acked, lent)
				} else if !errors.Is(err, block.ErrInaccessible) {
					t.Error(err)
				}
				mu.Unlock()
			}
		})
	}
	for range 6 {
		require.NoError(t, s.RotateEpoch(g.ctx, nil))
		g.vault.SetEnabled(g.key, false)
		require.Error(t, s.Revalidate(g.ctx))
		require.LessOrEqual(t, s.Helpers(), runtime.GOMAXPROCS(0)-1)
		g.vault.SetEnabled(g.key, true)
		require.NoError(t, s.Revalidate(g.ctx))
	}
	wg.Wait()
	for id, want := range acked {
		got, err := s.Get(g.ctx, []byte(id), nil)
		require.NoError(t, err)
		require.Equal(t, want, got, id)
	}
	require.Zero(t, s.Helpers())
}
