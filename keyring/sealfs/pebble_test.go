package sealfs_test

import (
	"fmt"
	"sync/atomic"
	"testing"

	"github.com/cockroachdb/pebble/v2"
	"github.com/cockroachdb/pebble/v2/vfs"
	"github.com/cockroachdb/pebble/v2/vfs/errorfs"
	"github.com/stretchr/testify/require"
)

// A Pebble does on sealed files what it does on plain ones: writes, flushes, compactions, logs that
// are reused, a checkpoint, and all of it again after it was closed.
func TestPebble(t *testing.T) {
	for _, under := range []struct {
		name string
		fs   func() (vfs.FS, string)
	}{
		{"in memory", func() (vfs.FS, string) { return vfs.NewMem(), "db" }},
		{"on a disk", func() (vfs.FS, string) { return vfs.Default, t.TempDir() }},
	} {
		t.Run(under.name, func(t *testing.T) {
			g := newRig(t, nil)
			below, dir := under.fs()
			var reused, linked atomic.Int32
			fs := g.over(errorfs.Wrap(below, errorfs.InjectorFunc(func(op errorfs.Op) error {
				switch op.Kind {
				case errorfs.OpReuseForWrite:
					reused.Add(1)
				case errorfs.OpLink:
					linked.Add(1)
				}
				return nil
			})))
			key := func(i int) []byte { return fmt.Appendf(nil, "key %05d", i) }
			const n = 600
			for round := range 3 {
				db, err := pebble.Open(dir, pebbleOptions(fs))
				require.NoError(t, err)
				if round > 0 {
					for i := range n {
						v, closer, err := db.Get(key(i))
						require.NoError(t, err)
						require.Equal(t, content(uint64(i*round), 100+i*3), v)
						require.NoError(t, closer.Close())
					}
				}
				for i := range n {
					require.NoError(t, db.Set(key(i), content(uint64(i*(round+1)), 100+i*3), pebble.Sync))
				}
				require.NoError(t, db.Compact(t.Context(), []byte("a"), []byte("z"), false))
				copied := fs.PathJoin(dir, fmt.Sprintf("copy %d", round))
				require.NoError(t, db.Checkpoint(copied, pebble.WithFlushedWAL()))
				require.NoError(t, db.Close())

				check, err := pebble.Open(copied, pebbleOptions(fs))
				require.NoError(t, err)
				it, err := check.NewIter(nil)
				require.NoError(t, err)
				i := 0
				for it.First(); it.Valid(); it.Next() {
					require.Equal(t, string(key(i)), string(it.Key()))
					require.Equal(t, content(uint64(i*(round+1)), 100+i*3), it.Value())
					i++
				}
				require.Equal(t, n, i)
				require.NoError(t, it.Close())
				require.NoError(t, check.Close())
			}
			// Read only, the files are opened and nothing is written.
			opts := pebbleOptions(fs)
			opts.ReadOnly = true
			db, err := pebble.Open(dir, opts)
			require.NoError(t, err)
			v, closer, err := db.Get(key(1))
			require.NoError(t, err)
			require.Equal(t, content(3, 103), v)
			require.NoError(t, closer.Close())
			require.NoError(t, db.Close())
			require.Positive(t, reused.Load(), "no log was reused")
			require.Positive(t, linked.Load(), "the checkpoints share no table")
		})
	}
}
