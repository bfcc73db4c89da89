package sealfs

import (
	"errors"
	"fmt"
	"io"
	"os"
	"sync"

	"github.com/cockroachdb/pebble/v2/vfs"

	"github.com/blockseal/blockseal/dek"
)

// readWindow is how many stored bytes are read and opened at once, at most, and from the start by a
// handle that was opened for sequential reads.
const readWindow = 64 << 10

// onceReader is a file of layout Once, open for reading.
type onceReader struct {
	name    string
	under   vfs.File
	key     *fileKey
	chunk   int
	payload int
	size    int64
	chunks  int64
	window  int64 // how many chunks are opened at least

	mu     sync.Mutex
	first  int64  // the chunk that kept begins with
	kept   []byte // content that was opened last: a chunk, or a window
	pos    int64  // of Read
	closed bool
}

var _ vfs.File = (*onceReader)(nil)

// scratch is memory for one read or write, shared by all files of an FS.
type scratch struct {
	sealed, plain []byte // of a window at most; behind its length plain has no content
	one           []byte // content of a chunk
	aad           [chunkAAD]byte
}

func (f *FS) borrow() *scratch {
	s, ok := f.scratch.Get().(*scratch)
	if !ok {
		s = new(scratch)
	}
	return s
}

// giveBack returns memory without the content that was in it, which belongs to no handle any more.
func (f *FS) giveBack(s *scratch) {
	clear(s.plain) // and not all of its capacity, which a read of one chunk does not use
	s.plain = s.plain[:0]
	clear(s.one[:cap(s.one)])
	f.scratch.Put(s)
}

// room returns n bytes for what is on disk.
func (s *scratch) room(n int) []byte {
	if cap(s.sealed) < n {
		s.sealed = make([]byte, n)
	}
	return s.sealed[:n]
}

// roomForContent makes plain empty, with a capacity of n at least.
func (s *scratch) roomForContent(n int) {
	clear(s.plain)
	if s.plain = s.plain[:0]; cap(s.plain) < n {
		s.plain = make([]byte, 0, n)
	}
}

// newOnceReader opens the last chunk, which authenticates the size.
func newOnceReader(name string, under vfs.File, key *fileKey, chunk int, sequential bool) (*onceReader, error) {
	fi, err := under.Stat()
	if err != nil {
		return nil, err
	}
	r := &onceReader{name: name, under: under, key: key, chunk: chunk, payload: chunk - sealedOverhead, window: 1}
	var ok bool
	if r.size, r.chunks, ok = onceSize(fi.Size(), chunk); !ok {
		return nil, corrupt(name, "it was cut off: no whole file has %d bytes", fi.Size())
	}
	if sequential {
		r.window = readWindow / int64(chunk)
	}
	if err := r.read(nil, 0, r.chunks-1, r.chunks); err != nil {
		return nil, err
	}
	return r, nil
}

// ReadAt implements vfs.File.
func (r *onceReader) ReadAt(p []byte, off int64) (int, error) {
	if off < 0 {
		return 0, fmt.Errorf("sealfs: %s: a negative offset", r.name)
	}
	n := 0
	for n < len(p) && off < r.size {
		k, err := r.fromKept(p[n:], off)
		if err != nil {
			return n, err
		}
		if k == 0 {
			first := off / int64(r.payload)
			end := min((min(off+int64(len(p)-n), r.size)+int64(r.payload)-1)/int64(r.payload), first+readWindow/int64(r.chunk))
			end = min(max(end, first+r.window), r.chunks)
			at := off - first*int64(r.payload)
			if err := r.read(p[n:], at, first, end); err != nil {
				return n, err
			}
			k = int(min((end-first)*int64(r.payload)-at, int64(len(p)-n), r.size-off))
		}
		n, off = n+k, off+int64(k)
	}
	if n < len(p) {
		return n, io.EOF
	}
	return n, nil
}

// fromKept copies what is kept of the content at an offset. That takes access too.
func (r *onceReader) fromKept(p []byte, off int64) (n int, err error) {
	r.mu.Lock()
	defer r.mu.Unlock()
	if r.closed {
		return 0, fmt.Errorf("sealfs: %s: %w", r.name, os.ErrClosed)
	}
	at := off - r.first*int64(r.payload)
	if at < 0 || at >= int64(len(r.kept)) {
		return 0, nil
	}
	hold, err := r.key.fs.acquire()
	if err != nil {
		return 0, ofFile(r.name, err)
	}
	defer func() { hold.Release() }()
	return copy(p, r.kept[at:]), nil
}

