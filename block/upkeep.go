package block

import (
	"context"
	"errors"
	"fmt"
	"sync"
	"time"

	"github.com/blockseal/blockseal/internal/inner"
	"github.com/blockseal/blockseal/keyring"
)

// upkeepEvery is how often the store looks whether there is something to do by itself, besides when
// hurry is called. After a failure it waits twice as long each time, up to upkeepMost. While it is
// Inaccessible it only looks, as often, whether that is still so: it relies on no event.
const (
	upkeepEvery = time.Minute
	upkeepMost  = time.Hour
)

// upkeep is what the store does by itself, each on a goroutine of its own: rewrapping DEKs of an
// older KEK, replacing DEKs that are too old, and moving copies to the KEK that wraps the store.
type upkeep struct{ rewrap, renew, copies chan struct{} }

func newUpkeep() upkeep {
	return upkeep{rewrap: make(chan struct{}, 1), renew: make(chan struct{}, 1), copies: make(chan struct{}, 1)}
}

// startUpkeep starts upkeep. A read-only store has none.
func (s *Store) startUpkeep() {
	if s.opts.ReadOnly || s.opts.atRest {
		return
	}
	s.spawn(func() { s.keepUp(s.upkeep.renew, s.rewriter.Renew) })
	s.spawn(func() { s.keepUp(s.upkeep.copies, s.followWithCopies) })
	if !s.opts.ManualRewrap {
		s.spawn(func() { s.keepUp(s.upkeep.rewrap, s.followWithDEKs) })
	}
}

// hurry has upkeep look now.
func (u *upkeep) hurry() {
	for _, c := range []chan struct{}{u.rewrap, u.renew, u.copies} {
		select {
		case c <- struct{}{}:
		default: // it is about to look, or has ended
		}
	}
}

// keepUp runs f again and again until the store is closed.
func (s *Store) keepUp(hurry <-chan struct{}, f func(context.Context) error) {
	wait := upkeepEvery
	for s.ctx.Err() == nil {
		if s.keys.State().Status == keyring.Inaccessible {
			s.waitFor(hurry, upkeepEvery)
			continue
		}
		err := f(s.ctx)
		switch {
		case s.ctx.Err() != nil:
			return
		case err == nil || s.keys.State().Status == keyring.Inaccessible:
			wait = upkeepEvery
		default:
			if !errors.Is(err, errTold) {
				s.keys.For(inner.Block{}).Emit(keyring.Event{Kind: keyring.Progressed, Detail: "what the store does by itself failed, and is tried again", Err: err})
			}
			wait = min(2*wait, upkeepMost)
		}
		s.waitFor(hurry, wait)
	}
}

// waitFor waits until d has elapsed on the keyring's clock, hurry is sent to, or the store is
// closed.
func (s *Store) waitFor(hurry <-chan struct{}, d time.Duration) {
	rang := make(chan struct{})
	defer s.keys.For(inner.Block{}).AfterFunc(d, func() { close(rang) })()
	select {
	case <-rang:
	case <-hurry:
	case <-s.ctx.Done():
	}
}

// followWithDEKs rewraps the DEKs of an older KEK, if there are any.
func (s *Store) followWithDEKs(ctx context.Context) error {
	if keks, _ := s.keys.KEKs(); len(keks) == 1 {
		return nil
	}
	start := s.keys.For(inner.Block{}).Elapsed()
	err := s.RewrapDEKs(ctx, nil)
	if err == nil {
		s.keys.For(inner.Block{}).Emit(keyring.Event{Kind: keyring.Progressed, Detail: "rewrapped the DEKs of an older KEK version",
			Duration: s.keys.For(inner.Block{}).Elapsed() - start})
	}
	return err
}

// Policy returns the policy in the keyring document; see [keyring.Keyring.Policy].
func (s *Store) Policy() keyring.Policy { return s.keys.Policy() }

// tasks is what a store, or a DB, does in the background, under ctx, which ends when it begins to
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
	if err != nil && t.ctx.Err() != nil && !errors.Is(err, ErrClosed) {
		return fmt.Errorf("%w: %w", ErrClosed, err)
	}
	return err
}
