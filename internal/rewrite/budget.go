package rewrite

import (
	"context"
	"sync"
	"time"

	"github.com/blockseal/blockseal/internal/inner"
	"github.com/blockseal/blockseal/keyring"
)

// window is the time that a rate of vault calls is about.
const window = 10 * time.Second

// callsPerRewrap is how many vault calls a DEK takes: an unwrap by the old KEK, a wrap
// by the new one, and an unwrap that proves it.
const callsPerRewrap = 3

// Budget is a token bucket of vault calls: it fills evenly, and holds at most a
// tenth of a window's. It is safe for concurrent use.
type Budget struct {
	keys  *keyring.Keyring
	every time.Duration // between two calls

	mu   sync.Mutex
	next time.Duration // when the next call is free
}

func newBudget(keys *keyring.Keyring, rate int) *Budget {
	return &Budget{keys: keys, every: window / time.Duration(rate), next: keys.For(inner.Block{}).Elapsed() - window/10}
}

// Take waits until n calls may be made.
func (b *Budget) Take(ctx context.Context, n int) error {
	b.mu.Lock()
	now := b.keys.For(inner.Block{}).Elapsed()
	b.next = max(b.next, now-window/10) + time.Duration(n)*b.every
	free := b.next
	b.mu.Unlock()
	if free <= now {
		return ctx.Err()
	}
	return b.keys.For(inner.Block{}).Sleep(ctx, free-now)
}
