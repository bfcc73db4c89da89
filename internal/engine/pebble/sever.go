package pebble

import (
	"errors"
	"io"
	"io/fs"
	"os"
	"sync/atomic"
	"time"

	"github.com/cockroachdb/pebble/v2/vfs"
)

// SeverFS is a file system that an engine can be cut off from while it runs. To the files it is then as if
// the process had died at that moment: nothing is changed any more. To the engine it is as if all went
// on well, so that it can be closed: Pebble ends the process when a write of its log or of its MANIFEST
// fails (docs/adr/0006-wal-failure-ends-the-process.md), and leaves its goroutines behind when one waits.
// Reads of files fail, which Pebble survives.
//
// What the engine acknowledged before Sever was called is on disk. What it says of a write afterwards
// means nothing: whoever severs it has to see to that nobody believes it.
//
// It is safe for concurrent use, as what is beneath is.
type SeverFS struct {
	under   vfs.FS
	severed atomic.Bool
}

var _ vfs.FS = (*SeverFS)(nil)

// ErrSevered is the error of a read from a SeverFS that was severed.
var ErrSevered = errors.New("engine: it was cut off from its files, to be closed")

// NewSeverFS returns a file system over another.
func NewSeverFS(under vfs.FS) *SeverFS { return &SeverFS{under: under} }

// Sever cuts the engine off. Changes that had begun may still be made, as when a process dies; each of
// them was begun when all that it rests on had been made.
func (f *SeverFS) Sever() { f.severed.Store(true) }

// change makes a change. Once severed, it makes none, and an error of one that had begun is nobody's
// business.
func (f *SeverFS) change(do func() error) error {
	if f.severed.Load() {
		return nil
	}
	if err := do(); err != nil && !f.severed.Load() {
		return err
	}
	return nil
}

// make is change for what makes a file.
func (f *SeverFS) make(name string, do func() (vfs.File, error)) (vfs.File, error) {
	var file vfs.File
	err := f.change(func() (err error) {
		file, err = do()
		return err
	})
	switch {
	case err != nil:
		return nil, err
	case file == nil:
		return &severFile{fs: f, name: f.under.PathBase(name)}, nil
	}
	return &severFile{fs: f, under: file, name: f.under.PathBase(name)}, nil
}

// Create implements vfs.FS.
func (f *SeverFS) Create(name string, category vfs.DiskWriteCategory) (vfs.File, error) {
	return f.make(name, func() (vfs.File, error) { return f.under.Create(name, category) })
}

// ReuseForWrite implements vfs.FS.
func (f *SeverFS) ReuseForWrite(oldname, newname string, category vfs.DiskWriteCategory) (vfs.File, error) {
	return f.make(newname, func() (vfs.File, error) { return f.under.ReuseForWrite(oldname, newname, category) })
}

// OpenReadWrite implements vfs.FS.
func (f *SeverFS) OpenReadWrite(name string, category vfs.DiskWriteCategory, opts ...vfs.OpenOption) (vfs.File, error) {
	return f.make(name, func() (vfs.File, error) { return f.under.OpenReadWrite(name, category, opts...) })
}

// OpenDir implements vfs.FS.
func (f *SeverFS) OpenDir(name string) (vfs.File, error) {
	return f.make(name, func() (vfs.File, error) { return f.under.OpenDir(name) })
}

// Open implements vfs.FS.
func (f *SeverFS) Open(name string, opts ...vfs.OpenOption) (vfs.File, error) {
	if f.severed.Load() {
		return nil, ErrSevered
	}
	file, err := f.under.Open(name, opts...)
	if err != nil {
		return nil, f.read(err)
	}
	return &severFile{fs: f, under: file, name: f.under.PathBase(name)}, nil
}

// read is the error of a read.
func (f *SeverFS) read(err error) error {
	if err != nil && f.severed.Load() {
		return ErrSevered // and not, for one, that a file is not there, which is damage
	}
	return err
}

// Link implements vfs.FS.
func (f *SeverFS) Link(oldname, newname string) error {
	return f.change(func() error { return f.under.Link(oldname, newname) })
}

// Remove implements vfs.FS.
func (f *SeverFS) Remove(name string) error {
	return f.change(func() error { return f.under.Remove(name) })
}

// RemoveAll implements vfs.FS.
func (f *SeverFS) RemoveAll(name string) error {
	return f.change(func() error { return f.under.RemoveAll(name) })
}

// Rename implements vfs.FS.
func (f *SeverFS) Rename(oldname, newname string) error {
	return f.change(func() error { return f.under.Rename(oldname, newname) })
}

// MkdirAll implements vfs.FS.
func (f *SeverFS) MkdirAll(dir string, perm os.FileMode) error {
	return f.change(func() error { return f.under.MkdirAll(dir, perm) })
}

// Lock implements vfs.FS.
func (f *SeverFS) Lock(name string) (io.Closer, error) { return f.under.Lock(name) }

