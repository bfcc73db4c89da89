package sealfs

import (
	"errors"
	"io"

	"github.com/cockroachdb/pebble/v2/vfs"
)

// pagesHandle is a File as a vfs.File, with a place for Read and Write.
type pagesHandle struct {
	file *File
	pos  int64
}

var _ vfs.File = (*pagesHandle)(nil)

// Read implements vfs.File.
func (h *pagesHandle) Read(p []byte) (int, error) {
	n, err := h.file.ReadAt(p, h.pos)
	h.pos += int64(n)
	if n > 0 && errors.Is(err, io.EOF) {
		err = nil
	}
	return n, err
}

// ReadAt implements vfs.File.
func (h *pagesHandle) ReadAt(p []byte, off int64) (int, error) { return h.file.ReadAt(p, off) }

// Write implements vfs.File.
func (h *pagesHandle) Write(p []byte) (int, error) {
	n, err := h.file.WriteAt(p, h.pos)
	h.pos += int64(n)
	return n, err
}

// WriteAt implements vfs.File.
func (h *pagesHandle) WriteAt(p []byte, off int64) (int, error) { return h.file.WriteAt(p, off) }

// Close implements vfs.File.
func (h *pagesHandle) Close() error { return h.file.Close() }

// Stat implements vfs.File.
func (h *pagesHandle) Stat() (vfs.FileInfo, error) {
	size, err := h.file.Size()
	if err != nil {
		return nil, err
	}
	return statSized(h.file.under, size)
}

// Sync implements vfs.File.
func (h *pagesHandle) Sync() error { return h.file.Sync() }

// SyncData implements vfs.File.
func (h *pagesHandle) SyncData() error { return h.file.sync(h.file.under.SyncData) }

// SyncTo implements vfs.File.
func (h *pagesHandle) SyncTo(length int64) (bool, error) {
	return false, h.file.Sync()
}

// Preallocate implements vfs.File.
func (h *pagesHandle) Preallocate(offset, length int64) error {
	from := h.file.pageAt(offset / h.file.shared.page)
	return h.file.under.Preallocate(from, h.file.pageAt(h.file.pagesOf(offset+length))-from)
}

// Prefetch implements vfs.File.
func (h *pagesHandle) Prefetch(offset, length int64) error {
	from := h.file.pageAt(offset / h.file.shared.page)
	return h.file.under.Prefetch(from, h.file.pageAt(h.file.pagesOf(offset+length))-from)
}

// Fd implements vfs.File: that of the file beneath. What is read there is sealed.
func (h *pagesHandle) Fd() uintptr { return h.file.under.Fd() }
