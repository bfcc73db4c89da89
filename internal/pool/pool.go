// Package pool keeps things open that are dear to open, under names: each is opened when it is
// first asked for, shared by all who use it, and closed when nobody has used it for a while or
// when another one needs its place.
package pool

import (
	"container/list"
	"context"
	"errors"
	"fmt"
	"sync"
	"time"
)

var (
	// ErrClosed says that the pool was closed.
	ErrClosed = errors.New("pool: closed")
	// ErrInUse says that something is open already, and somebody uses it.
	ErrInUse = errors.New("pool: in use")
)

// Options configure a Pool. All fields are required.
type Options[T comparable] struct {
	// Prepare finds out how something is opened. What is opened in the same lane waits for the
	// same somebody else.
	Prepare func(ctx context.Context, name string) (Way[T], error)
	// Close closes what nobody uses any more.
	Close func(T) error

	Most    int           // how many are open at once, with those that are being opened or closed
	Idle    time.Duration // how long one stays open that nobody uses
	Opening int           // how many are being opened at once, of all lanes
	Clock   Clock
}

// Clock is what a pool needs of a clock.
type Clock interface {
	Elapsed() time.Duration
	AfterFunc(d time.Duration, f func()) (stop func() bool)
}

// Way is how something is opened.
type Way[T any] struct {
	Lane string
	// Open opens it. silent says that the lane's somebody did not answer: then one at a time is
	// opened in that lane, until another one does.
	Open func(ctx context.Context) (value T, silent bool, err error)
}

// Pool is safe for concurrent use.
type Pool[T comparable] struct {
	o Options[T]

	mu      sync.Mutex
	closed  bool
	entries map[string]*entry[T]
	waiting list.List // of *entry, that wait for their turn to be opened
	idle    list.List // of *entry, that nobody uses, the one that was used last at the end
	held    int       // entries that count for Most
	opening int       // entries that are being opened
	closing int       // entries that are being closed
	lanes   map[string]*lane
	stop    func() bool    // of the timer for the first of idle; nil without one
	work    sync.WaitGroup // goroutines
}

// lane is those who wait for the same somebody else.
type lane struct {
	opening int
	silent  bool
}

type state uint8

const (
	preparing state = iota // or waiting for its turn, or being opened
	open
	closing
)

// entry is something that is open, or is about to be, or was.
type entry[T comparable] struct {
	name    string
	is      state
	counted bool // in held
	value   T
	err     error
	users   int // or, until it is open, who waits for it
	// owned: it was opened by Own, and is closed by whoever did.
	owned bool
	way   Way[T]
	at    *list.Element // in waiting or in idle
	used  time.Duration // when its last user let go of it

	abandoned bool // nobody waited for it any more when it was being opened
	cancel    context.CancelFunc
	ready     chan struct{} // closed when it is open, or is not going to be
	gone      chan struct{} // closed when it is no entry any more
}

// New returns an empty pool.
func New[T comparable](o Options[T]) *Pool[T] {
	return &Pool[T]{o: o, entries: map[string]*entry[T]{}, lanes: map[string]*lane{}}
}

// Acquire returns what is open under a name, having opened it if need be, and keeps it open
// until release is called. It waits while as many are open as may be and all are used: who holds
// some and waits for another one may wait for somebody who does the same, until ctx ends. To
// release twice does nothing.
func (p *Pool[T]) Acquire(ctx context.Context, name string) (value T, release func(), err error) {
	for {
		var zero T
		if err := ctx.Err(); err != nil {
			return zero, nil, err
		}
		p.mu.Lock()
		if p.closed {
			p.mu.Unlock()
			return zero, nil, ErrClosed
		}
		e := p.entries[name]
		switch {
		case e == nil:
			e = p.enter(name)
			e.users = 1
			openCtx, cancel := context.WithCancel(context.WithoutCancel(ctx))
			e.cancel = cancel
			p.work.Go(func() { p.prepare(openCtx, e) })
		case e.is == closing:
			p.mu.Unlock()
			select {
			case <-e.gone:
			case <-ctx.Done():
			}
			continue
		case e.is == open:
			p.use(e)
			p.mu.Unlock()
			return e.value, p.releaser(e), nil
		default:
			e.users++
		}
		p.mu.Unlock()
		select {
		case <-e.ready:
		case <-ctx.Done():
			p.leave(e)
			return zero, nil, ctx.Err()
		}
		if e.err == nil {
			return e.value, p.releaser(e), nil
		}
		if !e.abandoned && !e.owned {
			return zero, nil, e.err
		} // else it was given up before this one came to wait for it, or it is Own's caller who has failed
	}
}

// Own opens something that stays open until whoever called closes it, and says so by Closed. It
// does not count for Most. Others who ask for it share it. If it is open and nobody uses it, it is
// closed first; ErrInUse says that it is used, or is being opened.
func (p *Pool[T]) Own(ctx context.Context, name string, opening func(ctx context.Context) (T, error)) (value T, err error) {
	return p.own(ctx, name, true, opening)
}

