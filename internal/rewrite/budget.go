package rewrite

import (
	"context"
	"sync"
	"time"

	"github.com/blockseal/blockseal/internal/inner"
	"github.com/blockseal/blockseal/keyring"
)

// window is the time that a rate of vault calls refers to.
const window = 10 * time.Second

// callsPerRewrap is the number of vault calls for a DEK: an unwrap by the old KEK, a wrap by the
// new one, and an unwrap that proves it.
const callsPerRewrap = 3

// Budget is a token bucket of vault calls. It fills evenly and holds the calls of a tenth of a
// window at most. It is safe for concurrent use.
type Budget struct {
	keys  *keyring.Keyring
	every time.Duration

	mu   sync.Mutex
	next time.Duration
}

func newBudget(keys *keyring.Keyring, rate int) *Budget {
	return &Budget{keys: keys, every: window / time.Duration(rate), next: keys.For(inner.Block{}).Elapsed() - window/10}
}

// Wait waits until n calls may be made.
func (b *Budget) Wait(ctx context.Context, n int) error {
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
