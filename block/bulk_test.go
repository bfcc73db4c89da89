package block_test

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"iter"
	"maps"
	"math/rand/v2"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"testing"

	"github.com/cockroachdb/pebble/v2/vfs"
	"github.com/stretchr/testify/require"

	"github.com/blockseal/blockseal/block"
	"github.com/blockseal/blockseal/keyring"
)

// inOrder yields blocks in the order of their ids, from memory that is used again; before, if not nil,
// is called before each.
func inOrder(blocks map[string][]byte, before func(n int)) iter.Seq2[block.Block, error] {
	return func(yield func(block.Block, error) bool) {
		var id, data []byte
		for n, k := range slices.Sorted(maps.Keys(blocks)) {
			if before != nil {
				before(n)
			}
			id, data = append(id[:0], k...), append(data[:0], blocks[k]...)
			if !yield(block.Block{ID: id, Data: data}, nil) {
				return
			}
			clear(data)
		}
	}
}

// someBlocks returns blocks of many sizes under ids with a prefix.
func someBlocks(prefix string, n int, seed uint64) map[string][]byte {
	r := rand.New(rand.NewPCG(seed, 1))
	out := map[string][]byte{}
	for i := range n {
		size := r.IntN(3000)
		if r.IntN(100) == 0 {
			size = r.IntN(900 << 10)
		}
		out[fmt.Sprintf("%s%05d", prefix, i)] = bytes.Repeat([]byte{byte(r.Uint32())}, size)
	}
	return out
}

// leftOfLoads returns the files that loads have in a directory.
func leftOfLoads(t testing.TB, fs vfs.FS, dir string) (left []string) {
	names, err := fs.List(dir)
	require.NoError(t, err)
	for _, name := range names {
		if strings.HasPrefix(name, "blockseal-load-") {
			left = append(left, name)
		}
	}
	return left
}

// Loads and puts, in turn and over the same ids, leave what came last, also when the store is opened
// again, and nothing else in its directory.
func TestLoad(t *testing.T) {
	g := newRig(t)
	s := g.open()
	want := map[string][]byte{}
	n, err := s.Load(g.ctx, inOrder(nil, nil))
	require.NoError(t, err)
	require.Zero(t, n)
	for round := range 4 {
		for id, data := range someBlocks("a", 30, uint64(round)) {
			require.NoError(t, s.Put(g.ctx, []byte(id), data))
			want[id] = data
		}
		loaded := someBlocks([]string{"a", "b"}[round%2], 3000, uint64(round))
		n, err := s.Load(g.ctx, inOrder(loaded, nil))
		require.NoError(t, err)
		require.EqualValues(t, len(loaded), n)
		maps.Copy(want, loaded)
		for range 20 {
			id := fmt.Sprintf("a%05d", round*7)
			require.NoError(t, s.Delete(g.ctx, []byte(id)))
			delete(want, id)
		}
		isWhole(t, g, s, want)
	}
	require.Empty(t, leftOfLoads(t, g.opts.Pebble.FS, g.dir))
	require.NoError(t, s.RotateEpoch(g.ctx, nil))
	require.NoError(t, s.Close())
	s = g.open()
	isWhole(t, g, s, want)
	require.EqualValues(t, len(want), len(s.Records()))
}

// In a DB a load is of one store, and what one store has can be loaded into another.
func TestLoadInADB(t *testing.T) {
	g := newDBRig(t)
	from, to, other := g.create("from"), g.create("to"), g.create("other")
	blocks := someBlocks("", 2000, 7)
	_, err := from.Load(g.ctx, inOrder(blocks, nil))
	require.NoError(t, err)
	require.NoError(t, other.Put(g.ctx, []byte("00000"), []byte("its own")))
	n, err := to.Load(g.ctx, from.Blocks(g.ctx, block.Range{}))
	require.NoError(t, err)
	require.EqualValues(t, len(blocks), n)
	require.NoError(t, from.Close())
	require.NoError(t, second(g.db.Drop(g.ctx, "from")))
	g.reopen()
	to, release := g.acquire("to")
	defer release()
	isWhole(t, &rig{ctx: g.ctx}, to, blocks)
	other, release = g.acquire("other")
	defer release()
	isWhole(t, &rig{ctx: g.ctx}, other, map[string][]byte{"00000": []byte("its own")})
}

