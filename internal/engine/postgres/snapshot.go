package postgres

import (
	"context"
	"errors"
	"fmt"
	"math"
	"sync/atomic"
	"time"

	"github.com/jackc/pgx/v5/pgxpool"

	"github.com/blockseal/blockseal/internal/engine"
)

// snapshot is one state of the server, on a connection of its own, in a transaction that reads
// only. Views and cursors share one, which ends with the last of them, with its time, or with its
// connection. It is safe for concurrent use: who asks takes turns.
type snapshot struct {
	e     *Engine
	turn  chan struct{} // holds one element while somebody has the connection
	c     *pgxpool.Conn // under turn
	ended error         // under turn: why there is none
	users atomic.Int64

	ctx    context.Context // ends with the snapshot's time
	cancel context.CancelCauseFunc
	stop   func() bool // of what ends it
}

// beginSnapshot is the begin of one. Its first statement decides what it sees. A process that
// stops, and whose connection nobody closes, holds the server up for no longer either. A statement that fails
// ends nothing before the savepoint, and so not the state that is seen.
const beginSnapshot = `begin isolation level repeatable read read only;
set local idle_in_transaction_session_timeout = %d;
` + byIndex + `;
select 1;
savepoint seen`

// beginTimes is how much longer than its life the server leaves a snapshot that nobody asks for
// anything.
const beginTimes = 2

// rollbackTime is how long the end of a snapshot may take, before its connection is closed.
const rollbackTime = 10 * time.Second

var errLife = errors.New("its time is over")

// snapshot begins one, with one user.
func (e *Engine) snapshot(ctx context.Context) (*snapshot, error) {
	select {
	case e.views <- struct{}{}:
	case <-ctx.Done():
		return nil, ctx.Err()
	}
	s := &snapshot{e: e, turn: make(chan struct{}, 1)}
	begin := fmt.Sprintf(beginSnapshot, min(max(1, beginTimes*e.viewLife.Milliseconds()), math.MaxInt32))
	err := e.readOn(ctx, func(c *pgxpool.Conn) (keep bool, err error) {
		_, err = c.Conn().PgConn().Exec(ctx, begin).ReadAll()
		if err == nil {
			s.c = c
		}
		return err == nil, err
	})
	if err != nil {
		<-e.views
		return nil, err
	}
	s.users.Store(1)
	s.ctx, s.cancel = context.WithCancelCause(context.Background())
	s.turn <- struct{}{} // until s.stop is there
	s.stop = e.afterFunc(e.viewLife, s.expire)
	<-s.turn
	return s, nil
}

// expire ends a snapshot whose time is over: what it is asked now ends with an error.
func (s *snapshot) expire() {
	s.cancel(errLife)
	s.turn <- struct{}{}
	defer func() { <-s.turn }()
	s.end(fmt.Errorf("%w: %v are over", engine.ErrViewEnded, s.e.viewLife))
}

// end lets go of the connection. The turn is the caller's.
func (s *snapshot) end(why error) {
	if s.c == nil {
		return
	}
	s.ended = why
	if s.ctx.Err() != nil {
		_ = s.c.Conn().Close(s.ctx) // at once
	} else if !s.c.Conn().IsClosed() {
		ctx, cancel := context.WithTimeout(context.Background(), rollbackTime)
		if _, err := s.c.Exec(ctx, `rollback`); err != nil {
			_ = s.c.Conn().Close(ctx)
		}
		cancel()
	}
	s.c.Release()
	s.c = nil
	<-s.e.views
}

// use counts another user, each of which calls done once.
func (s *snapshot) use() { s.users.Add(1) }

func (s *snapshot) done() {
	if s.users.Add(-1) > 0 {
		return
	}
	s.turn <- struct{}{}
	s.stop()
	s.end(fmt.Errorf("%w: it was closed", engine.ErrViewEnded))
	<-s.turn
	s.cancel(nil)
}

// do calls f with the connection. It waits for its turn until ctx ends; what f asks the server is
// asked with the context that it is given, so that one user's end is not that of the others. If somebody who
// shares the pool had taken away what was prepared, f is called again: the driver has prepared it anew by then.
func (s *snapshot) do(ctx context.Context, f func(ctx context.Context, c *pgxpool.Conn) error) error {
	select {
	case s.turn <- struct{}{}:
	case <-ctx.Done():
		return ctx.Err()
	}
	defer func() { <-s.turn }()
	if s.e.closed.Load() {
		return engine.ErrClosed
	}
	if s.c == nil {
		return s.ended
	}
	err := f(s.ctx, s.c)
	if code(err) == codeNoStatement {
		if _, e := s.c.Conn().PgConn().Exec(s.ctx, `rollback to savepoint seen`).ReadAll(); e == nil {
			err = f(s.ctx, s.c)
		}
	}
	if err == nil || errors.Is(err, engine.ErrNotFound) {
		return err
	}
	// The transaction has failed, or its connection.
	why := fmt.Errorf("%w: %w", engine.ErrViewEnded, translate(err))
	if context.Cause(s.ctx) == errLife {
		why = fmt.Errorf("%w: %v are over", engine.ErrViewEnded, s.e.viewLife)
	}
	s.end(why)
	return why
}

// view is a partition at one moment.
type view struct {
	p    *partition
	s    *snapshot
	shut atomic.Bool
}

// View implements [engine.Partition]. It waits while as many views and cursors are open as may be.
func (p *partition) View(ctx context.Context) (engine.View, error) {
	if err := p.e.ready(ctx); err != nil {
		return nil, err
	}
	s, err := p.e.snapshot(ctx)
	if err != nil {
		return nil, err
	}
	return &view{p: p, s: s}, nil
}

// Get implements [engine.Reader]. ctx may end while it waits for others who read the view, and not
// the answer of the server.
func (v *view) Get(ctx context.Context, id []byte, want engine.Parts, row *engine.Row) error {
	h := holdFor(row)
	if err := v.p.e.ready(ctx); err != nil {
		return err
	}
	return v.s.do(ctx, func(ctx context.Context, c *pgxpool.Conn) error { return v.p.get(ctx, c, id, want, row, h) })
}

// Cursor implements [engine.Reader].
func (v *view) Cursor(ctx context.Context, part engine.Parts, lower, upper []byte) (engine.Cursor, error) {
	if err := v.p.e.ready(ctx); err != nil {
		return nil, err
	}
	v.s.use()
	return newCursor(v.p, v.s, part, lower, upper), nil
}

// Close implements [engine.View].
func (v *view) Close() error {
	if !v.shut.Swap(true) {
		v.s.done()
	}
	return nil
}