// OwnNew is Own for what is not there before: what is open stays open, used or not, and is ErrInUse.
func (p *Pool[T]) OwnNew(ctx context.Context, name string, opening func(ctx context.Context) (T, error)) (value T, err error) {
	return p.own(ctx, name, false, opening)
}

func (p *Pool[T]) own(ctx context.Context, name string, closeIdle bool, opening func(ctx context.Context) (T, error)) (value T, err error) {
	for {
		p.mu.Lock()
		e := p.entries[name]
		switch {
		case p.closed:
			p.mu.Unlock()
			return value, ErrClosed
		case e == nil:
			e = p.enter(name)
			e.owned = true
			ctx, e.cancel = context.WithCancel(ctx)
			p.work.Add(1)
			p.mu.Unlock()
			defer p.work.Done()
			value, err := opening(ctx)
			if err := p.opened(e, value, false, err); err != nil {
				var none T
				return none, err
			}
			return value, nil
		case closeIdle && e.is == open && e.users == 0 && !e.owned:
			p.beginClosing(e)
		case e.is != closing:
			p.mu.Unlock()
			return value, fmt.Errorf("%w: %q", ErrInUse, name)
		}
		p.mu.Unlock()
		select {
		case <-e.gone:
		case <-ctx.Done():
			return value, ctx.Err()
		}
	}
}

// Closed says that something was closed by whoever uses it: it is opened anew when it is asked
// for again.
func (p *Pool[T]) Closed(name string, value T) {
	p.mu.Lock()
	defer p.mu.Unlock()
	if e := p.entries[name]; e != nil && e.is == open && e.value == value {
		p.remove(e)
		p.pump()
	}
}

// Evict closes something, whether it is used or not, and refuses it to everybody who asks until
// again is called. It waits for one that is being opened, or ends with ctx.
func (p *Pool[T]) Evict(ctx context.Context, name string) (again func(), err error) {
	for {
		p.mu.Lock()
		e := p.entries[name]
		switch {
		case p.closed:
			p.mu.Unlock()
			return nil, ErrClosed
		case e == nil:
			again = p.keepShut(name)
			p.mu.Unlock()
			return again, nil
		case e.is == open:
			p.beginClosing(e)
		}
		wait := e.gone
		if e.is == preparing {
			wait = e.ready
		}
		p.mu.Unlock()
		select {
		case <-wait:
		case <-ctx.Done():
			return nil, ctx.Err()
		}
	}
}

// Reserve keeps something that is not open from being opened until again is called. ErrInUse says
// that it is open, or is being opened or closed.
func (p *Pool[T]) Reserve(name string) (again func(), err error) {
	p.mu.Lock()
	defer p.mu.Unlock()
	switch {
	case p.closed:
		return nil, ErrClosed
	case p.entries[name] != nil:
		return nil, fmt.Errorf("%w: %q", ErrInUse, name)
	}
	return p.keepShut(name), nil
}

// Await waits until something that is being opened or closed is open, or is not any more.
func (p *Pool[T]) Await(ctx context.Context, name string) {
	p.mu.Lock()
	e := p.entries[name]
	there := e == nil || e.is == open
	p.mu.Unlock()
	if there {
		return
	}
	select {
	case <-e.ready:
	case <-e.gone:
	case <-ctx.Done():
	}
}

// keepShut makes an entry that nobody can open. p.mu is held.
func (p *Pool[T]) keepShut(name string) (again func()) {
	e := p.enter(name)
	e.is = closing
	return func() {
		p.mu.Lock()
		defer p.mu.Unlock()
		p.remove(e)
	}
}

// Close closes everything, used or not, refuses everybody, and waits until all is done. It returns
// the errors of what it closed.
func (p *Pool[T]) Close() error {
	p.mu.Lock()
	p.closed = true
	var values []T
	for _, e := range p.entries {
		switch e.is {
		case open:
			values = append(values, e.value)
			p.remove(e)
		case preparing:
			e.cancel()
			if e.at != nil {
				p.fail(e, ErrClosed)
			}
		}
	}
	if p.stop != nil {
		p.stop()
		p.stop = nil
	}
	p.mu.Unlock()
	errs := make([]error, len(values))
	var all sync.WaitGroup
	turns := make(chan struct{}, p.o.Opening)
	for i, v := range values {
		turns <- struct{}{}
		all.Go(func() {
			defer func() { <-turns }()
			errs[i] = p.o.Close(v)
		})
	}
	all.Wait()
	p.work.Wait()
	return errors.Join(errs...)
}

// Each calls f with everything that is open, while nothing is opened or closed.
func (p *Pool[T]) Each(f func(name string, value T)) {
	p.mu.Lock()
	defer p.mu.Unlock()
	for _, e := range p.entries {
		if e.is == open {
			f(e.name, e.value)
		}
	}
}