// What cannot be loaded leaves the store as it was, and nothing in its directory.
func TestLoadRefuses(t *testing.T) {
	sentinel := errors.New("the source has failed")
	list := func(blocks ...block.Block) iter.Seq2[block.Block, error] {
		return func(yield func(block.Block, error) bool) {
			for _, b := range blocks {
				if !yield(b, nil) {
					return
				}
			}
		}
	}
	b := func(id string, size int) block.Block { return block.Block{ID: []byte(id), Data: make([]byte, size)} }
	for name, c := range map[string]struct {
		blocks iter.Seq2[block.Block, error]
		want   error
		says   string
	}{
		"out of order":       {list(b("a", 1), b("c", 2), b("b", 3)), nil, `block "b" comes after "c"`},
		"the same one twice": {list(b("a", 1), b("a", 2)), nil, `block "a" comes after "a"`},
		"an empty id":        {list(b("", 1)), block.ErrInvalidID, ""},
		"a block too large":  {list(b("a", 1), b("b", block.MaxBlock+1)), block.ErrTooLarge, `block "b"`},
		"a source that fails": {func(yield func(block.Block, error) bool) {
			for i := range 3000 {
				if !yield(b(fmt.Sprintf("%05d", i), 1000), nil) {
					return
				}
			}
			yield(block.Block{}, sentinel)
		}, sentinel, ""},
	} {
		t.Run(name, func(t *testing.T) {
			g := newRig(t)
			s := g.open()
			require.NoError(t, s.Put(g.ctx, []byte("a"), []byte("as it was")))
			n, err := s.Load(g.ctx, c.blocks)
			require.Error(t, err)
			require.Zero(t, n)
			if c.want != nil {
				require.ErrorIs(t, err, c.want)
			}
			require.ErrorContains(t, err, c.says)
			isWhole(t, g, s, map[string][]byte{"a": []byte("as it was")})
			require.Empty(t, leftOfLoads(t, g.opts.Pebble.FS, g.dir))
			require.NoError(t, second(s.Erase(g.ctx, nil)), "nothing is pinned")
		})
	}
	t.Run("ByKEK", func(t *testing.T) {
		g := newRig(t)
		g.opts.Keyring.Wrapping = keyring.ByKEK
		_, err := g.open().Load(g.ctx, list(b("a", 1)))
		require.ErrorIs(t, err, errors.ErrUnsupported)
	})
	t.Run("read only", func(t *testing.T) {
		g := newRig(t)
		require.NoError(t, g.open().Close())
		g.opts.ReadOnly = true
		s, err := block.Open(g.ctx, g.dir, g.kek, &g.opts)
		require.NoError(t, err)
		defer s.Close()
		_, err = s.Load(g.ctx, list(b("a", 1)))
		require.ErrorIs(t, err, block.ErrReadOnly)
	})
	t.Run("a source that panics", func(t *testing.T) {
		g := newRig(t)
		s := g.open()
		require.Panics(t, func() {
			s.Load(g.ctx, func(yield func(block.Block, error) bool) {
				yield(b("a", 100), nil)
				panic("the source")
			})
		})
		require.Zero(t, s.Stats().Puts, "none was put")
		isWhole(t, g, s, nil)
		require.Empty(t, leftOfLoads(t, g.opts.Pebble.FS, g.dir))
		require.NoError(t, second(s.Erase(g.ctx, nil)), "nothing is pinned")
	})
	t.Run("a context that ends for a cause of the caller's", func(t *testing.T) {
		g := newRig(t)
		ctx, cancel := context.WithCancelCause(g.ctx)
		_, err := g.open().Load(ctx, inOrder(someBlocks("", 5000, 1), func(n int) {
			if n == 2500 {
				cancel(sentinel)
			}
		}))
		require.ErrorIs(t, err, context.Canceled)
	})
	t.Run("a context that ends", func(t *testing.T) {
		g := newRig(t)
		s := g.open()
		ctx, cancel := context.WithCancel(g.ctx)
		_, err := s.Load(ctx, inOrder(someBlocks("", 5000, 1), func(n int) {
			if n == 2500 {
				cancel()
			}
		}))
		require.ErrorIs(t, err, context.Canceled)
		isWhole(t, g, s, nil)
		require.Empty(t, leftOfLoads(t, g.opts.Pebble.FS, g.dir))
	})
}

