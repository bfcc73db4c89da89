package sealfs

import (
	"errors"
	"fmt"
	"os"
	"sync"

	"github.com/cockroachdb/pebble/v2/vfs"

	"github.com/blockseal/blockseal/dek"
	"github.com/blockseal/blockseal/keyring"
)

// writeBuffer is how many sealed bytes are written at once: what Pebble hands over is a 4 KiB block
// at a time.
const writeBuffer = 128 << 10

// onceWriter is a file of layout Once that is being written. The file beneath stands after the last
// chunk that was written for good; a tail that a Sync made durable is written at its place behind
// that, and overwritten when it has grown.
type onceWriter struct {
	fs    *FS
	name  string
	under vfs.File
	key   *fileKey
	chunk int

	mu      sync.Mutex
	part    []byte // content of the chunk that is being filled; whole only if nothing came after
	full    []byte // sealed chunks before it that are not written yet
	number  int64  // of the chunk in part
	written int64  // where full goes on disk
	tail    bool   // part is on disk, sealed as the last chunk
	seals   uint64
	err     error // a write failed: what is on disk is not known
	closed  bool
}

var _ vfs.File = (*onceWriter)(nil)

func newOnceWriter(fs *FS, at fileAt, name string, under vfs.File, key *fileKey, chunk int) *onceWriter {
	w := &onceWriter{fs: fs, name: name, under: under, key: key, chunk: chunk, written: headSize,
		part: make([]byte, 0, chunk-sealedOverhead), full: make([]byte, 0, writeBuffer+chunk)}
	fs.mu.Lock()
	fs.tables.put(at, w)
	fs.mu.Unlock()
	return w
}

// Write implements vfs.File.
func (w *onceWriter) Write(p []byte) (int, error) {
	w.mu.Lock()
	defer w.mu.Unlock()
	if err := w.usable(); err != nil {
		return 0, err
	}
	n := 0
	for n < len(p) {
		// A whole chunk is sealed when more comes: until then it may be the last.
		if len(w.part) < cap(w.part) {
			k := min(len(p)-n, cap(w.part)-len(w.part))
			w.part = append(w.part, p[n:n+k]...)
			n += k
			w.tail = false
			continue
		}
		if err := w.seal(p, &n); err != nil {
			return n, err
		}
		if len(w.full) >= writeBuffer {
			if err := w.flush(); err != nil {
				return n, err
			}
		}
	}
	return n, nil
}

// seal seals the chunk in part, and as many as there are whole in p from *n on and more behind,
// until the buffer is full.
func (w *onceWriter) seal(p []byte, n *int) error {
	return ofFile(w.name, w.fs.retry(func() error {
		return w.key.use(func(a *dek.AEAD) error {
			var aad [chunkAAD]byte
			if w.seals >= maxSeals-writeBuffer/minChunk-2 {
				return errTooLong
			}
			w.full = a.Seal(w.full, w.part, putChunkAAD(&aad, w.number, false))
			w.part = w.part[:0]
			w.number, w.seals, w.tail = w.number+1, w.seals+1, false
			for size := cap(w.part); len(p)-*n > size && len(w.full) < writeBuffer; *n += size {
				w.full = a.Seal(w.full, p[*n:*n+size], putChunkAAD(&aad, w.number, false))
				w.number, w.seals = w.number+1, w.seals+1
			}
			return nil
		})
	}))
}

// errTooLong says that a DEK has sealed as much as it may.
var errTooLong = fmt.Errorf("2^32 sealings under one DEK, which is as many as random nonces allow: %w", keyring.ErrLimit)

// flush writes the sealed chunks.
func (w *onceWriter) flush() error {
	if len(w.full) == 0 {
		return nil
	}
	size := len(w.full)
	if _, err := w.under.Write(w.full); err != nil {
		w.err = err
		return err
	}
	w.written += int64(size)
	w.full = w.full[:0]
	return nil
}

