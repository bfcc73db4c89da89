package transfer

import (
	"context"
	"errors"
	"io"
)

// Whose stream it is may keep a Read or a Write for as long as they like: a connection that nobody
// answers, a pipe that nobody closes. Nothing ends such a call. So it runs on a goroutine of its own, with memory
// of its own, and who waits for it stops when ctx ends. The goroutine ends when the call does.

// step is how much is read or written at a time.
const step = 1 << 16

// done is what a call has returned.
type done struct {
	n   int
	err error
}

// within calls f, and waits for it until ctx ends.
func within(ctx context.Context, f func() (int, error)) (int, error) {
	if err := ctx.Err(); err != nil {
		return 0, err
	}
	ended := make(chan done, 1)
	go func() {
		n, err := f()
		ended <- done{n, err}
	}()
	select {
	case d := <-ended:
		return d.n, d.err
	case <-ctx.Done():
		return 0, ctx.Err()
	}
}

// readWithin reads from r until ctx ends.
type readWithin struct {
	ctx  context.Context
	r    io.Reader
	buf  []byte // r reads into it: after the end of ctx it is that call's
	have []byte // of buf, what was read and not returned
	err  error
}

func (w *readWithin) Read(p []byte) (n int, err error) {
	if len(w.have) == 0 && w.err == nil {
		if w.buf == nil {
			w.buf = make([]byte, step)
		}
		buf := w.buf
		if n, w.err = within(w.ctx, func() (int, error) { return w.r.Read(buf) }); n < 0 || n > len(buf) {
			return 0, errors.New("transfer: the reader returned an impossible count")
		}
		w.have = buf[:n]
	}
	n = copy(p, w.have)
	if w.have = w.have[n:]; len(w.have) == 0 {
		err = w.err
	}
	return n, err
}

// writeWithin writes to w until ctx ends.
type writeWithin struct {
	ctx context.Context
	w   io.Writer
	buf []byte // w writes from it: after the end of ctx it is that call's
}

func (w *writeWithin) Write(p []byte) (n int, err error) {
	for len(p) > 0 {
		w.buf = append(w.buf[:0], p[:min(step, len(p))]...)
		buf := w.buf
		some, err := within(w.ctx, func() (int, error) { return w.w.Write(buf) })
		if err != nil {
			w.buf = nil
			return n, err
		}
		if some != len(buf) {
			return n, io.ErrShortWrite
		}
		n += some
		p = p[some:]
	}
	return n, nil
}
