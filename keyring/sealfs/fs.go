package sealfs

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"sync"
	"sync/atomic"

	"github.com/cockroachdb/pebble/v2/vfs"

	"github.com/blockseal/blockseal/keyring"
)

// FS is a vfs.FS whose files are sealed. It is safe for concurrent use; its files as the files of
// vfs.Default are: any number of ReadAt side by side, one Write or Sync at a time. It has nothing
// to close: close its files, then the keyring.
type FS struct {
	under vfs.FS
	ring  *keyring.Keyring
	opts  Options

	stopped context.Context
	stop    context.CancelCauseFunc

	// names keeps heads and names as they are: whoever changes a head or a name holds it, and
	// whoever makes or removes a file shares it.
	names sync.RWMutex
	// Changes of names and of heads that began and that ended, while names was held: odd while there
	// is one.
	moves, rewraps atomic.Uint64

	scratch sync.Pool // of *scratch

	mu      sync.Mutex
	keys    map[fileID]*fileKey
	makings map[chan struct{}]struct{} // see FS.making
	logs    openFiles[*logWriter]      // that are being written
	tables  openFiles[*onceWriter]     // files of layout Once that are being written
	pages   openFiles[*pageFile]
	ticking bool // forgetKeys is due
}

var _ vfs.FS = (*FS)(nil)

// New returns a file system that keeps sealed files in under. The keyring stays the caller's: it
// has to outlive the files, and is not closed. New reads nothing and asks no vault. nil options are
// the defaults.
//
// Give each database a keyring of its own: what two directories of one keyring have under one name
// can be exchanged. Beneath an FS may be what handles a full disk (vfs.OnDiskFull) and a slow one
// (vfs.WithDiskHealthChecks), rather than above.
func New(under vfs.FS, r *keyring.Keyring, opts *Options) (*FS, error) {
	if under == nil || r == nil {
		return nil, errors.New("sealfs: New needs a file system and a keyring")
	}
	o, err := opts.withDefaults()
	if err != nil {
		return nil, err
	}
	f := &FS{under: under, ring: r, opts: o, keys: map[fileID]*fileKey{}, makings: map[chan struct{}]struct{}{},
		logs: newOpenFiles[*logWriter](), tables: newOpenFiles[*onceWriter](), pages: newOpenFiles[*pageFile]()}
	f.stopped, f.stop = context.WithCancelCause(background)
	return f, nil
}

// Create implements vfs.FS. The head, with a fresh DEK, is written before Create returns. That of a log
// is durable then, so that one without is known to have no content; that of any other file is with its
// first Sync.
func (f *FS) Create(name string, category vfs.DiskWriteCategory) (vfs.File, error) {
	if err := f.free(name); err != nil {
		return nil, err
	}
	base := f.under.PathBase(name)
	layout := f.opts.Layout(base)
	switch layout {
	case Log, Once, Pages:
	case Empty:
		u, err := f.under.Create(name, category)
		if err != nil {
			return nil, err
		}
		return &emptyFile{name: name, under: u}, nil
	default:
		return nil, fmt.Errorf("sealfs: %s: Options.Layout says %v, which there is not", name, layout)
	}
	h := newHead(layout, f.chunkOf(layout))
	var file vfs.File
	err := f.newKey(h, []string{base}, func(k *fileKey) error {
		f.names.RLock() // not between the steps of a rotation that puts a file in its place
		defer f.names.RUnlock()
		u, err := f.under.Create(name, category)
		if err != nil {
			return err
		}
		f.moved("", name)
		// What is being written is known as that before there is a head by which it could be opened.
		at, err := f.at(h.id, name, u)
		if err == nil {
			switch layout {
			case Log:
				file = f.newLogWriter(at, name, u, k)
			case Once:
				file = newOnceWriter(f, at, name, u, k, int(h.chunk))
			}
			_, err = u.Write(h.encode())
		}
		if err == nil && layout == Log {
			err = u.Sync()
		}
		if err != nil {
			f.forget(file)
			return errors.Join(err, u.Close(), f.under.Remove(name))
		}
		if layout == Pages {
			// The handle of Create would do, if every file system let it write at a place.
			if err := u.Close(); err != nil {
				return err
			}
			k.release()
		}
		return nil
	})
	if err != nil {
		return nil, ofFile(name, err)
	}
	if layout == Pages {
		return f.OpenReadWrite(name, category)
	}
	return file, nil
}

