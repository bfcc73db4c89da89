package pebble

import (
	"strings"
	"testing"

	"github.com/cockroachdb/pebble/v2/vfs/errorfs"
	"github.com/stretchr/testify/require"
)

// TestSeveredWhileItIsOpened cuts an engine off when Open has replayed a log into a table, after which
// compactions are due. It comes to its end, and the engine is closed.
func TestSeveredWhileItIsOpened(t *testing.T) {
	mem := overlapping(t)
	o := Options{NoTableStats: true, Fatal: func(msg string) { panic(msg) }}
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
	requireOverlapping(t, e)
}