// What happens to keys during a load is nothing to it: its records name epochs that the store has
// when it is over, and no copy can open what is loaded after it was made.
func TestLoadBesideRotations(t *testing.T) {
	for name, happens := range map[string]func(g *rig, s *block.Store) error{
		"RotateEpoch": func(g *rig, s *block.Store) error { return s.RotateEpoch(g.ctx, nil) },
		"twice": func(g *rig, s *block.Store) error {
			return errors.Join(s.RotateEpoch(g.ctx, nil), s.RotateEpoch(g.ctx, nil))
		},
		"RotateKEK":  func(g *rig, s *block.Store) error { g.vault.Rotate(g.key.Name); return s.RotateKEK(g.ctx) },
		"Rekey":      func(g *rig, s *block.Store) error { return s.Rekey(g.ctx, block.Range{}, nil) },
		"Checkpoint": func(g *rig, s *block.Store) error { return s.Checkpoint(g.ctx, "copy") },
		"Erase": func(g *rig, s *block.Store) error {
			if _, err := s.Erase(g.ctx, nil); !errors.Is(err, block.ErrPinned) {
				return fmt.Errorf("want ErrPinned, got %w", err)
			}
			return nil
		},
	} {
		t.Run(name, func(t *testing.T) {
			g := newRig(t)
			s := g.open()
			want := someBlocks("before", 50, 2)
			for id, data := range want {
				require.NoError(t, s.Put(g.ctx, []byte(id), data))
			}
			first := s.State().Epoch
			loaded := someBlocks("load", 3000, 3)
			_, err := s.Load(g.ctx, inOrder(loaded, func(n int) {
				if n == 2000 {
					require.NoError(t, happens(g, s))
				}
			}))
			require.NoError(t, err)
			maps.Copy(want, loaded)
			isWhole(t, g, s, want)
			rep, err := s.Verify(g.ctx, nil)
			require.NoError(t, err)
			st := s.State()
			if st.Epochs == 1 {
				require.Equal(t, map[uint32]uint64{st.Epoch: uint64(len(want))}, rep.DEKs)
			}
			if name == "Checkpoint" {
				for id := range loaded {
					in, err := keyring.ParseRecord([]byte(s.Records()[id]))
					require.NoError(t, err)
					require.Greater(t, in.Epoch, first, "the copy has the key of the epoch before")
					break
				}
				require.EqualValues(t, len(loaded), rep.DEKs[st.Epoch])
			}
			require.NoError(t, s.Close())
			isWhole(t, g, g.open(), want)
		})
	}
}

// A lock of the store ends a load, as Close does, and Close does not wait for where the blocks come
// from.
func TestLoadAcrossALock(t *testing.T) {
	for name, c := range map[string]struct {
		happens func(g *rig, s *block.Store)
		want    error
	}{
		"locked": {func(g *rig, s *block.Store) {
			g.vault.SetEnabled(g.key, false)
			require.Error(g.t, s.Revalidate(g.ctx))
			g.vault.SetEnabled(g.key, true)
			require.NoError(g.t, s.Revalidate(g.ctx))
		}, block.ErrInaccessible},
		"closed": {func(g *rig, s *block.Store) { require.NoError(g.t, s.Close()) }, block.ErrClosed},
	} {
		t.Run(name, func(t *testing.T) {
			g := newRig(t)
			s := g.open()
			require.NoError(t, s.Put(g.ctx, []byte("a"), nil))
			_, err := s.Load(g.ctx, inOrder(someBlocks("", 5000, 4), func(n int) {
				if n == 3000 {
					c.happens(g, s)
				}
			}))
			require.ErrorIs(t, err, c.want)
			require.NoError(t, s.Close())
			require.Empty(t, leftOfLoads(t, g.opts.Pebble.FS, g.dir))
			isWhole(t, g, g.open(), map[string][]byte{"a": nil})
		})
	}
}