func (f *FS) chunkOf(l Layout) uint32 {
	switch l {
	case Once:
		return uint32(f.opts.ChunkSize)
	case Pages:
		return DefaultPageSize
	}
	return 0
}

// Open implements vfs.FS. Errors, beside those of the file system beneath: keyring.ErrCorrupt for a file
// that is damaged, cut off or another one's content, which ErrNotSealed tells apart if it has no head at
// all; keyring.ErrVersion; keyring.ErrInaccessible, for which it does not wait. A file of layout Once is
// opened with its last chunk, any other damage is found when it is read.
func (f *FS) Open(name string, opts ...vfs.OpenOption) (vfs.File, error) {
	o, err := f.open(name)
	if err != nil {
		return nil, err
	}
	file, err := f.reader(name, o, opts)
	if err != nil {
		return nil, errors.Join(err, o.close())
	}
	for _, o := range opts {
		o.Apply(file) // its Fd is that of the file beneath
	}
	return file, nil
}

// reader makes a handle of what was opened, which it takes over; after an error it has not.
func (f *FS) reader(name string, o opened, opts []vfs.OpenOption) (vfs.File, error) {
	switch {
	case o.dir:
		return &dirFile{under: o.under}, nil
	case o.empty:
		return &emptyFile{name: name, under: o.under}, nil
	case o.head == nil:
		return newLogReader(f, name, o.under, nil, nil), nil
	}
	switch o.head.layout {
	case Log:
		return newLogReader(f, name, o.under, o.key, o.log), nil
	case Once:
		sequential := false
		for _, opt := range opts {
			sequential = sequential || opt == vfs.SequentialReadsOption
		}
		return newOnceReader(name, o.under, o.key, int(o.head.chunk), sequential)
	}
	p, err := f.openPages(name, o, true)
	if err != nil {
		return nil, err
	}
	return &pagesHandle{file: p}, nil
}

// OpenReadWrite implements vfs.FS: for files of layout [Pages], whatever Options.Layout says. A
// file that is not there is made.
func (f *FS) OpenReadWrite(name string, category vfs.DiskWriteCategory, opts ...vfs.OpenOption) (vfs.File, error) {
	p, err := f.openFile(name, category, nil)
	if err != nil {
		return nil, err
	}
	file := &pagesHandle{file: p}
	for _, o := range opts {
		o.Apply(file)
	}
	return file, nil
}

// OpenDir implements vfs.FS.
func (f *FS) OpenDir(name string) (vfs.File, error) {
	u, err := f.under.OpenDir(name)
	if err != nil {
		return nil, err
	}
	return &dirFile{under: u}, nil
}

// Remove implements vfs.FS. With the file goes the only place that its DEK has. What the medium
// may keep of it is worth nothing once [FS.RotateEpoch] has destroyed the epoch that wrapped it.
func (f *FS) Remove(name string) error {
	f.names.RLock() // not between the steps of a rotation that puts a file in its place
	defer f.names.RUnlock()
	err := f.under.Remove(name)
	if err == nil {
		f.moved(name, "")
	}
	return err
}

// RemoveAll implements vfs.FS.
func (f *FS) RemoveAll(name string) error {
	f.names.RLock()
	defer f.names.RUnlock()
	err := f.under.RemoveAll(name)
	if err == nil {
		f.moved(name, "")
	}
	return err
}

// MkdirAll implements vfs.FS.
func (f *FS) MkdirAll(dir string, perm os.FileMode) error { return f.under.MkdirAll(dir, perm) }

// Lock implements vfs.FS. The file is empty, and not sealed.
func (f *FS) Lock(name string) (io.Closer, error) { return f.under.Lock(name) }

// List implements vfs.FS.
func (f *FS) List(dir string) ([]string, error) { return f.under.List(dir) }

// PathBase implements vfs.FS.
func (f *FS) PathBase(path string) string { return f.under.PathBase(path) }

// PathJoin implements vfs.FS.
func (f *FS) PathJoin(elem ...string) string { return f.under.PathJoin(elem...) }

// PathDir implements vfs.FS.
func (f *FS) PathDir(path string) string { return f.under.PathDir(path) }

// GetDiskUsage implements vfs.FS.
func (f *FS) GetDiskUsage(path string) (vfs.DiskUsage, error) { return f.under.GetDiskUsage(path) }

// Unwrap implements vfs.FS: what is beneath, whose files are sealed bytes.
func (f *FS) Unwrap() vfs.FS { return f.under }
