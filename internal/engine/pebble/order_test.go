package pebble

import (
	"bytes"
	"strings"
	"sync/atomic"
	"testing"

	"github.com/cockroachdb/pebble/v2/vfs"
	"github.com/stretchr/testify/require"
)

// tellingFS tells, before it happens, of each file that is created and each directory that
// is synced.
type tellingFS struct {
	vfs.FS
	tell atomic.Pointer[func(what, name string)]
}

func (f *tellingFS) told(what, name string) {
	if tell := f.tell.Load(); tell != nil {
		(*tell)(what, f.PathBase(name))
	}
}

func (f *tellingFS) Create(name string, c vfs.DiskWriteCategory) (vfs.File, error) {
	f.told("create", name)
	return f.FS.Create(name, c)
}

func (f *tellingFS) ReuseForWrite(old, name string, c vfs.DiskWriteCategory) (vfs.File, error) {
	f.told("create", name)
	return f.FS.ReuseForWrite(old, name, c)
}

func (f *tellingFS) OpenDir(name string) (vfs.File, error) {
	d, err := f.FS.OpenDir(name)
	return tellingDir{d, f, name}, err
}

type tellingDir struct {
	vfs.File
	fs   *tellingFS
	name string
}

func (d tellingDir) Sync() error {
	d.fs.told("sync", d.name)
	return d.File.Sync()
}

// Whoever writes to the log keeps a checkpoint from copying it meanwhile. Each kind of write
// is stopped where it makes the next log, which is inside of the write, and the turn that a
// checkpoint takes is not to be had there.
func TestAWriteHoldsOffACheckpoint(t *testing.T) {
	for name, write := range map[string]func(d *DB, b Batch) error{
		"Apply": func(d *DB, b Batch) error { return d.Apply(b, false) },
		"Apply, synced": func(d *DB, b Batch) error {
			if err := d.Apply(b, true); err != nil {
				return err
			}
			return b.Wait()
		},
		"Commit":         func(d *DB, b Batch) error { return d.Commit(b, false) },
		"Commit, synced": func(d *DB, b Batch) error { return d.Commit(b, true) },
	} {
		t.Run(name, func(t *testing.T) {
			fs := &tellingFS{FS: vfs.NewMem()}
			require.NoError(t, fs.MkdirAll("db", 0o755))
			d := openDir(t, "db", fs)
			logs, free := 0, 0
			tell := func(what, name string) {
				if what != "create" || !strings.HasSuffix(name, ".log") {
					return
				}
				logs++
				if d.quiet.TryLock() {
					d.quiet.Unlock()
					free++
				}
			}
			fs.tell.Store(&tell)
			b := d.NewBatch()
			defer b.Close()
			require.NoError(t, b.Set([]byte("\x03a"), bytes.Repeat([]byte("x"), 8<<20))) // more than a memtable
			require.NoError(t, write(d, b))
			fs.tell.Store(nil)
			require.NotZero(t, logs, "it made the next log")
			require.Zero(t, free, "a checkpoint could have copied the log in the middle of a write")
		})
	}
}

// On a disk that does not keep the order of a directory's entries, no marker is of a MANIFEST
// that a crash takes away: the directory is synced between the two.
func TestAManifestIsThereBeforeItsMarker(t *testing.T) {
	fs := &tellingFS{FS: vfs.NewMem()}
	require.NoError(t, fs.MkdirAll("db", 0o755))
	synced, markers := false, 0
	tell := func(what, name string) {
		switch {
		case what == "sync" && name == "db":
			synced = true
		case what == "create" && strings.HasPrefix(name, "MANIFEST-"):
			synced = false
		case what == "create" && strings.HasPrefix(name, "marker.manifest."):
			require.True(t, synced, "%s is created while its MANIFEST may go in a crash", name)
			markers++
		}
	}
	fs.tell.Store(&tell)
	d := openDir(t, "db", fs)
	set(t, d, "\x02a", "value")
	fs.tell.Store(nil)
	require.NotZero(t, markers)
}
