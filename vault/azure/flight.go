package azure

import (
	"context"
	"sync"
	"time"

	"github.com/blockseal/blockseal/vault"
)

// joinWithin is how long after a call was sent others may still take its answer for
// theirs. It bounds how much older than the question an answer can be.
const joinWithin = time.Second

// flights makes one call of many identical ones that are made together. The call has
// a context of its own, which ends when the last that waits for it has gone: nobody's
// cancellation is another's failure, and nothing goes on for nobody. Calls that go
// first do not wait for one that does not.
type flights[K comparable, V any] struct {
	clock vault.Clock
	mu    sync.Mutex
	calls map[route[K]]*flight[V]
}

type route[K comparable] struct {
	key   K
	first bool // vault.Priority
}

type flight[V any] struct {
	call      *call // nil if it makes other calls and none itself
	waiting   int
	sent      time.Duration // when it was sent; negative before that
	requestID string        // of the last request
	cancel    context.CancelFunc
	done      chan struct{}
	value     V
	err       error
}

func newFlights[K comparable, V any](clock vault.Clock) *flights[K, V] {
	return &flights[K, V]{clock: clock, calls: map[route[K]]*flight[V]{}}
}

// boarding is how a caller gets on a flight: it begins the call, or, if there is one
// already, says why the caller should not wait for that.
type boarding func(have *call) (*call, error)

// do returns the answer of run, which it makes or joins. Each caller gets its own copy
// of the value, by clone; last, if not nil, is called with the value itself when
// everybody has theirs.
func (f *flights[K, V]) do(ctx context.Context, key K, board boarding, run func(context.Context, *call) (V, error),
	clone func(V) V, last func(V)) (V, error) {
	var zero V
	if err := ctx.Err(); err != nil {
		return zero, err
	}
	on := route[K]{key, vault.Priority(ctx)}
	f.mu.Lock()
	c := f.calls[on]
	if c != nil && c.sent >= 0 && f.clock.Elapsed()-c.sent > joinWithin {
		c = nil
	}
	var have *call
	if c != nil {
		have = c.call
	}
	if board != nil {
		var err error
		if have, err = board(have); err != nil {
			f.mu.Unlock()
			return zero, err
		}
	}
	if c == nil {
		c = f.start(ctx, on, have, run)
	}
	c.waiting++
	f.mu.Unlock()

	var err error
	select {
	case <-c.done:
		err = c.err
	case <-ctx.Done():
		err = ctx.Err()
	}
	value := zero
	if err == nil {
		value = clone(c.value)
	}

	f.mu.Lock()
	id := c.requestID
	c.waiting--
	gone := c.waiting == 0
	if gone && f.calls[on] == c {
		delete(f.calls, on)
	}
	f.mu.Unlock()
	vault.NoteRequestID(ctx, id)
	if gone {
		c.cancel()
		if last != nil {
			discard := func() { <-c.done; last(c.value) }
			select {
			case <-c.done:
				discard()
			default: // the call has not noticed yet that nobody waits
				go discard()
			}
		}
	}
	return value, err
}

// start begins a flight. It is called with f.mu held.
func (f *flights[K, V]) start(ctx context.Context, on route[K], cl *call, run func(context.Context, *call) (V, error)) *flight[V] {
	ctx, cancel := context.WithCancel(context.WithoutCancel(ctx))
	c := &flight[V]{call: cl, sent: -1, cancel: cancel, done: make(chan struct{})}
	ctx = vault.OnRequestID(ctx, func(id string) { // those who joined want to know, too
		f.mu.Lock()
		defer f.mu.Unlock()
		c.requestID = id
	})
	if cl == nil {
		c.sent = f.clock.Elapsed()
	} else {
		cl.sent = func() {
			f.mu.Lock()
			defer f.mu.Unlock()
			if c.sent < 0 {
				c.sent = f.clock.Elapsed()
			}
		}
	}
	f.calls[on] = c
	go func() {
		c.value, c.err = run(ctx, cl)
		f.mu.Lock()
		if f.calls[on] == c { // who comes now asks anew
			delete(f.calls, on)
		}
		f.mu.Unlock()
		close(c.done)
	}()
	return c
}
