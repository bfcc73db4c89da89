package keyring

import (
	"context"
	"errors"
	"fmt"
)

// What a database on top needs inside of a hold, if it is on a server that other processes have too.

// Reload is for a database on top that has learned of something which another keyring on the
// document saves before: when it returns nil, the keyring has what was saved before the call. It
// waits for the storage, and for the vault if the document has another secret.
func (h *holdForBlock) Reload(ctx context.Context) error {
	if err := (*Hold)(h).reload(ctx); err != nil {
		return fmt.Errorf("keyring: %w", ofDocument(err))
	}
	return nil
}

// Within returns a context that ends with ctx, and when the hold's session does: for what the
// holder asks of a server, which may never answer, while a lock waits for the hold. end releases it,
// and returns err, or that the session has ended, with it.
func (h *holdForBlock) Within(ctx context.Context) (_ context.Context, end func(err error) error) {
	r, s := h.r, h.s
	ctx, cancel := context.WithCancel(ctx)
	stop := context.AfterFunc(s.ctx, cancel)
	return ctx, func(err error) error {
		stop()
		cancel()
		switch {
		case err == nil || s.ctx.Err() == nil || errors.Is(err, ErrInaccessible) || errors.Is(err, ErrClosed):
			return err
		case r.ctx.Err() != nil:
			return fmt.Errorf("keyring: %w: %w", ErrClosed, err)
		}
		return fmt.Errorf("%w: %w", r.endedSession(), err)
	}
}
