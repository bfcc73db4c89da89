// Package pause is an engine whose engine beneath is closed for a while, and opened again, under those
// who use it: what has access to the files of a directory comes and goes.
//
// Start with [New], [Engine.Resume] and [Engine.Pause]. The time from one Resume to the next Pause is a
// session, as a keyring has them: what was begun in one, a view, a cursor, a batch, fails in the
// next, and never reaches the engine of it. docs/adr/0023-file-kek.md has the argument.
package pause

import (
	"context"
	"errors"
	"fmt"
	"io"
	"sync"
	"sync/atomic"

	"github.com/blockseal/blockseal/internal/engine"
)

// Engine is an engine that can be paused. Its partitions stay the same from one session to the next, with
// the floors that they had.
type Engine struct {
	ready   func() error
	explain func(error) error

	changing sync.Mutex // held by Resume, Pause and Close
	closed   bool
	sessions uint64
	batches  sync.Pool // of *batch

	now atomic.Pointer[session] // the last; nil: there was none yet
}

var (
	_ engine.Engine       = (*Engine)(nil)
	_ engine.Checkpointer = (*Engine)(nil)
	_ engine.Meter        = (*Engine)(nil)
	_ engine.Purger       = (*partition)(nil)
	_ engine.Deferrer     = (*partition)(nil)
	_ engine.Loader       = (*partition)(nil)
)

// New returns an engine that is paused, for the reason why. ready, if not nil, is asked before each
// call, and refuses it with its error: it knows of a pause sooner than whoever calls Pause. explain, if not
// nil, returns what is said of an error of the engine beneath.
func New(why error, ready func() error, explain func(error) error) *Engine {
	e := &Engine{ready: ready, explain: explain, batches: sync.Pool{New: func() any { return new(batch) }}}
	s := newSession(0, nil, nil)
	s.end(why)
	s.closed = true
	e.now.Store(s)
	return e
}

// Resume begins a session with an engine, which is e's from now on. The one before has ended.
func (e *Engine) Resume(beneath engine.Engine) error {
	e.changing.Lock()
	defer e.changing.Unlock()
	if e.closed {
		return engine.ErrClosed
	}
	e.sessions++
	e.now.Store(newSession(e.sessions, beneath, e.explain))
	return nil
}

// Pause ends the session, if there is one: what is called from now on, and what was begun in it, fails
// with why. It calls cut, after which calls that are under way must come to an end by themselves, also a
// Close; waits for them; closes the views and cursors that are open, and the engine. A write that was
// under way returns why too: nobody knows whether it was made. What was acknowledged was so before cut.
func (e *Engine) Pause(why error, cut func()) error {
	s := e.now.Load()
	s.end(why)
	cut()
	e.changing.Lock()
	defer e.changing.Unlock()
	return s.close()
}

// Because replaces the reason of a pause that goes on.
func (e *Engine) Because(why error) {
	e.changing.Lock()
	defer e.changing.Unlock()
	if s := e.now.Load(); s.closed && !errors.Is(s.reason(), engine.ErrClosed) {
		s.ended.Store(&why)
	}
}

// Do calls f in the session, which does not end meanwhile; its ctx ends when the session is to end.
func (e *Engine) Do(ctx context.Context, f func(ctx context.Context) error) error {
	s, err := e.begin(ctx)
	if err != nil {
		return err
	}
	defer s.done()
	ctx, cancel := s.within(ctx)
	defer cancel()
	return s.wrote(f(ctx))
}

// Paused returns why there is no session; nil: there is one.
func (e *Engine) Paused() error { return e.now.Load().reason() }

// Close implements [engine.Engine]. It ends a session as Pause does, but cuts nothing off.
func (e *Engine) Close() error {
	e.changing.Lock()
	defer e.changing.Unlock()
	if e.closed {
		return engine.ErrClosed
	}
	e.closed = true
	s := e.now.Load()
	why := error(engine.ErrClosed)
	s.ended.Store(&why)
	s.cancel()
	return s.close()
}

// begin begins a call in the present session; the caller ends it with s.done.
func (e *Engine) begin(ctx context.Context) (*session, error) {
	s := e.now.Load()
	if err := s.begin(); err != nil {
		return nil, err
	}
	err := ctx.Err()
	if err == nil && e.ready != nil {
		err = e.ready()
	}
	if err != nil {
		s.done()
		return nil, err
	}
	return s, nil
}

// Peek implements [engine.Engine].
func (e *Engine) Peek(ctx context.Context, number uint32, name string) ([]byte, error) {
	s, err := e.begin(ctx)
	if err != nil {
		return nil, err
	}
	defer s.done()
	value, err := s.engine.Peek(ctx, number, name)
	return value, s.read(err)
}

