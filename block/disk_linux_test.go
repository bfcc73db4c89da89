package block_test

import (
	"io/fs"
	"path/filepath"
	"syscall"
	"testing"

	"github.com/cockroachdb/pebble/v2"
	"github.com/cockroachdb/pebble/v2/vfs"
	"github.com/stretchr/testify/require"

	"github.com/blockseal/blockseal/block"
)

// onDisk is how much of the disk a directory takes, in bytes.
func onDisk(t *testing.T, dir string) (n int64) {
	require.NoError(t, filepath.WalkDir(dir, func(path string, e fs.DirEntry, err error) error {
		if err != nil || e.IsDir() {
			return err
		}
		var st syscall.Stat_t
		if err := syscall.Stat(path, &st); err == syscall.ENOENT {
			return nil // the engine has removed it meanwhile
		} else if err != nil {
			return err
		}
		n += 512 * st.Blocks
		return nil
	}))
	return n
}

// A store of a few blocks takes no more of the disk than a plain Pebble as it comes, in use and
// closed.
func TestSmallStoreTakesLittleDisk(t *testing.T) {
	plain := filepath.Join(t.TempDir(), "plain")
	p, err := pebble.Open(plain, &pebble.Options{})
	require.NoError(t, err)
	for range 2 { // the disk is asked for with the second write
		require.NoError(t, p.Set([]byte("id"), []byte("data"), pebble.Sync))
	}
	open := onDisk(t, plain)
	require.NoError(t, p.Close())
	closed := onDisk(t, plain)

	g := newRig(t)
	dir := filepath.Join(t.TempDir(), "store")
	s, err := block.Open(g.ctx, dir, g.kek, &block.Options{Pebble: block.PebbleOptions{FS: vfs.Default}, Keyring: g.opts.Keyring})
	require.NoError(t, err)
	for range 2 {
		require.NoError(t, s.Put(g.ctx, []byte("id"), []byte("data")))
	}
	const more = 256 << 10 // for the identity, the lock and what a file system rounds up
	require.LessOrEqual(t, onDisk(t, dir), open+more)
	require.NoError(t, s.Close())
	require.LessOrEqual(t, onDisk(t, dir), closed+more)
	t.Logf("in use: %d bytes, a plain Pebble %d; closed: %d and %d", onDisk(t, dir), open, onDisk(t, dir), closed)
}
