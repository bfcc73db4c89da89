package sealfs

import (
	"errors"
	"fmt"
	"os"
	"sync"

	"github.com/cockroachdb/pebble/v2/vfs"

	"github.com/blockseal/blockseal/dek"
)

// logWriter is a log that is being written. Each Write is sealed and written at once: what Pebble
// has handed over is where a plain file would have it.
type logWriter struct {
	fs    *FS
	name  string
	under vfs.File
	key   *fileKey

	writing sync.Mutex // one Write at a time
	buf     []byte

	mu     sync.Mutex
	size   int64  // of the content
	end    int64  // behind the last whole frame on disk
	number uint32 // of the next frame
	synced uint32 // frames that are durable
	unsure bool   // a Sync failed: which frames are durable will not be known any more
	err    error
	closed bool
}

var _ vfs.File = (*logWriter)(nil)

func (f *FS) newLogWriter(at fileAt, name string, under vfs.File, key *fileKey) *logWriter {
	w := &logWriter{fs: f, name: name, under: under, key: key, end: headSize}
	f.mu.Lock()
	f.logs.put(at, w)
	f.mu.Unlock()
	return w
}

// Write implements vfs.File.
func (w *logWriter) Write(p []byte) (int, error) {
	w.writing.Lock()
	defer w.writing.Unlock()
	if len(p) == 0 {
		return 0, w.usable()
	}
	if err := w.write(p, w.fs.retry); err != nil {
		return 0, err
	}
	return len(p), nil
}

// write seals p as frames, or the closing frame if p is empty, and writes them.
func (w *logWriter) write(p []byte, retry func(func() error) error) error {
	if err := w.usable(); err != nil {
		return err
	}
	w.mu.Lock()
	first, synced := w.number, w.synced
	w.mu.Unlock()
	number := uint64(first)
	if frames := uint64(len(p)/maxFrame) + 1; number+frames > maxFrames {
		return ofFile(w.name, errTooLong)
	}
	err := retry(func() error {
		return w.key.use(func(a *dek.AEAD) error {
			w.buf, number = w.buf[:0], uint64(first)
			for rest, more := p, true; more; more = len(rest) > 0 {
				n := min(len(rest), maxFrame)
				w.buf = frame{uint32(n), uint32(number), synced}.seal(w.buf, a, rest[:n])
				rest = rest[n:]
				number++
			}
			return nil
		})
	})
	if err != nil {
		return ofFile(w.name, err)
	}
	size := len(w.buf)
	n, err := w.under.Write(w.buf)
	w.mu.Lock()
	defer w.mu.Unlock()
	if err != nil {
		if n > 0 {
			// Part of a frame is there, and the file beneath stands behind it.
			w.err = err
		}
		return err
	}
	w.size, w.end, w.number = w.size+int64(len(p)), w.end+int64(size), uint32(number)
	return nil
}

func (w *logWriter) usable() error {
	w.mu.Lock()
	defer w.mu.Unlock()
	if w.closed {
		return fmt.Errorf("sealfs: %s: %w", w.name, os.ErrClosed)
	}
	if w.err != nil {
		return fmt.Errorf("sealfs: %s: a write failed before, within a frame: %w", w.name, w.err)
	}
	return nil
}

// Sync implements vfs.File. It seals nothing, and takes no access.
func (w *logWriter) Sync() error { return w.sync(w.under.Sync) }

// SyncData implements vfs.File, as Sync.
func (w *logWriter) SyncData() error { return w.sync(w.under.SyncData) }

func (w *logWriter) sync(under func() error) error {
	w.mu.Lock()
	written := w.number
	w.mu.Unlock()
	err := under()
	w.syncedTo(written, err)
	return err
}

// syncedTo takes up what a Sync of the file beneath said. After one that failed a later one says
// nothing of what was written before: the system may have given those bytes up.
func (w *logWriter) syncedTo(number uint32, err error) {
	w.mu.Lock()
	defer w.mu.Unlock()
	if w.unsure = w.unsure || err != nil; !w.unsure {
		w.synced = max(w.synced, number)
	}
}

// SyncTo implements vfs.File. On disk a prefix of the content is at least as long.
func (w *logWriter) SyncTo(length int64) (bool, error) {
	w.mu.Lock()
	written, to := w.number, min(headSize+length, w.end)
	w.mu.Unlock()
	full, err := w.under.SyncTo(to)
	if full || err != nil {
		w.syncedTo(written, err)
	}
	return full, err
}

// Preallocate implements vfs.File: the frames' own bytes are not counted.
func (w *logWriter) Preallocate(offset, length int64) error {
	return w.under.Preallocate(headSize+offset, length)
}

// written returns up to where the log has been written, or ok false if it is closed: then its file says.
func (w *logWriter) written() (end int64, ok bool) {
	w.mu.Lock()
	defer w.mu.Unlock()
	return w.end, !w.closed
}

// Close implements vfs.File. It writes the frame that says that the log was closed, if there is
// access, and does not wait for it: a log without reads as one of a process that was killed.
func (w *logWriter) Close() error {
	w.writing.Lock()
	defer w.writing.Unlock()
	if w.closed { // written with both locks
		return w.usable()
	}
	err := w.write(nil, func(step func() error) error { return step() })
	if noAccess(err) || w.err != nil {
		err = nil // what failed was reported when it did
	}
	w.fs.forget(w)
	w.mu.Lock()
	w.closed = true
	w.mu.Unlock()
	w.key.release()
	return errors.Join(err, w.under.Close())
}

// Stat implements vfs.File.
func (w *logWriter) Stat() (vfs.FileInfo, error) {
	w.mu.Lock()
	size := w.size
	w.mu.Unlock()
	return statSized(w.under, size)
}

// Prefetch implements vfs.File, to no effect.
func (w *logWriter) Prefetch(offset, length int64) error { return nil }

// Fd implements vfs.File: that of the file beneath, with which Pebble preallocates and syncs.
func (w *logWriter) Fd() uintptr { return w.under.Fd() }

// Read implements vfs.File: a log that is being written is read through another handle.
func (w *logWriter) Read(p []byte) (int, error) {
	return 0, unsupported(w.name, "Read", "is being written")
}

// ReadAt implements vfs.File, as Read.
func (w *logWriter) ReadAt(p []byte, off int64) (int, error) {
	return 0, unsupported(w.name, "ReadAt", "is being written")
}

// WriteAt implements vfs.File: a log is appended to.
func (w *logWriter) WriteAt(p []byte, off int64) (int, error) {
	return 0, unsupported(w.name, "WriteAt", "is of layout log")
}
