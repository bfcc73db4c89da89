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

// spawn runs f in the background, unless the store is being closed, and reports
// whether it does.
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

// takeTurn takes one of the store's turns; give it back by receiving from it.
func (t *tasks) takeTurn(ctx context.Context, turn chan struct{}) error {
	select {
	case turn <- struct{}{}:
		return nil
	case <-ctx.Done():
		return ctx.Err()
	case <-t.ctx.Done():
		return ErrClosed
	}
}

// whileOpen returns a context that also ends when the store begins to close, for what
// keeps the engine open and may take long.
func (t *tasks) whileOpen(ctx context.Context) (context.Context, context.CancelFunc) {
	ctx, cancel := context.WithCancel(ctx)
	stop := context.AfterFunc(t.ctx, cancel)
	return ctx, func() { stop(); cancel() }
}

// ending says of what failed because the store is being closed that it is.
func (t *tasks) ending(err error) error {
	if err != nil && t.ctx.Err() != nil {
		return fmt.Errorf("%w: %w", ErrClosed, err)
	}
	return err
}