// read reads the chunks from first to end, at most a window, and puts their content from the
// offset at into p, as far as there is room. It keeps the last of them, or all of them in a window.
func (r *onceReader) read(p []byte, at, first, end int64) error {
	s := r.key.fs.borrow()
	defer r.key.fs.giveBack(s)
	from := headSize + first*int64(r.chunk)
	size := (end - first) * int64(r.chunk)
	if end == r.chunks {
		size = int64(r.payload)*(end-first-1) + (r.size - (end-1)*int64(r.payload)) + (end-first)*sealedOverhead
	}
	stored := s.room(int(size))
	if n, err := r.under.ReadAt(stored, from); n < int(size) {
		if err == nil || errors.Is(err, io.EOF) {
			return corrupt(r.name, "it was cut off while it was open, at %d", from+int64(n))
		}
		return err
	}
	err := r.key.use(func(a *dek.AEAD) error {
		sealed, whole := stored, r.window > 1
		if room := int(end-first) * r.payload; whole {
			s.roomForContent(room)
		}
		for i := first; i < end; i++ {
			n := min(r.chunk, len(sealed))
			aad := putChunkAAD(&s.aad, i, i == r.chunks-1)
			// Straight to where it is wanted, if all of it is.
			to := (i-first)*int64(r.payload) - at
			if !whole && i < end-1 && to >= 0 && to+int64(n-sealedOverhead) <= int64(len(p)) {
				if _, err := a.Open(p[to:to:to+int64(n-sealedOverhead)], sealed[:n], aad); err != nil {
					return r.damaged(i)
				}
			} else {
				var opened []byte
				var err error
				if whole {
					was := len(s.plain)
					if opened, err = a.Open(s.plain, sealed[:n], aad); err == nil {
						s.plain = opened
						opened = opened[was:]
					}
				} else {
					opened, err = a.Open(s.one[:0], sealed[:n], aad)
				}
				if err != nil {
					return r.damaged(i)
				}
				if !whole {
					s.one = opened
				}
				if to >= 0 && to < int64(len(p)) {
					copy(p[to:], opened)
				} else if to < 0 && -to < int64(len(opened)) {
					copy(p, opened[-to:])
				}
			}
			sealed = sealed[n:]
		}
		return nil
	})
	if err != nil {
		return ofFile(r.name, err)
	}
	r.mu.Lock()
	defer r.mu.Unlock()
	if r.closed {
		return nil
	}
	// The last chunk went through s.one always, and in a window all of them through s.plain. There are many
	// handles without a window, so that those keep a chunk and no more.
	if r.window == 1 {
		r.first = end - 1
		r.kept, s.one = s.one, r.kept
		return nil
	}
	r.first = first
	r.kept, s.plain = s.plain, r.kept
	return nil
}

func (r *onceReader) damaged(chunk int64) error {
	if chunk == r.chunks-1 {
		return corrupt(r.name, "its last chunk does not open: it was altered, cut off or made longer")
	}
	return corrupt(r.name, "chunk %d of %d does not open: it was altered or exchanged", chunk, r.chunks)
}

// Read implements vfs.File.
func (r *onceReader) Read(p []byte) (int, error) {
	if len(p) == 0 {
		return 0, nil
	}
	n, err := r.ReadAt(p, r.pos)
	r.pos += int64(n)
	if n > 0 && errors.Is(err, io.EOF) {
		err = nil
	}
	return n, err
}

// Close implements vfs.File.
func (r *onceReader) Close() error {
	r.mu.Lock()
	defer r.mu.Unlock()
	if r.closed {
		return fmt.Errorf("sealfs: %s: %w", r.name, os.ErrClosed)
	}
	r.closed = true
	clear(r.kept[:cap(r.kept)])
	r.kept = nil
	r.key.release()
	return r.under.Close()
}

// Stat implements vfs.File.
func (r *onceReader) Stat() (vfs.FileInfo, error) { return statSized(r.under, r.size) }

// Prefetch implements vfs.File, for the chunks that have the bytes.
func (r *onceReader) Prefetch(offset, length int64) error {
	from := onceAt(offset, r.chunk)
	return r.under.Prefetch(from, onceAt(offset+length, r.chunk)+int64(r.chunk)-from)
}

// Fd implements vfs.File: that of the file beneath, for advice on how it is read. What is read
// there is sealed.
func (r *onceReader) Fd() uintptr { return r.under.Fd() }

// Sync implements vfs.File.
func (r *onceReader) Sync() error { return r.under.Sync() }

// SyncData implements vfs.File.
func (r *onceReader) SyncData() error { return r.under.SyncData() }

// SyncTo implements vfs.File.
func (r *onceReader) SyncTo(length int64) (bool, error) {
	return r.under.SyncTo(onceAt(length, r.chunk))
}

// Write implements vfs.File: the file is open for reading.
func (r *onceReader) Write(p []byte) (int, error) {
	return 0, unsupported(r.name, "Write", "is open for reading")
}

// WriteAt implements vfs.File, as Write.
func (r *onceReader) WriteAt(p []byte, off int64) (int, error) {
	return 0, unsupported(r.name, "WriteAt", "is open for reading")
}

// Preallocate implements vfs.File, to no effect.
func (r *onceReader) Preallocate(offset, length int64) error { return nil }
