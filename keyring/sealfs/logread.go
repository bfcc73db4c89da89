package sealfs

import (
	"errors"
	"fmt"
	"io"
	"os"
	"sync"

	"github.com/cockroachdb/pebble/v2/vfs"

	"github.com/blockseal/blockseal/dek"
	"github.com/blockseal/blockseal/keyring"
)

// logReader is a log, open for reading, also while it is written: then it ends, each time that it
// is asked, behind the last whole frame.
type logReader struct {
	fs    *FS
	name  string
	under vfs.File
	key   *fileKey   // nil: the log has no head
	live  *logWriter // that was writing it when it was opened

	mu     sync.Mutex
	seq    logCursor // of Read
	pos    int64
	at     logCursor // of ReadAt, and of Stat
	closed bool
}

var _ vfs.File = (*logReader)(nil)

func newLogReader(fs *FS, name string, under vfs.File, key *fileKey, live *logWriter) *logReader {
	r := &logReader{fs: fs, name: name, under: under, key: key, live: live}
	r.seq.reset()
	r.at.reset()
	return r
}

// logCursor is a place in a log, and the frame there.
type logCursor struct {
	end    int64  // on disk, behind the frame
	number uint32 // of the frame behind
	from   int64  // of the content, where the frame begins
	plain  []byte // of the frame
	torn   bool   // plain is tornMark
	window []byte // what was read of the file
	winAt  int64  // from where
}

func (c *logCursor) reset() {
	*c = logCursor{end: headSize, plain: c.plain[:0], window: c.window[:0]}
}

// logWindow is how much of a log is read at once. It holds the longest frame.
const logWindow = 128 << 10

// Read implements vfs.File.
func (r *logReader) Read(p []byte) (int, error) {
	r.mu.Lock()
	defer r.mu.Unlock()
	n, err := r.read(&r.seq, p, r.pos)
	r.pos += int64(n)
	if n > 0 && errors.Is(err, io.EOF) {
		err = nil
	}
	return n, err
}

// ReadAt implements vfs.File. To go back to an earlier place takes reading the log from its start.
func (r *logReader) ReadAt(p []byte, off int64) (int, error) {
	r.mu.Lock()
	defer r.mu.Unlock()
	if off < 0 {
		return 0, fmt.Errorf("sealfs: %s: a negative offset", r.name)
	}
	n := 0
	for n < len(p) {
		k, err := r.read(&r.at, p[n:], off+int64(n))
		n += k
		if err != nil {
			return n, err
		}
	}
	return n, nil
}

// read reads from one frame.
func (r *logReader) read(c *logCursor, p []byte, off int64) (int, error) {
	if r.closed {
		return 0, fmt.Errorf("sealfs: %s: %w", r.name, os.ErrClosed)
	}
	if len(p) == 0 {
		return 0, nil
	}
	if off < c.from {
		c.reset()
	}
	for off >= c.from+int64(len(c.plain)) {
		if err := r.next(c, true); err != nil {
			return 0, err
		}
	}
	hold, err := r.fs.acquire()
	if err != nil {
		return 0, ofFile(r.name, err)
	}
	defer func() { hold.Release() }()
	return copy(p, c.plain[off-c.from:]), nil
}

// next goes on to the next frame, io.EOF if there is none. mark says whether a torn end is one more,
// after a look for the damage that it may be.
func (r *logReader) next(c *logCursor, mark bool) error {
	if c.torn {
		return io.EOF
	}
	if r.key == nil {
		return r.noHead(c, mark)
	}
	limit := r.written()
	if limit >= 0 && c.end >= limit {
		return io.EOF // for now
	}
	b, err := r.fetch(c, c.end, limit)
	if err != nil {
		return err
	}
	f, ok := parseFrame(b)
	if ok && f.number == c.number && f.stored() <= len(b) {
		opened, err := r.open(c.plain, b[:f.stored()])
		switch {
		case err != nil:
			return err
		case opened != nil && f.size == 0:
			return io.EOF
		case opened != nil:
			c.from += int64(len(c.plain))
			if cap(opened) > cap(c.plain) { // another array
				clear(c.plain[:cap(c.plain)])
			}
			c.plain = opened
			c.end += int64(f.stored())
			c.number++
			return nil
		}
		// What was in the buffer is gone, and its length is needed.
		c.from += int64(len(c.plain))
		c.plain = c.plain[:0]
	}
	c.window = c.window[:0]
	if !mark {
		return io.EOF
	}
	if err := r.lookForDamage(c.end, c.number); err != nil {
		return err
	}
	c.tear()
	return nil
}

// tear puts the mark of a torn end behind what was read.
func (c *logCursor) tear() {
	c.from += int64(len(c.plain))
	c.plain = append(c.plain[:0], tornMark...)
	c.torn = true
}

// noHead is next of a log without a head, which is empty if it has no bytes.
func (r *logReader) noHead(c *logCursor, mark bool) error {
	fi, err := r.under.Stat()
	if err != nil {
		return err
	}
	if !mark || fi.Size() == 0 {
		return io.EOF
	}
	c.tear()
	return nil
}