// finish writes everything, and the tail as the last chunk.
func (w *onceWriter) finish() error {
	if err := w.usable(); err != nil {
		return err
	}
	if err := w.flush(); err != nil || w.tail {
		return err
	}
	var last []byte
	if err := w.fs.retry(func() error {
		return w.key.use(func(a *dek.AEAD) error {
			if w.seals++; w.seals >= maxSeals {
				return errTooLong
			}
			var aad [chunkAAD]byte
			last = a.Seal(last[:0], w.part, putChunkAAD(&aad, w.number, true))
			return nil
		})
	}); err != nil {
		return ofFile(w.name, err)
	}
	if _, err := w.under.WriteAt(last, w.written); err != nil {
		w.err = err
		return err
	}
	w.tail = true
	return nil
}

func (w *onceWriter) usable() error {
	if w.closed {
		return fmt.Errorf("sealfs: %s: %w", w.name, os.ErrClosed)
	}
	if w.err != nil {
		return fmt.Errorf("sealfs: %s: a write failed before: %w", w.name, w.err)
	}
	return nil
}

// Sync implements vfs.File: what was written until then is readable from now on, if nothing is
// written any more.
func (w *onceWriter) Sync() error { return w.sync(w.under.Sync) }

// SyncData implements vfs.File, as Sync.
func (w *onceWriter) SyncData() error { return w.sync(w.under.SyncData) }

func (w *onceWriter) sync(under func() error) error {
	w.mu.Lock()
	defer w.mu.Unlock()
	if err := w.finish(); err != nil {
		return err
	}
	return under()
}

// SyncTo implements vfs.File, for the chunks that are whole. It never seals a tail, and says that
// everything was synced only if there is none.
func (w *onceWriter) SyncTo(length int64) (bool, error) {
	w.mu.Lock()
	defer w.mu.Unlock()
	if err := w.usable(); err != nil {
		return false, err
	}
	full, err := w.under.SyncTo(min(onceAt(length, w.chunk), w.written))
	return full && w.tail, err
}

// Preallocate implements vfs.File.
func (w *onceWriter) Preallocate(offset, length int64) error {
	from := onceAt(offset, w.chunk)
	return w.under.Preallocate(from, onceAt(offset+length, w.chunk)+int64(w.chunk)-from)
}

// Close implements vfs.File. It writes the tail, and syncs nothing.
func (w *onceWriter) Close() error {
	w.mu.Lock()
	defer w.mu.Unlock()
	if w.closed {
		return w.usable()
	}
	var err error
	if w.err == nil {
		err = w.finish()
	}
	w.closed = true
	w.fs.forget(w)
	clear(w.part[:cap(w.part)])
	w.key.release()
	return errors.Join(err, w.under.Close())
}

// Stat implements vfs.File.
func (w *onceWriter) Stat() (vfs.FileInfo, error) {
	w.mu.Lock()
	size := w.number*int64(cap(w.part)) + int64(len(w.part))
	w.mu.Unlock()
	return statSized(w.under, size)
}

// Prefetch implements vfs.File, to no effect.
func (w *onceWriter) Prefetch(offset, length int64) error { return nil }

// Fd implements vfs.File: that of the file beneath. With an invalid one Pebble would sync tables
// in the middle.
func (w *onceWriter) Fd() uintptr { return w.under.Fd() }

// Read implements vfs.File: a file that is being written cannot be read by the same handle.
func (w *onceWriter) Read(p []byte) (int, error) {
	return 0, unsupported(w.name, "Read", "is being written")
}

// ReadAt implements vfs.File, as Read.
func (w *onceWriter) ReadAt(p []byte, off int64) (int, error) {
	return 0, unsupported(w.name, "ReadAt", "is being written")
}

// WriteAt implements vfs.File: the layout is written from start to end.
func (w *onceWriter) WriteAt(p []byte, off int64) (int, error) {
	return 0, unsupported(w.name, "WriteAt", "is of layout once")
}

func unsupported(name, method, why string) error {
	return fmt.Errorf("sealfs: %s: %s of a file that %s: %w", name, method, why, errors.ErrUnsupported)
}