// List implements vfs.FS. It goes on after Sever: Pebble's Open looks at last for files that are obsolete,
// and so comes to an engine that is closed as any other.
func (f *SeverFS) List(dir string) ([]string, error) {
	names, err := f.under.List(dir)
	return names, f.read(err)
}

// Stat implements vfs.FS.
func (f *SeverFS) Stat(name string) (vfs.FileInfo, error) {
	if f.severed.Load() {
		return nil, ErrSevered
	}
	fi, err := f.under.Stat(name)
	return fi, f.read(err)
}

// PathBase implements vfs.FS.
func (f *SeverFS) PathBase(path string) string { return f.under.PathBase(path) }

// PathJoin implements vfs.FS.
func (f *SeverFS) PathJoin(elem ...string) string { return f.under.PathJoin(elem...) }

// PathDir implements vfs.FS.
func (f *SeverFS) PathDir(path string) string { return f.under.PathDir(path) }

// GetDiskUsage implements vfs.FS.
func (f *SeverFS) GetDiskUsage(path string) (vfs.DiskUsage, error) { return f.under.GetDiskUsage(path) }

// Unwrap implements vfs.FS.
func (f *SeverFS) Unwrap() vfs.FS { return f.under }

// severFile is a file of a SeverFS.
type severFile struct {
	fs    *SeverFS
	under vfs.File // nil: it was made after Sever
	name  string
	size  atomic.Int64 // of what was written to one that has no file beneath
}

var _ vfs.File = (*severFile)(nil)

func (f *severFile) change(do func() error) error {
	if f.under == nil {
		return nil
	}
	return f.fs.change(do)
}

// Write implements vfs.File.
func (f *severFile) Write(p []byte) (n int, err error) {
	err = f.change(func() (err error) {
		n, err = f.under.Write(p)
		return err
	})
	if err == nil {
		f.size.Add(int64(len(p)))
		n = len(p)
	}
	return n, err
}

// WriteAt implements vfs.File.
func (f *severFile) WriteAt(p []byte, off int64) (n int, err error) {
	err = f.change(func() (err error) {
		n, err = f.under.WriteAt(p, off)
		return err
	})
	if err == nil {
		n = len(p)
	}
	return n, err
}

// Read implements vfs.File.
func (f *severFile) Read(p []byte) (int, error) {
	if f.under == nil || f.fs.severed.Load() {
		return 0, ErrSevered
	}
	n, err := f.under.Read(p)
	return n, f.fs.read(err)
}

// ReadAt implements vfs.File.
func (f *severFile) ReadAt(p []byte, off int64) (int, error) {
	if f.under == nil || f.fs.severed.Load() {
		return 0, ErrSevered
	}
	n, err := f.under.ReadAt(p, off)
	return n, f.fs.read(err)
}

// Close implements vfs.File. The file beneath is closed in any case.
func (f *severFile) Close() error {
	if f.under == nil {
		return nil
	}
	if err := f.under.Close(); err != nil && !f.fs.severed.Load() {
		return err
	}
	return nil
}

// Preallocate implements vfs.File.
func (f *severFile) Preallocate(offset, length int64) error {
	return f.change(func() error { return f.under.Preallocate(offset, length) })
}

// Sync implements vfs.File.
func (f *severFile) Sync() error { return f.change(func() error { return f.under.Sync() }) }

// SyncData implements vfs.File.
func (f *severFile) SyncData() error { return f.change(func() error { return f.under.SyncData() }) }

// SyncTo implements vfs.File.
func (f *severFile) SyncTo(length int64) (full bool, err error) {
	err = f.change(func() (err error) {
		full, err = f.under.SyncTo(length)
		return err
	})
	return full, err
}

// Prefetch implements vfs.File.
func (f *severFile) Prefetch(offset, length int64) error {
	if f.under == nil || f.fs.severed.Load() {
		return nil
	}
	return f.under.Prefetch(offset, length)
}

// Fd implements vfs.File.
func (f *severFile) Fd() uintptr {
	if f.under == nil {
		return vfs.InvalidFd
	}
	return f.under.Fd()
}

// Stat implements vfs.File.
func (f *severFile) Stat() (vfs.FileInfo, error) {
	if f.under == nil || f.fs.severed.Load() {
		return severInfo{f.name, f.size.Load()}, nil
	}
	return f.under.Stat()
}

// severInfo is what is said of a file after Sever.
type severInfo struct {
	name string
	size int64
}

func (i severInfo) Name() string           { return i.name }
func (i severInfo) Size() int64            { return i.size }
func (i severInfo) Mode() fs.FileMode      { return 0o600 }
func (i severInfo) ModTime() time.Time     { return time.Time{} }
func (i severInfo) IsDir() bool            { return false }
func (i severInfo) Sys() any               { return nil }
func (i severInfo) DeviceID() vfs.DeviceID { return vfs.DeviceID{} }