// written is how far the file has frames, if it is being written, else -1.
func (r *logReader) written() int64 {
	if r.live != nil {
		if end, ok := r.live.written(); ok {
			return end
		}
	}
	return -1
}

// open opens a frame into buf. It returns nil, and no error, if the frame does not open.
func (r *logReader) open(buf, b []byte) (opened []byte, err error) {
	err = r.key.use(func(a *dek.AEAD) error {
		got, err := openFrame(buf[:0], a, b)
		if err == nil {
			opened = got
			if opened == nil {
				opened = []byte{}
			}
		}
		return nil
	})
	return opened, ofFile(r.name, err)
}

// fetch returns what the file has from a place on, a frame at least if there is one, up to a limit
// that is not negative. Nothing behind the limit is kept: there may be the next frame by the time
// that it is asked for, where an older log's was.
func (r *logReader) fetch(c *logCursor, at, limit int64) ([]byte, error) {
	have := c.winAt + int64(len(c.window)) - at
	need := at < c.winAt || have < frameOverhead
	if !need {
		f, ok := parseFrame(c.window[at-c.winAt:])
		need = ok && int64(f.stored()) > have
	}
	if need {
		if cap(c.window) < logWindow {
			c.window = make([]byte, logWindow)
		}
		n, err := r.under.ReadAt(c.window[:logWindow], at)
		if err != nil && !errors.Is(err, io.EOF) {
			c.window = c.window[:0]
			return nil, err
		}
		if limit >= 0 {
			n = int(min(int64(n), limit-at))
		}
		c.window, c.winAt = c.window[:n], at
	}
	return c.window[at-c.winAt:], nil
}

// lookForDamage looks behind a place at which frame number should be for the first bytes of a later
// frame that say that it was durable. A frame may begin at any offset. It reads the rest of the file
// once, and opens nothing but seals, of 28 bytes each.
func (r *logReader) lookForDamage(at int64, number uint32) error {
	buf := make([]byte, logWindow)
	var aad [1 + frameClear]byte
	for at++; ; {
		n, err := r.under.ReadAt(buf, at)
		if err != nil && !errors.Is(err, io.EOF) {
			return err
		}
		b := buf[:n]
		if err := r.key.use(func(a *dek.AEAD) error {
			for i := range max(0, len(b)-frameHead+1) {
				f, ok := parseFrame(b[i:])
				if ok && f.synced > number && sealOpens(a, &aad, b[i:]) {
					return fmt.Errorf("frame %d is damaged or missing: frame %d says that %d frames were durable before it: %w", number, f.number, f.synced, keyring.ErrCorrupt)
				}
			}
			return nil
		}); err != nil {
			return ofFile(r.name, err)
		}
		if n < len(buf) {
			return nil
		}
		at += int64(n - frameHead + 1) // a frame may begin within, and go on behind
	}
}

// contentSize reads the log to its end.
func (r *logReader) contentSize() (int64, error) {
	r.mu.Lock()
	defer r.mu.Unlock()
	if r.closed {
		return 0, fmt.Errorf("sealfs: %s: %w", r.name, os.ErrClosed)
	}
	if r.at.torn {
		r.at.reset()
	}
	for {
		switch err := r.next(&r.at, false); {
		case errors.Is(err, io.EOF):
			return r.at.from + int64(len(r.at.plain)), nil
		case err != nil:
			return 0, err
		}
	}
}

// Stat implements vfs.File. The size is that of the frames that open, for which it reads the log.
func (r *logReader) Stat() (vfs.FileInfo, error) {
	size, err := r.contentSize()
	if err != nil {
		return nil, err
	}
	return statSized(r.under, size)
}

// Close implements vfs.File.
func (r *logReader) Close() error {
	r.mu.Lock()
	defer r.mu.Unlock()
	if r.closed {
		return fmt.Errorf("sealfs: %s: %w", r.name, os.ErrClosed)
	}
	r.closed = true
	clear(r.seq.plain[:cap(r.seq.plain)])
	clear(r.at.plain[:cap(r.at.plain)])
	if r.key != nil {
		r.key.release()
	}
	return r.under.Close()
}

// Prefetch implements vfs.File.
func (r *logReader) Prefetch(offset, length int64) error {
	return r.under.Prefetch(headSize+offset, length)
}

// Fd implements vfs.File: that of the file beneath, for advice on how it is read.
func (r *logReader) Fd() uintptr { return r.under.Fd() }

// Sync implements vfs.File.
func (r *logReader) Sync() error { return r.under.Sync() }

// SyncData implements vfs.File.
func (r *logReader) SyncData() error { return r.under.SyncData() }

// SyncTo implements vfs.File.
func (r *logReader) SyncTo(length int64) (bool, error) { return r.under.SyncTo(headSize + length) }

// Write implements vfs.File: the file is open for reading.
func (r *logReader) Write(p []byte) (int, error) {
	return 0, unsupported(r.name, "Write", "is open for reading")
}

// WriteAt implements vfs.File, as Write.
func (r *logReader) WriteAt(p []byte, off int64) (int, error) {
	return 0, unsupported(r.name, "WriteAt", "is open for reading")
}

// Preallocate implements vfs.File, to no effect.
func (r *logReader) Preallocate(offset, length int64) error { return nil }
