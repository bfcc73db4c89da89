package keyring

import (
	"context"
	"errors"
	"fmt"
)

// A change of the document waits for the storage, which may take long: for a disk, or for the
// lock of a process that was stopped. Whoever only looks at the document, as a check does that is
// to hear a vault's no, must not wait with it. So who changes it has the turn of changes all the
// while, and docMu but for the swap; and no turn lasts longer than a call to the vault may.

// changing is a turn of changes.
type changing struct {
	// ctx ends with the caller's, with the session that the turn was taken in, and after
	// Options.VaultTimeout, in which the wait for the turn counts. It does not end when Close ends
	// the session, which waits for the operations in flight; without a session it does.
	ctx context.Context
	// end gives docMu and the turn back.
	end func()
}

// changing takes the turn of changes, and docMu, for the session s; nil: there is none.
func (r *Keyring) changing(ctx context.Context, s *session) (c changing, err error) {
	ctx, cancel := context.WithCancelCause(ctx)
	stopTimer := r.clock.AfterFunc(r.opts.VaultTimeout, func() { cancel(r.slowStorage()) })
	var stop func() bool
	if s == nil {
		stop = context.AfterFunc(r.ctx, func() { cancel(fmt.Errorf("keyring: %w", ErrClosed)) })
	} else {
		stop = context.AfterFunc(s.ctx, func() {
			if r.ctx.Err() == nil {
				cancel(errLockedMeanwhile)
			}
		})
	}
	forget := func() {
		stopTimer()
		stop()
		cancel(nil)
	}
	if err = ctx.Err(); err == nil {
		select {
		case r.changes <- struct{}{}:
			r.docMu.Lock()
			return changing{ctx, func() { r.docMu.Unlock(); <-r.changes; forget() }}, nil
		case <-ctx.Done():
			err = ctx.Err()
		}
	}
	err = r.whyEnded(ctx, err)
	forget()
	return changing{}, err
}

// slowError says that a storage took longer than it may.
type slowError struct{ text string }

func (e *slowError) Error() string { return e.text }

func (r *Keyring) slowStorage() error {
	return &slowError{fmt.Sprintf("the storage did not answer within %v, the keyring's Options.VaultTimeout", r.opts.VaultTimeout)}
}

// whyEnded is the error of something that may have ended because ctx, of changing, did.
func (r *Keyring) whyEnded(ctx context.Context, err error) error {
	cause := context.Cause(ctx)
	var slow *slowError
	switch {
	case cause == nil || errors.Is(err, ErrConflict):
		return err
	case errors.Is(cause, errLockedMeanwhile):
		return fmt.Errorf("%w: %w", err, r.endedSession())
	case errors.As(cause, &slow):
		return fmt.Errorf("%w: %v", slow, err)
	case errors.Is(cause, ErrClosed):
		return fmt.Errorf("%w: %w", err, cause)
	}
	return err
}
