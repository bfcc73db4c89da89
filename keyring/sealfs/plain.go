package sealfs

import (
	"io"
	"os"
	"time"

	"github.com/cockroachdb/pebble/v2/vfs"
)

// emptyFile is a file of layout Empty.
type emptyFile struct {
	name  string
	under vfs.File
}

var _ vfs.File = (*emptyFile)(nil)

// check refuses a file that has content, which nobody can have authenticated.
func (e *emptyFile) check() error {
	fi, err := e.under.Stat()
	if err == nil && fi.Size() > 0 {
		return corrupt(e.name, "it has %d bytes, and files of its name are empty", fi.Size())
	}
	return err
}

// Read implements vfs.File.
func (e *emptyFile) Read(p []byte) (int, error) {
	if err := e.check(); err != nil || len(p) == 0 {
		return 0, err
	}
	return 0, io.EOF
}

// ReadAt implements vfs.File.
func (e *emptyFile) ReadAt(p []byte, off int64) (int, error) { return e.Read(p) }

// Write implements vfs.File: of no bytes.
func (e *emptyFile) Write(p []byte) (int, error) {
	if len(p) > 0 {
		return 0, unsupported(e.name, "Write", "is empty by its name")
	}
	return 0, nil
}

// WriteAt implements vfs.File, as Write.
func (e *emptyFile) WriteAt(p []byte, off int64) (int, error) { return e.Write(p) }

// Close implements vfs.File.
func (e *emptyFile) Close() error { return e.under.Close() }

// Stat implements vfs.File.
func (e *emptyFile) Stat() (vfs.FileInfo, error) {
	if err := e.check(); err != nil {
		return nil, err
	}
	return statSized(e.under, 0)
}

// Sync implements vfs.File.
func (e *emptyFile) Sync() error { return e.under.Sync() }

// SyncData implements vfs.File.
func (e *emptyFile) SyncData() error { return e.under.SyncData() }

// SyncTo implements vfs.File.
func (e *emptyFile) SyncTo(length int64) (bool, error) { return e.under.SyncTo(0) }

// Preallocate implements vfs.File, to no effect.
func (e *emptyFile) Preallocate(offset, length int64) error { return nil }

// Prefetch implements vfs.File, to no effect.
func (e *emptyFile) Prefetch(offset, length int64) error { return nil }

// Fd implements vfs.File.
func (e *emptyFile) Fd() uintptr { return e.under.Fd() }

// dirFile is a directory.
type dirFile struct{ under vfs.File }

var _ vfs.File = (*dirFile)(nil)

// Close implements vfs.File.
func (d *dirFile) Close() error { return d.under.Close() }

// Sync implements vfs.File.
func (d *dirFile) Sync() error { return d.under.Sync() }

// SyncData implements vfs.File.
func (d *dirFile) SyncData() error { return d.under.SyncData() }

// SyncTo implements vfs.File.
func (d *dirFile) SyncTo(length int64) (bool, error) { return d.under.SyncTo(length) }

// Stat implements vfs.File.
func (d *dirFile) Stat() (vfs.FileInfo, error) {
	fi, err := d.under.Stat()
	if err != nil {
		return nil, err
	}
	return &fileInfo{under: fi, size: fi.Size()}, nil
}

// Fd implements vfs.File.
func (d *dirFile) Fd() uintptr { return d.under.Fd() }

// Read implements vfs.File: a directory has no content.
func (d *dirFile) Read(p []byte) (int, error) { return 0, unsupported("a directory", "Read", "is one") }

// ReadAt implements vfs.File, as Read.
func (d *dirFile) ReadAt(p []byte, off int64) (int, error) {
	return 0, unsupported("a directory", "ReadAt", "is one")
}

// Write implements vfs.File, as Read.
func (d *dirFile) Write(p []byte) (int, error) {
	return 0, unsupported("a directory", "Write", "is one")
}

// WriteAt implements vfs.File, as Read.
func (d *dirFile) WriteAt(p []byte, off int64) (int, error) {
	return 0, unsupported("a directory", "WriteAt", "is one")
}

// Preallocate implements vfs.File, to no effect.
func (d *dirFile) Preallocate(offset, length int64) error { return nil }

// Prefetch implements vfs.File, to no effect.
func (d *dirFile) Prefetch(offset, length int64) error { return nil }

// fileInfo is a file's, with the size of its content.
type fileInfo struct {
	under vfs.FileInfo
	size  int64
}

var _ vfs.FileInfo = (*fileInfo)(nil)

// Name implements vfs.FileInfo.
func (i *fileInfo) Name() string { return i.under.Name() }

// Size implements vfs.FileInfo: of the content, not of what is on disk.
func (i *fileInfo) Size() int64 { return i.size }

// Mode implements vfs.FileInfo.
func (i *fileInfo) Mode() os.FileMode { return i.under.Mode() }

// ModTime implements vfs.FileInfo.
func (i *fileInfo) ModTime() time.Time { return i.under.ModTime() }

// IsDir implements vfs.FileInfo.
func (i *fileInfo) IsDir() bool { return i.under.IsDir() }

// Sys implements vfs.FileInfo: of the file beneath.
func (i *fileInfo) Sys() any { return i.under.Sys() }

// DeviceID implements vfs.FileInfo.
func (i *fileInfo) DeviceID() vfs.DeviceID { return i.under.DeviceID() }

func statSized(under vfs.File, size int64) (vfs.FileInfo, error) {
	fi, err := under.Stat()
	if err != nil {
		return nil, err
	}
	return &fileInfo{under: fi, size: size}, nil
}
