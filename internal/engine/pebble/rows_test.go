package pebble

import (
	"sync/atomic"
	"syscall"
	"testing"
	"time"

	"github.com/cockroachdb/pebble/v2/vfs"
	"github.com/cockroachdb/pebble/v2/vfs/errorfs"
	"github.com/stretchr/testify/require"

	"github.com/blockseal/blockseal/internal/engine"
)

// A change that rests on a row of which nobody can read whether it is as it was is refused for
// that reason: the row was not changed, and who is told so would try for ever.
func TestApplyThatCannotReadWhatItRestsOn(t *testing.T) {
	var failing atomic.Bool
	mem := vfs.NewMem()
	require.NoError(t, mem.MkdirAll("db", 0o755))
	put := func(d *DB, id string, g engine.Guard) error {
		p := d.Partition(0)
		b := p.NewBatch()
		defer b.Close()
		require.NoError(t, b.(*batch).PutRecord([]byte(id), []byte("record")))
		g.Floor = p.Floor().Revision
		return p.Apply(t.Context(), b, g, false)
	}
	t.Run("before", func(t *testing.T) {
		d := openDir(t, "db", mem)
		require.NoError(t, put(d, "a", engine.Guard{}))
		require.NoError(t, d.Flush(t.Context()))
	})
	d := openDir(t, "db", errorfs.Wrap(mem, errorfs.InjectorFunc(func(op errorfs.Op) error {
		if failing.Load() && (op.Kind == errorfs.OpFileReadAt || op.Kind == errorfs.OpOpen) {
			return syscall.EIO
		}
		return nil
	})))
	// Pebble gathers statistics of the tables behind an open, and who opens a table while another is
	// refused it gets that one's error. So the failure begins when nobody else reads.
	require.Eventually(t, func() bool { return d.p.Metrics().Table.InitialStatsCollectionComplete },
		time.Minute, time.Millisecond)
	g := engine.Guard{Was: []engine.Was{{ID: []byte("a"), Record: []byte("record")}}}
	failing.Store(true)
	err := put(d, "b", g)
	require.ErrorIs(t, err, syscall.EIO)
	require.NotErrorIs(t, err, engine.ErrChanged)
	failing.Store(false)
	require.NoError(t, put(d, "b", g))
}
