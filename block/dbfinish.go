package block

import (
	"context"
	"errors"
	"fmt"
	"log/slog"

	"github.com/blockseal/blockseal/internal/catalogue"
	"github.com/blockseal/blockseal/internal/engine"
	"github.com/blockseal/blockseal/internal/register"
	"github.com/blockseal/blockseal/internal/row"
)

// finish does what was left unfinished: drops, and creations of which no store has come.
func (d *DB) finish(ctx context.Context) error {
	if d.opts.ReadOnly {
		return nil
	}
	left, err := d.catalogue.Unfinished(ctx)
	if err != nil {
		return fmt.Errorf("block: open %s: %w", d.place.Dir(), row.Damage(err))
	}
	for _, e := range left {
		there, err := d.there(ctx, e)
		if err == nil {
			err = d.named(ctx, e)
		}
		switch {
		case errors.Is(err, ErrForeign): // somebody made that entry, and nothing is done for it
			continue
		case err != nil && !errors.Is(err, ErrCorrupt):
		case e.State == catalogue.Dropping:
			_, err = d.finishDrop(ctx, e)
			if errors.Is(err, catalogue.ErrMoved) { // somebody else has finished it
				err = nil
			}
		case there:
			err = d.present(ctx, e)
		case d.shared:
			continue // somebody may be making it
		default:
			err = d.abandon(ctx, e)
		}
		if ctx.Err() != nil {
			return fmt.Errorf("block: open %s: finish what was left of store %q: %w", d.place.Dir(), e.Name, ctx.Err())
		}
		if err != nil {
			// It is no store all the same, and the others have nothing to do with it.
			d.log(slog.LevelError, "what was left of a store was not finished; it is tried again when the DB is opened", e.Name, row.Damage(err))
		}
	}
	return nil
}

// there reports whether there is a store: its document is there.
func (d *DB) there(ctx context.Context, e catalogue.Entry) (bool, error) {
	_, err := d.document(ctx, e.Number)
	if errors.Is(err, engine.ErrNotFound) {
		return false, nil
	}
	return err == nil, err
}

// document reads the keyring document of a store that may be open.
func (d *DB) document(ctx context.Context, number uint32) ([]byte, error) {
	return d.engine.Peek(ctx, number, register.DocumentName)
}

// abandon removes the entry of a store whose creation has come to nothing.
func (d *DB) abandon(ctx context.Context, e catalogue.Entry) error {
	p := d.engine.Partition(e.Number)
	defer p.Release()
	if some, err := engine.HoldsAnything(ctx, p); err != nil {
		return err
	} else if some {
		if err := p.Clear(ctx); err != nil {
			return err
		}
	}
	return d.catalogue.Remove(ctx, e)
}
