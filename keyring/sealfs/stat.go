package sealfs

import (
	"errors"

	"github.com/cockroachdb/pebble/v2/vfs"
)

// Stat implements vfs.FS, with the size of the content. Of a file of layout Once that is arithmetic,
// with nothing authenticated; a log is read to its end, and a file of pages is asked for its size, for
// which it takes access. What is not sealed has the size that it has.
func (f *FS) Stat(name string) (vfs.FileInfo, error) {
	fi, err := f.under.Stat(name)
	if err != nil {
		return nil, err
	}
	if fi.IsDir() || f.opts.Layout(f.under.PathBase(name)) == Empty {
		return &fileInfo{under: fi, size: fi.Size()}, nil
	}
	size, err := f.sizeOf(name, fi)
	if err != nil {
		return nil, err
	}
	return &fileInfo{under: fi, size: size}, nil
}

func (f *FS) sizeOf(name string, fi vfs.FileInfo) (int64, error) {
	u, err := f.under.Open(name)
	if err != nil {
		return 0, err
	}
	h, err := readHead(u)
	var at fileAt
	if err == nil {
		at, err = f.at(h.id, name, u)
	}
	if cerr := u.Close(); cerr != nil {
		return 0, cerr
	}
	switch {
	case errors.Is(err, errUnwritten) && !f.headless(name, fi.Size()):
		return 0, nil
	case errors.Is(err, ErrNotSealed):
		return fi.Size(), nil
	case err != nil:
		return 0, ofFile(name, err)
	}
	if h.layout == Once {
		size, _, _ := onceSize(fi.Size(), int(h.chunk)) // 0 for one that is not whole
		return size, nil
	}
	// A log that is being written knows its size, whatever became of the access.
	f.mu.Lock()
	w := f.logs.get(at)
	f.mu.Unlock()
	if w != nil {
		w.mu.Lock()
		defer w.mu.Unlock()
		return w.size, nil
	}
	file, err := f.Open(name)
	if err != nil {
		return 0, err
	}
	fi, err = file.Stat()
	if err = errors.Join(err, file.Close()); err != nil {
		return 0, err
	}
	return fi.Size(), nil
}
