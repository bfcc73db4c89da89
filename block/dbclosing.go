package block

import (
	"context"
	"errors"
	"fmt"
)

// whileOpen returns a context that also ends when the DB begins to close: for long work that keeps
// the engine open.
func (d *DB) whileOpen(ctx context.Context) (context.Context, context.CancelFunc) {
	ctx, cancel := context.WithCancel(ctx)
	stop := context.AfterFunc(d.closes, cancel)
	return ctx, func() { stop(); cancel() }
}

// ending adds ErrClosed to an error, if the DB has begun to close.
func (d *DB) ending(err error) error {
	if err != nil && d.closes.Err() != nil && !errors.Is(err, ErrClosed) {
		return fmt.Errorf("%w: %w", ErrClosed, err)
	}
	return err
}