// Checkpoint implements [engine.Checkpointer].
func (e *Engine) Checkpoint(ctx context.Context, dir string, frozen func(raise func(partition, epoch uint32))) error {
	s, err := e.begin(ctx)
	if err != nil {
		return err
	}
	defer s.done()
	c, ok := s.engine.(engine.Checkpointer)
	if !ok {
		return fmt.Errorf("engine: it makes no copies of itself: %w", errors.ErrUnsupported)
	}
	ctx, cancel := s.within(ctx)
	defer cancel()
	return s.wrote(c.Checkpoint(ctx, dir, frozen))
}

// Stats implements [engine.Meter]: zero while the engine is paused.
func (e *Engine) Stats() engine.Stats {
	s := e.now.Load()
	if s.begin() != nil {
		return engine.Stats{}
	}
	defer s.done()
	if m, ok := s.engine.(engine.Meter); ok {
		return m.Stats()
	}
	return engine.Stats{}
}

// session is one stretch of an engine that is open.
type session struct {
	number  uint64
	engine  engine.Engine
	explain func(error) error
	closed  bool            // the engine is; guarded by Engine.changing
	ctx     context.Context // ends with it
	cancel  context.CancelFunc

	calls atomic.Int64          // under way, and rows that pin something
	ended atomic.Pointer[error] // why it ended; nil: it has not
	rest  chan struct{}         // is sent to when the last call of a session that has ended is over

	mu   sync.Mutex
	open map[io.Closer]struct{} // views and cursors
}

func newSession(number uint64, beneath engine.Engine, explain func(error) error) *session {
	s := &session{number: number, engine: beneath, explain: explain, rest: make(chan struct{}, 1), open: map[io.Closer]struct{}{}}
	s.ctx, s.cancel = context.WithCancel(context.Background())
	return s
}

// begin begins a call. It is counted before it looks whether the session has ended, and who ends it looks
// in the other order, so that one of the two sees the other. It waits for nothing: a call inside of
// another is refused, too, once the session has ended.
func (s *session) begin() error {
	s.calls.Add(1)
	if why := s.reason(); why != nil {
		s.done()
		return why
	}
	return nil
}

func (s *session) done() {
	if s.calls.Add(-1) == 0 && s.ended.Load() != nil {
		select {
		case s.rest <- struct{}{}:
		default:
		}
	}
}

func (s *session) reason() error {
	if why := s.ended.Load(); why != nil {
		return *why
	}
	return nil
}

// end ends the session, unless it has ended.
func (s *session) end(why error) {
	s.ended.CompareAndSwap(nil, &why)
	s.cancel()
}

// wrote replaces the success of a write by the reason for which the session has ended meanwhile: what
// the engine was told by its files since then means nothing.
func (s *session) wrote(err error) error {
	if why := s.reason(); why != nil {
		return fmt.Errorf("%w; it is not known whether it was written", why)
	}
	return s.say(err)
}

// read replaces the error of a read that failed because the session has ended meanwhile.
func (s *session) read(err error) error {
	if err == nil {
		return nil
	}
	if why := s.reason(); why != nil {
		return overtaken(why)
	}
	return s.say(err)
}

func (s *session) say(err error) error {
	if err == nil || s.explain == nil {
		return err
	}
	return s.explain(err)
}

// within returns a context that ends with the session as well.
func (s *session) within(ctx context.Context) (context.Context, context.CancelFunc) {
	ctx, cancel := context.WithCancel(ctx)
	stop := context.AfterFunc(s.ctx, cancel)
	return ctx, func() { stop(); cancel() }
}

// close closes the engine of a session that has ended, once. Engine.changing is held.
func (s *session) close() error {
	if s.closed {
		return nil
	}
	s.closed = true
	for s.calls.Load() > 0 {
		<-s.rest
	}
	var errs []error
	for _, views := range []bool{false, true} { // cursors before the views that they are of
		for c := range s.open {
			if _, is := c.(engine.View); is == views {
				errs = append(errs, c.Close())
			}
		}
	}
	clear(s.open)
	return errors.Join(append(errs, s.engine.Close())...)
}

// keep has the end of the session close c, which the caller made in a call.
func (s *session) keep(c io.Closer) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.open[c] = struct{}{}
}

// finish closes c, unless the end of the session does, or did.
func (s *session) finish(c io.Closer) error {
	if s.begin() != nil {
		return nil
	}
	defer s.done()
	s.mu.Lock()
	_, open := s.open[c]
	delete(s.open, c)
	s.mu.Unlock()
	if !open {
		return nil
	}
	return c.Close()
}