// A reader sees nothing of a load, and then all of it; also of what it has read again and again, and
// what the caches have.
func TestReadersBesideALoad(t *testing.T) {
	g := newRig(t)
	s := g.open()
	before, after := map[string][]byte{}, map[string][]byte{}
	for i := range 200 {
		id := fmt.Sprintf("%03d", i)
		before[id], after[id] = []byte("before "+id), []byte("after "+id)
		require.NoError(t, s.Put(g.ctx, []byte(id), before[id]))
	}
	var stop, sawNew atomic.Bool
	var wg sync.WaitGroup
	for who := range 3 {
		wg.Go(func() {
			for i := 0; !stop.Load(); i++ {
				id := fmt.Sprintf("%03d", (i*7+who)%200)
				must := sawNew.Load()
				got, err := s.Get(g.ctx, []byte(id), nil)
				switch {
				case err != nil:
					t.Error(err)
					return
				case string(got) == "after "+id:
					sawNew.Store(true)
				case string(got) != "before "+id || must:
					t.Errorf("%s: %q, and somebody has seen what was loaded: %v", id, got, must)
					return
				}
			}
		})
	}
	for round := range 6 {
		_, err := s.Load(g.ctx, inOrder(after, nil))
		require.NoError(t, err)
		for id := range after {
			got, err := s.Get(g.ctx, []byte(id), nil)
			require.NoError(t, err)
			require.Equal(t, "after "+id, string(got), round)
		}
		if round == 0 {
			sawNew.Store(true)
		}
	}
	stop.Store(true)
	wg.Wait()
}

// After a crash at any operation on the files, a load is there as a whole or not at all, and what it
// left is removed when the store is opened. What was acknowledged before and meanwhile is there.
func TestCrashDuringALoad(t *testing.T) {
	c := newCrashRig(t, rotation{})
	loaded := someBlocks("load", 600, 5)
	require.NoError(t, c.observe(func() error {
		_, err := c.s.Load(c.ctx, inOrder(loaded, nil))
		return err
	}))
	whole, none := 0, 0
	for _, cr := range c.sample() {
		what := fmt.Sprintf("crash before operation %s, %d%% of what was not synced kept", cr.at, cr.kept)
		g := c.reopen(t, cr)
		s := c.openAny(g)
		require.Empty(t, leftOfLoads(t, cr.fs, g.dir), what)
		n := 0
		for b, err := range s.Blocks(g.ctx, block.Prefix([]byte("load"))) {
			require.NoError(t, err, what)
			require.True(t, bytes.Equal(loaded[string(b.ID)], b.Data), what)
			n++
		}
		switch n {
		case 0:
			none++
			require.NotContains(t, cr.at, "the end", "Load has returned")
		case len(loaded):
			whole++
			for id := range loaded {
				require.NoError(t, s.Delete(g.ctx, []byte(id)))
			}
		default:
			t.Fatalf("%s: %d of %d blocks", what, n, len(loaded))
		}
		cr.check(t, g, s)
		require.NoError(t, second(s.Load(g.ctx, inOrder(loaded, nil))), what)
		require.NoError(t, s.Close())
	}
	require.Positive(t, whole)
	require.Positive(t, none)
	require.NoError(t, c.s.Close())
}

// Erase forgets the records of what was loaded and deleted, as of what was put.
func TestEraseAfterALoad(t *testing.T) {
	g := newRig(t)
	s := g.open()
	loaded := someBlocks("", 2000, 6)
	require.NoError(t, second(s.Load(g.ctx, inOrder(loaded, nil))))
	record := []byte(s.Records()["00700"])
	require.NotEmpty(t, holding(t, g.opts.Pebble.FS, g.dir, record), "it is found where it is")
	require.NoError(t, s.Delete(g.ctx, []byte("00700")))
	delete(loaded, "00700")
	require.NoError(t, second(s.Erase(g.ctx, nil)))
	require.Empty(t, holding(t, g.opts.Pebble.FS, g.dir, record))
	isWhole(t, g, s, loaded)
}
