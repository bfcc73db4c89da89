package keyring

import (
	"container/list"
	"context"
	"crypto/sha256"
	"errors"
	"sync"

	"github.com/blockseal/blockseal/dek"
)

// dekCache holds DEKs that the vault opened (ByKEK), so that a block that is read
// again costs no call. It belongs to a session and ends with it. It is asked only
// after the record around a wrapped DEK has authenticated for its block, and by all that
// is in it (inner, see commit.go). It is safe for concurrent use.
type dekCache struct {
	mu      sync.Mutex
	size    int
	order   *list.List // of *cached, most recently used first
	entries map[[sha256.Size]byte]*list.Element
	flights map[[sha256.Size]byte]*flight
	over    bool // destroyed: the session ended
}

type cached struct {
	name [sha256.Size]byte // of what the record holds of it
	key  [dek.Size]byte
}

// flight is one call to the vault that several callers wait for.
type flight struct {
	done    chan struct{}
	waiters int
	secret  []byte // each waiter takes a copy; the last one clears it
	err     error
}

func newDEKCache(size int) *dekCache {
	return &dekCache{
		size:    max(size, 0),
		order:   list.New(),
		entries: map[[sha256.Size]byte]*list.Element{},
		flights: map[[sha256.Size]byte]*flight{},
	}
}

// get makes k the DEK of inner if it is cached.
func (c *dekCache) get(inner []byte, k *dek.Key) bool {
	name := sha256.Sum256(inner)
	c.mu.Lock()
	defer c.mu.Unlock()
	el, ok := c.entries[name]
	if !ok {
		return false
	}
	c.order.MoveToFront(el)
	return k.Set(el.Value.(*cached).key[:]) == nil
}

// put remembers the DEK of inner. The caller holds the session.
func (c *dekCache) put(inner, key []byte) {
	name := sha256.Sum256(inner)
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.over || c.size == 0 || c.entries[name] != nil {
		return
	}
	e := &cached{name: name}
	copy(e.key[:], key)
	c.entries[name] = c.order.PushFront(e)
	for c.order.Len() > c.size {
		c.drop(c.order.Back())
	}
}

func (c *dekCache) drop(el *list.Element) {
	e := c.order.Remove(el).(*cached)
	clear(e.key[:])
	delete(c.entries, e.name)
}

// once calls open for inner, or waits for a call that another goroutine
// already makes for it: many readers of one cold block cost one unwrap. The call
// runs under the context of whoever came first; if that one gives up, the others
// try for themselves. The caller clears the result.
func (c *dekCache) once(ctx context.Context, inner []byte, open func(context.Context) ([]byte, error)) ([]byte, error) {
	name := sha256.Sum256(inner)
	for {
		c.mu.Lock()
		f, ok := c.flights[name]
		if !ok {
			f = &flight{done: make(chan struct{})}
			c.flights[name] = f
			c.mu.Unlock()
			secret, err := open(ctx)
			c.mu.Lock()
			delete(c.flights, name)
			if f.waiters > 0 {
				f.secret = append([]byte(nil), secret...)
			}
			f.err = err
			c.mu.Unlock()
			close(f.done)
			return secret, err
		}
		f.waiters++
		c.mu.Unlock()

		select {
		case <-f.done:
		case <-ctx.Done():
			c.leave(f)
			return nil, ctx.Err()
		}
		if ctx.Err() == nil && (errors.Is(f.err, context.Canceled) || errors.Is(f.err, context.DeadlineExceeded)) {
			c.leave(f)
			continue
		}
		secret, err := append([]byte(nil), f.secret...), f.err
		c.leave(f)
		return secret, err
	}
}

// leave is a waiter's last use of a flight.
func (c *dekCache) leave(f *flight) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if f.waiters--; f.waiters == 0 {
		clear(f.secret)
	}
}

func (c *dekCache) destroy() {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.over = true
	for c.order.Len() > 0 {
		c.drop(c.order.Back())
	}
}
