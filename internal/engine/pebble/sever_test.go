package pebble

import (
	"fmt"
	"strings"
	"testing"

	"github.com/cockroachdb/pebble/v2"
	"github.com/cockroachdb/pebble/v2/vfs"
	"github.com/cockroachdb/pebble/v2/vfs/errorfs"
	"github.com/stretchr/testify/require"
)

// TestSeveredWhileItIsOpened cuts an engine off when Open has replayed a log into a table, which begins a
// compaction. If Open failed then, Pebble would close the cache of files in which that compaction looks
// for its tables, which ends the process. So it comes to its end, and the engine is closed.
func TestSeveredWhileItIsOpened(t *testing.T) {
	mem := vfs.NewMem()
	o := Options{FS: mem, Create: true, NoTableStats: true, Fatal: func(msg string) { panic(msg) }}
	p := pebbleOptions(o, nil, mem, &logger{fatal: o.Fatal}, newRoom(o), newRunning())
	p.DisableAutomaticCompactions = true
	db, err := pebble.Open("db", p)
	require.NoError(t, err)
	for i := range 13 { // twelve tables, one over the other, and a log
		for k := range 10 {
			require.NoError(t, db.Set(fmt.Appendf(nil, "m%d", k), fmt.Append(nil, i), pebble.Sync))
		}
		if i < 12 {
			require.NoError(t, db.Flush())
		}
	}
	require.NoError(t, db.Close())

	o.Create = false
	var files *SeverFS
	under := errorfs.Wrap(mem, errorfs.InjectorFunc(func(op errorfs.Op) error {
		if op.Kind == errorfs.OpRename && strings.HasSuffix(op.Path, ".dbtmp") { // OPTIONS, after the log
			files.Sever()
		}
		return nil
	}))
	files = NewSeverFS(under)
	o.FS = files
	e, err := Open("db", nil, o)
	require.NoError(t, err)
	require.True(t, files.severed.Load())
	_, _, err = e.Get([]byte("m1"))
	require.ErrorIs(t, err, ErrSevered)
	require.NoError(t, e.Close())

	o.FS = mem
	e, err = Open("db", nil, o)
	require.NoError(t, err)
	defer e.Close()
	for k := range 10 {
		v, c, err := e.Get(fmt.Appendf(nil, "m%d", k))
		require.NoError(t, err)
		require.Equal(t, "12", string(v))
		require.NoError(t, c.Close())
	}
}
