package block_test

import (
	"maps"
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/blockseal/blockseal/block"
)

// TestLoadUnderAFileKEK loads into stores whose files are sealed: Pebble links the tables of a load under
// names of its own, and sealed files are bound to their names.
func TestLoadUnderAFileKEK(t *testing.T) {
	before := func() map[string][]byte { return someBlocks("before", 50, 1) }
	start := func(t *testing.T) (*filesRig, *block.Store, map[string][]byte) {
		g := newFilesRig(t)
		s := g.create("a")
		want := before()
		for id, data := range want {
			require.NoError(t, s.Put(g.ctx, []byte(id), data))
		}
		return g, s, want
	}
	// leaves requires that the store has the blocks, and its directory nothing else, now, after access
	// to the files went and came, and when the DB is opened again.
	leaves := func(t *testing.T, g *filesRig, s *block.Store, want map[string][]byte) {
		t.Helper()
		left := func() []string { return leftOfLoads(t, g.opts.Pebble.FS, "db") }
		isWhole(t, &rig{ctx: g.ctx}, s, want)
		require.Empty(t, left())
		g.enable(false)
		g.enable(true)
		isWhole(t, &rig{ctx: g.ctx}, s, want)
		rep, err := s.Verify(g.ctx, nil)
		require.NoError(t, err)
		require.Empty(t, rep.Problems)
		g.reopen()
		s, release := g.acquire("a")
		defer release()
		isWhole(t, &rig{ctx: g.ctx}, s, want)
		require.Empty(t, left())
	}

	t.Run("with access", func(t *testing.T) {
		g, s, want := start(t)
		for round := range uint64(3) { // over the same ids: the tables overlap
			loaded := someBlocks("load", 3000, round)
			n, err := s.Load(g.ctx, inOrder(loaded, nil))
			require.NoError(t, err)
			require.EqualValues(t, len(loaded), n)
			maps.Copy(want, loaded)
		}
		leaves(t, g, s, want)
	})
	t.Run("beside rotations of the files", func(t *testing.T) {
		g, s, want := start(t)
		loaded := someBlocks("load", 3000, 2)
		_, err := s.Load(g.ctx, inOrder(loaded, func(n int) {
			if n%1000 == 500 { // what is written of the tables changes its DEK record
				dropped, err := g.db.RotateFileEpoch(g.ctx)
				require.NoError(t, err)
				require.NotEmpty(t, dropped)
			}
		}))
		require.NoError(t, err)
		maps.Copy(want, loaded)
		leaves(t, g, s, want)
	})
	t.Run("records that are rewrapped", func(t *testing.T) {
		g, s, want := start(t)
		loaded := someBlocks("load", 3000, 3)
		_, err := s.Load(g.ctx, inOrder(loaded, func(n int) {
			if n == 2000 {
				require.NoError(t, s.RotateEpoch(g.ctx, nil))
			}
		}))
		require.NoError(t, err)
		maps.Copy(want, loaded)
		leaves(t, g, s, want)
	})
	for name, back := range map[string]bool{"access is lost": false, "access is lost and comes back": true} {
		t.Run(name, func(t *testing.T) {
			g, s, want := start(t)
			n, err := s.Load(g.ctx, inOrder(someBlocks("load", 3000, 4), func(n int) {
				if n == 2000 {
					require.NotEmpty(t, leftOfLoads(t, g.opts.Pebble.FS, "db"), "it has begun to write")
					g.enable(false)
					if back {
						g.enable(true)
					}
				}
			}))
			isFileKEK(t, err)
			require.Zero(t, n)
			if !back {
				g.enable(true)
			}
			leaves(t, g, s, want)
			s, release := g.acquire("a")
			defer release()
			_, err = s.Load(g.ctx, inOrder(someBlocks("load", 3000, 5), nil))
			require.NoError(t, err, "the next one is not held up by what that one left")
		})
	}
	t.Run("closed meanwhile", func(t *testing.T) {
		g, s, want := start(t)
		_, err := s.Load(g.ctx, inOrder(someBlocks("load", 3000, 6), func(n int) {
			if n == 2000 {
				require.NoError(t, g.db.Close())
			}
		}))
		require.ErrorIs(t, err, block.ErrClosed)
		g.openDB()
		s, release := g.acquire("a")
		defer release()
		leaves(t, g, s, want)
	})
}
