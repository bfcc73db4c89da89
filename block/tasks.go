package block

import (
	"context"
	"fmt"
	"sync"
)

// tasks is what a store does in the background, under ctx, which ends when the store begins to
// close.
type tasks struct {
	ctx      context.Context
	cancel   context.CancelFunc
	spawning sync.Mutex // orders the start of background work and Close
	running  sync.WaitGroup
}

func (t *tasks) begin() { t.ctx, t.cancel = context.WithCancel(context.Background()) }

// spawn runs f in the background, or returns false if the store has begun to close.
func (t *tasks) spawn(f func()) bool {
	t.spawning.Lock()
	defer t.spawning.Unlock()
	if t.ctx.Err() != nil {
		return false
	}
	t.running.Go(f)
	return true
}

// end ends the background work, and waits for it.
func (t *tasks) end() {
	t.spawning.Lock()
	t.cancel()
	t.spawning.Unlock()
	t.running.Wait()
}

// acquireTurn acquires one of the store's turns; receiving from turn releases it.
func (t *tasks) acquireTurn(ctx context.Context, turn chan struct{}) error {
	select {
	case turn <- struct{}{}:
		return nil
	case <-ctx.Done():
		return ctx.Err()
	case <-t.ctx.Done():
		return ErrClosed
	}
}

// whileOpen returns a context that also ends when the store begins to close: for long work that
// keeps the engine open.
func (t *tasks) whileOpen(ctx context.Context) (context.Context, context.CancelFunc) {
	ctx, cancel := context.WithCancel(ctx)
	stop := context.AfterFunc(t.ctx, cancel)
	return ctx, func() { stop(); cancel() }
}

// ending adds ErrClosed to an error, if the store has begun to close.
func (t *tasks) ending(err error) error {
	if err != nil && t.ctx.Err() != nil {
		return fmt.Errorf("%w: %w", ErrClosed, err)
	}
	return err
}
