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

	"github.com/blockseal/blockseal/dek"
	"github.com/blockseal/blockseal/internal/inner"
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
	// whoever opens a file shares it.
	names sync.RWMutex
	moves atomic.Uint64 // names that were given or changed

	scratch sync.Pool // of *scratch

	mu      sync.Mutex
	keys    map[fileID]*fileKey
	logs    map[fileID]*logWriter // that are being written
	tables  map[fileID]bool       // files of layout Once that are being written
	pages   map[fileID]*pageFile
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
	f := &FS{under: under, ring: r, opts: o, keys: map[fileID]*fileKey{}, logs: map[fileID]*logWriter{},
		tables: map[fileID]bool{}, pages: map[fileID]*pageFile{}}
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
	var w *logWriter
	if layout == Log {
		w = f.newLogWriter(name, h.id)
	}
	var u vfs.File
	k, err := f.newKey(h, []string{base}, func() (err error) {
		f.names.RLock() // not between the steps of a rotation that puts a file in its place
		defer f.names.RUnlock()
		if u, err = f.under.Create(name, category); err != nil {
			return err
		}
		_, err = u.Write(h.encode())
		if err == nil && layout == Log {
			err = u.Sync()
		}
		if err != nil {
			return errors.Join(err, u.Close(), f.under.Remove(name))
		}
		return nil
	})
	if err != nil {
		if w != nil {
			w.forgotten()
		}
		return nil, ofFile(name, err)
	}
	switch layout {
	case Log:
		return w.begin(u, k), nil
	case Once:
		return newOnceWriter(f, name, u, k, int(h.chunk)), nil
	}
	// The handle of Create would do, if every file system let it write at a place.
	k.release()
	if err := u.Close(); err != nil {
		return nil, err
	}
	return f.OpenReadWrite(name, category)
}

// fixed reports whether a file's slots stay as they are once they were filled: those of a file of
// layout Once may be a checkpoint's as well, unless it is being written, and so was linked nowhere.
func (f *FS) fixed(h *head) bool {
	f.mu.Lock()
	defer f.mu.Unlock()
	return h.layout == Once && !f.tables[h.id]
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

// newKey makes a DEK for a head, with names, and calls write to store the head. From the making of
// the DEK to the end of write there is a hold, for which a rotation waits, so that it finds the
// record. While there is no access it waits, as Options.NoAccess says.
func (f *FS) newKey(h *head, names []string, write func() error) (k *fileKey, err error) {
	err = f.retry(func() (err error) {
		k, err = f.newKeyNow(h, names, write)
		return err
	})
	return k, err
}

// newKeyNow is newKey without waiting.
func (f *FS) newKeyNow(h *head, names []string, write func() error) (*fileKey, error) {
	hold, err := f.acquire()
	if err != nil {
		return nil, err
	}
	defer func() { hold.Release() }()
	var key dek.Key
	defer key.Destroy()
	var b keyring.Binding
	b.Set(h.context())
	record, err := hold.NewDEK(background, nil, &key, &b)
	if err != nil {
		return nil, err
	}
	k := &fileKey{fs: f, id: h.id, context: h.context(), record: record}
	if err := k.set(&key, hold.For(inner.Block{}).Session()); err != nil {
		return nil, err
	}
	h.records[0] = record
	if h.layout == Pages {
		if h.sizes[0], err = k.firstSizes(); err != nil {
			return nil, err
		}
	}
	for i, n := range names {
		h.names[i] = sealName(&k.aead, n)
	}
	if err := write(); err != nil {
		k.forget()
		return nil, err
	}
	return f.share(k), nil
}

// opened is a file that was opened for reading: its head, its key and what is beneath.
type opened struct {
	head *head
	key  *fileKey
}

// openHead reads a file's head, authenticates it and looks whether the file may have the name. It
// does not wait for access. f.names is held, or shared.
func (f *FS) openHead(name string, u vfs.File) (opened, error) {
	h, err := readHead(u)
	if err != nil {
		return opened{}, err
	}
	hold, err := f.acquire()
	if err != nil {
		return opened{}, err
	}
	defer func() { hold.Release() }()
	var key dek.Key
	defer key.Destroy()
	slot, err := h.openRecord(&hold, &key)
	if err != nil {
		return opened{}, err
	}
	k := &fileKey{fs: f, id: h.id, context: h.context(), record: h.records[slot]}
	if err := k.set(&key, hold.For(inner.Block{}).Session()); err != nil {
		return opened{}, err
	}
	if base := f.under.PathBase(name); !h.hasName(&k.aead, base) {
		k.forget()
		return opened{}, fmt.Errorf("it is another file's content: its head does not have the name %q: %w", base, keyring.ErrCorrupt)
	}
	return opened{head: h, key: f.share(k)}, nil
}

// Open implements vfs.FS. Errors, beside those of the file system beneath: keyring.ErrCorrupt for a file
// that is damaged, cut off or another one's content, which ErrNotSealed tells apart if it has no head at
// all; keyring.ErrVersion; keyring.ErrInaccessible, for which it does not wait. A file of layout Once is
// opened with its last chunk, any other damage is found when it is read.
func (f *FS) Open(name string, opts ...vfs.OpenOption) (vfs.File, error) {
	u, err := f.under.Open(name)
	if err != nil {
		return nil, err
	}
	file, err := f.openUnder(name, u, opts)
	if err != nil {
		return nil, errors.Join(err, u.Close())
	}
	for _, o := range opts {
		o.Apply(file) // its Fd is that of the file beneath
	}
	return file, nil
}

func (f *FS) openUnder(name string, u vfs.File, opts []vfs.OpenOption) (vfs.File, error) {
	if fi, err := u.Stat(); err != nil {
		return nil, err
	} else if fi.IsDir() {
		return &dirFile{under: u}, nil
	}
	layout := f.opts.Layout(f.under.PathBase(name))
	if layout == Empty {
		return &emptyFile{name: name, under: u}, nil
	}
	f.names.RLock()
	o, err := f.openHead(name, u)
	f.names.RUnlock()
	if err != nil && layout == Log {
		// Pebble meets a log that was being made after a crash.
		if is, serr := unmade(u, err); is || serr != nil {
			return newLogReader(f, name, u, nil), serr
		}
	}
	if err != nil {
		return nil, ofFile(name, err)
	}
	switch o.head.layout {
	case Log:
		return newLogReader(f, name, u, o.key), nil
	case Once:
		sequential := false
		for _, opt := range opts {
			sequential = sequential || opt == vfs.SequentialReadsOption
		}
		file, err := newOnceReader(name, u, o.key, int(o.head.chunk), sequential)
		if err != nil {
			o.key.release()
			return nil, err
		}
		return file, nil
	}
	p, err := f.openPages(name, u, o, true)
	if err != nil {
		o.key.release()
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
	return f.under.Remove(name)
}

// RemoveAll implements vfs.FS.
func (f *FS) RemoveAll(name string) error {
	f.names.RLock()
	defer f.names.RUnlock()
	return f.under.RemoveAll(name)
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
