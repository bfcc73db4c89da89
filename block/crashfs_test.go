package block_test

import (
	"io"
	"os"
	"sync"
	"sync/atomic"

	"github.com/cockroachdb/pebble/v2/vfs"
)

// watchedFS is a file system that tells of each operation that changes it, before
// it happens.
type watchedFS struct {
	vfs.FS
	watch atomic.Pointer[func(op, name string)]
	// changing is held for reading during a change. A MemFS that is cloned must be at
	// rest: it takes its own lock twice for some changes, which a clone that waits in
	// between stops for good.
	changing sync.RWMutex
}

// begin tells of a change; the caller calls end after it.
func (w *watchedFS) begin(op, name string) (end func()) {
	if f := w.watch.Load(); f != nil {
		(*f)(op, name)
	}
	w.changing.RLock()
	return w.changing.RUnlock
}

// crash returns what a crash would leave now.
func (w *watchedFS) crash(cfg vfs.CrashCloneCfg) *vfs.MemFS {
	w.changing.Lock()
	defer w.changing.Unlock()
	return w.FS.(*vfs.MemFS).CrashClone(cfg)
}

func (w *watchedFS) wrap(f vfs.File, name string, err error) (vfs.File, error) {
	if err != nil {
		return nil, err
	}
	return &watchedFile{File: f, w: w, name: name}, nil
}

func (w *watchedFS) Create(name string, c vfs.DiskWriteCategory) (vfs.File, error) {
	defer w.begin("create", name)()
	f, err := w.FS.Create(name, c)
	return w.wrap(f, name, err)
}

func (w *watchedFS) ReuseForWrite(oldname, name string, c vfs.DiskWriteCategory) (vfs.File, error) {
	defer w.begin("reuse", oldname)()
	f, err := w.FS.ReuseForWrite(oldname, name, c)
	return w.wrap(f, name, err)
}

func (w *watchedFS) OpenReadWrite(name string, c vfs.DiskWriteCategory, opts ...vfs.OpenOption) (vfs.File, error) {
	defer w.begin("open for writing", name)()
	f, err := w.FS.OpenReadWrite(name, c, opts...)
	return w.wrap(f, name, err)
}

func (w *watchedFS) OpenDir(name string) (vfs.File, error) {
	f, err := w.FS.OpenDir(name)
	return w.wrap(f, name, err)
}

func (w *watchedFS) Link(oldname, name string) error {
	defer w.begin("link", name)()
	return w.FS.Link(oldname, name)
}

func (w *watchedFS) Remove(name string) error {
	defer w.begin("remove", name)()
	return w.FS.Remove(name)
}

func (w *watchedFS) RemoveAll(name string) error {
	defer w.begin("remove all", name)()
	return w.FS.RemoveAll(name)
}

func (w *watchedFS) Rename(oldname, name string) error {
	defer w.begin("rename", name)()
	return w.FS.Rename(oldname, name)
}

func (w *watchedFS) MkdirAll(name string, perm os.FileMode) error {
	defer w.begin("make directory", name)()
	return w.FS.MkdirAll(name, perm)
}

func (w *watchedFS) Lock(name string) (io.Closer, error) {
	defer w.begin("lock", name)()
	return w.FS.Lock(name)
}

type watchedFile struct {
	vfs.File
	w    *watchedFS
	name string
}

func (f *watchedFile) Write(p []byte) (int, error) {
	defer f.w.begin("write", f.name)()
	return f.File.Write(p)
}

func (f *watchedFile) WriteAt(p []byte, at int64) (int, error) {
	defer f.w.begin("write", f.name)()
	return f.File.WriteAt(p, at)
}

func (f *watchedFile) Sync() error {
	defer f.w.begin("sync", f.name)()
	return f.File.Sync()
}

func (f *watchedFile) SyncData() error {
	defer f.w.begin("sync", f.name)()
	return f.File.SyncData()
}

func (f *watchedFile) SyncTo(n int64) (bool, error) {
	defer f.w.begin("sync", f.name)()
	return f.File.SyncTo(n)
}
