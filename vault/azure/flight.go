package azure

import (
	"context"
	"sync"
	"time"
)

// joinWithin is how long after a call was sent others may still take its answer for
// theirs. It bounds how much older than the question an answer can be.
const joinWithin = time.Second

// flights makes one call of many identical ones that are made together. The call has
// a context of its own, which ends when the last that waits for it has gone: nobody's
// cancellation is another's failure, and nothing goes on for nobody.
type flights[K comparable, V any] struct {
	clock Clock
	mu    sync.Mutex
	calls map[K]*flight[V]
}

type flight[V any] struct {
	waiting int
	sent    time.Duration // when it was sent; negative before that
	cancel  context.CancelFunc
	done    chan struct{}
	value   V
	err     error
}

func newFlights[K comparable, V any](clock Clock) *flights[K, V] {
	return &flights[K, V]{clock: clock, calls: map[K]*flight[V]{}}
}

// do returns the answer of call, which it makes or joins. call reports when it sends
// its request. Each caller gets its own copy of the value, by clone; last, if not
// nil, is called with the value itself when everybody has theirs.
func (f *flights[K, V]) do(ctx context.Context, key K, call func(ctx context.Context, sent func()) (V, error),
	clone func(V) V, last func(V)) (V, error) {
	var zero V
	if err := ctx.Err(); err != nil {
		return zero, err
	}
	f.mu.Lock()
	c := f.calls[key]
	if c == nil || c.sent >= 0 && f.clock.Elapsed()-c.sent > joinWithin {
		c = f.start(ctx, key, call)
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
	c.waiting--
	gone := c.waiting == 0
	if gone && f.calls[key] == c {
		delete(f.calls, key)
	}
	f.mu.Unlock()
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

// start begins a call. It is called with f.mu held.
func (f *flights[K, V]) start(ctx context.Context, key K, call func(context.Context, func()) (V, error)) *flight[V] {
	ctx, cancel := context.WithCancel(context.WithoutCancel(ctx))
	c := &flight[V]{sent: -1, cancel: cancel, done: make(chan struct{})}
	f.calls[key] = c
	go func() {
		c.value, c.err = call(ctx, func() {
			f.mu.Lock()
			defer f.mu.Unlock()
			if c.sent < 0 {
				c.sent = f.clock.Elapsed()
			}
		})
		f.mu.Lock()
		if f.calls[key] == c { // who comes now asks anew
			delete(f.calls, key)
		}
		f.mu.Unlock()
		close(c.done)
	}()
	return c
}
