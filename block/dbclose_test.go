package block_test

import (
	"strings"
	"sync/atomic"
	"testing"

	"github.com/cockroachdb/pebble/v2/vfs"
	"github.com/stretchr/testify/require"

	"github.com/blockseal/blockseal/block"
)

// logSyncs counts how often the engine's log is synced.
type logSyncs struct {
	vfs.FS
	n atomic.Int64
}

func (f *logSyncs) wrap(file vfs.File, name string, err error) (vfs.File, error) {
	if err == nil && strings.HasSuffix(name, ".log") {
		file = &logFile{file, f}
	}
	return file, err
}

func (f *logSyncs) Create(name string, c vfs.DiskWriteCategory) (vfs.File, error) {
	file, err := f.FS.Create(name, c)
	return f.wrap(file, name, err)
}

func (f *logSyncs) ReuseForWrite(from, to string, c vfs.DiskWriteCategory) (vfs.File, error) {
	file, err := f.FS.ReuseForWrite(from, to, c)
	return f.wrap(file, to, err)
}

type logFile struct {
	vfs.File
	fs *logSyncs
}

func (f *logFile) Sync() error     { f.fs.n.Add(1); return f.File.Sync() }
func (f *logFile) SyncData() error { f.fs.n.Add(1); return f.File.SyncData() }

// A store in a DB waits for the disk once when it is made, and once when it is closed, whatever it has to
// write down then.
func TestCreateAndCloseWaitForTheDiskOnce(t *testing.T) {
	g := newDBRig(t)
	require.NoError(t, g.db.Close())
	syncs := &logSyncs{FS: g.opts.Pebble.FS}
	g.opts.Pebble.FS = syncs
	g.openDB()
	g.create("first") // with which the directory comes to know that it has stores
	before := syncs.n.Load()
	s := g.create("a")
	require.EqualValues(t, 1, syncs.n.Load()-before)
	require.NoError(t, s.Put(g.ctx, []byte("id"), []byte("1")))
	before = syncs.n.Load()
	require.NoError(t, s.Close())
	require.EqualValues(t, 1, syncs.n.Load()-before)
}

// What was written without a sync is durable when the store is closed, though the DB is not: also if its keyring
// has nothing to save.
func TestCloseOfAStoreIsDurable(t *testing.T) {
	g := newDBRig(t)
	require.NoError(t, g.db.Close())
	disk := vfs.NewCrashableMem()
	g.opts.Pebble.FS = disk
	g.openDB()
	g.store.NoSync = true
	a := g.create("a")
	require.NoError(t, a.Put(g.ctx, []byte("gone"), []byte("1")))
	require.NoError(t, a.Put(g.ctx, []byte("kept"), []byte("2")))
	sequence := a.Sequence()
	require.NoError(t, a.Close())
	crash := func() *dbRig {
		h := &dbRig{t: t, ctx: g.ctx, vault: g.vault, clock: g.clock, opts: g.opts, store: g.store, keks: g.keks}
		h.opts.Pebble.FS = disk.CrashClone(vfs.CrashCloneCfg{})
		h.opts.Resolve = g.opts.Resolve
		h.openDB()
		return h
	}
	s, release := crash().acquire("a")
	requireData(t, s, "gone", "1")
	require.Equal(t, sequence, s.Sequence())
	release()

	a, err := g.db.Open(g.ctx, "a", g.kek("a"), &g.store)
	require.NoError(t, err)
	require.NoError(t, a.Delete(g.ctx, []byte("gone"))) // for which the keyring reserves nothing
	sequence = a.Sequence()
	require.NoError(t, a.Close())
	s, release = crash().acquire("a")
	defer release()
	_, err = s.Get(g.ctx, []byte("gone"), nil)
	require.ErrorIs(t, err, block.ErrNotFound)
	requireData(t, s, "kept", "2")
	require.Equal(t, sequence, s.Sequence())
}
