package block_test

import (
	"fmt"
	"runtime"
	"strings"
	"testing"

	"github.com/cockroachdb/pebble/v2/vfs"
	"github.com/stretchr/testify/require"

	"github.com/blockseal/blockseal/block"
)

// TestSealedFilesNameNothing searches all files of a DB for what they are not to say: ids of blocks, names
// and ids of stores, plaintext, and the sealed blocks and DEK records as the engine has them, which tell
// sizes and what was written when. The same search over a DB whose files are not sealed finds all but the
// plaintext: so the search can find.
func TestSealedFilesNameNothing(t *testing.T) {
	for name, sealed := range map[string]bool{"without FileKEK": false, "with FileKEK": true} {
		t.Run(name, func(t *testing.T) {
			g := newFilesRig(t)
			if !sealed {
				require.NoError(t, g.db.Close())
				g.opts.FileKEK, g.opts.Pebble.FS = nil, vfs.NewMem()
				g.openDB()
			}
			const store, id, small = "the-name-of-the-store", "the-id-of-a-block", "the-plaintext-of-a-block"
			s := g.create(store)
			large := strings.Repeat("the-plaintext-of-a-large-block ", 300)
			for i := range 40 {
				put(t, s, fmt.Sprint(id, i), small)
				put(t, s, fmt.Sprint(id, "large", i), large)
			}
			require.NoError(t, g.db.Checkpoint(g.ctx, "the-path-of-a-copy")) // it flushes
			put(t, s, id+"in the log", small)
			storeID := s.StoreID()
			require.NoError(t, g.db.Close())

			var exported strings.Builder // the same bytes as the engine has
			g.openDB()
			_, err := g.db.Export(g.ctx, store, &exported)
			require.NoError(t, err)
			require.NoError(t, g.db.Close())

			looked := map[string]string{ // row of "what leaks", and what gives it away
				"ids of blocks":    id,
				"names of stores":  store,
				"ids of stores":    string(storeID[:]),
				"KEKs of stores":   g.kek(store).ID().Name,
				"settings":         "cache_size=",
				"paths of copies":  "the-path-of-a-copy",
				"plaintext":        small,
				"plaintext, large": large[:31],
			}
			found := map[string]bool{}
			for _, dir := range []string{"db", "the-path-of-a-copy"} {
				for file, b := range contents(t, g.opts.Pebble.FS, dir) {
					for what, text := range looked {
						if dir != "db" && what == "paths of copies" {
							continue // a directory has its own path in its identity file
						}
						if strings.Contains(b, text) {
							found[what] = true
							if sealed {
								t.Errorf("%s/%s has %s", dir, file, what)
							}
						}
					}
				}
			}
			if !sealed {
				require.Equal(t, map[string]bool{"ids of blocks": true, "names of stores": true, "ids of stores": true,
					"KEKs of stores": true, "settings": true, "paths of copies": true}, found, "the search finds what is there")
			}
			require.Contains(t, exported.String(), id, "and what is searched for is in the engine")
		})
	}
}

// TestFileKEKAndCloseAtEachMoment closes a DB while its key goes and comes, and after that. Close returns,
// and no goroutine of the DB's is left, nor its lock.
func TestFileKEKAndCloseAtEachMoment(t *testing.T) {
	for _, moment := range []string{"lost", "lost and being closed", "given back", "given back and open", "never lost"} {
		t.Run(moment, func(t *testing.T) {
			g := newFilesRig(t)
			s := g.create("a")
			put(t, s, "one", "first")
			key := g.opts.FileKEK.ID()
			switch moment {
			case "lost":
				g.enable(false)
			case "lost and being closed":
				g.operator.SetEnabled(key, false)
				require.Error(t, g.db.RevalidateFileKEK(g.ctx))
			case "given back":
				g.enable(false)
				g.operator.SetEnabled(key, true)
				require.NoError(t, g.db.RevalidateFileKEK(g.ctx))
			case "given back and open":
				g.enable(false)
				g.enable(true)
			}
			require.NoError(t, g.db.Close())
			require.ErrorIs(t, s.Put(g.ctx, []byte("two"), nil), block.ErrClosed)
			require.ErrorIs(t, g.db.RevalidateFileKEK(g.ctx), block.ErrClosed)
			st, err := g.db.Stats(g.ctx)
			require.NoError(t, err)
			require.Empty(t, st.Troubles)
			g.eventually(func() bool {
				all := make([]byte, 1<<20)
				return !strings.Contains(string(all[:runtime.Stack(all, true)]), "block.(*sealedFiles)")
			})
			g.operator.SetEnabled(key, true)
			g.openDB()
			s, err = g.db.Open(g.ctx, "a", g.kek("a"), &g.store)
			require.NoError(t, err)
			holds(t, s, "one", "first")
		})
	}
}

// TestFileKEKReadOnly shows that a copy of sealed files can be read without a change to them.
func TestFileKEKReadOnly(t *testing.T) {
	g := newFilesRig(t)
	put(t, g.create("a"), "one", "first")
	require.NoError(t, g.db.Close())
	before := contents(t, g.opts.Pebble.FS, "db")
	g.opts.ReadOnly = true
	g.openDB()
	s, err := g.db.Open(g.ctx, "a", g.kek("a"), &g.store)
	require.NoError(t, err)
	holds(t, s, "one", "first")
	g.enable(false)
	_, err = s.Get(g.ctx, []byte("one"), nil)
	isFileKEK(t, err)
	g.enable(true)
	holds(t, s, "one", "first")
	_, err = g.db.RotateFileEpoch(g.ctx)
	require.ErrorIs(t, err, block.ErrReadOnly)
	require.NoError(t, g.db.Close())
	require.Equal(t, before, contents(t, g.opts.Pebble.FS, "db"))
}
