package block

import (
	"context"
	"errors"
	"fmt"
	"iter"

	"github.com/blockseal/blockseal/internal/catalogue"
	"github.com/blockseal/blockseal/internal/engine"
	"github.com/blockseal/blockseal/internal/row"
	"github.com/blockseal/blockseal/keyring"
	"github.com/blockseal/blockseal/vault"
)

// find returns the entry of a store, or ErrNoStore.
func (d *DB) find(ctx context.Context, name string) (catalogue.Entry, error) {
	e, err := d.catalogue.Find(ctx, name)
	switch {
	case err != nil:
		return e, row.Damage(err)
	case e.State == catalogue.Dropping:
		return e, fmt.Errorf("%w: it is being dropped", ErrNoStore)
	case e.State == catalogue.Creating:
		if there, err := d.there(ctx, e); err != nil {
			return e, row.Damage(err)
		} else if !there {
			return e, fmt.Errorf("%w: its creation was not finished", ErrNoStore)
		}
	}
	return e, d.named(ctx, e)
}

// StoreInfo is what a store in a DB says of itself without a key. It is not authentic.
type StoreInfo struct {
	Name       string          `json:"name"`
	ID         keyring.StoreID `json:"id"`
	KEK        vault.KeyID     `json:"kek"`
	Generation uint64          `json:"generation"` // of its keyring document
}

// Stores walks the stores, in an order that means nothing, without a key or a vault. Of one that
// cannot be read it gives an error, with the name where that is known, and goes on.
func (d *DB) Stores(ctx context.Context) iter.Seq2[StoreInfo, error] {
	return func(yield func(StoreInfo, error) bool) {
		if err := d.use.Begin(); err != nil {
			yield(StoreInfo{}, fmt.Errorf("block: stores: %w", ErrClosed))
			return
		}
		defer d.use.End()
		stop := errors.New("stop")
		err := d.catalogue.Each(ctx, func(e catalogue.Entry, err error) error {
			if err == nil && e.State == catalogue.Dropping {
				return nil
			}
			info := StoreInfo{Name: e.Name}
			if err == nil {
				err = d.describe(ctx, e, &info)
			}
			if err == nil {
				err = d.named(ctx, e)
			}
			if errors.Is(err, ErrNoStore) {
				return nil
			}
			if err != nil {
				err = fmt.Errorf("block: stores: %q: %w", e.Name, row.Damage(err))
			}
			if !yield(info, err) {
				return stop
			}
			return ctx.Err()
		})
		if err != nil && !errors.Is(err, stop) {
			yield(StoreInfo{}, fmt.Errorf("block: stores: %w", row.Damage(err)))
		}
	}
}

func (d *DB) describe(ctx context.Context, e catalogue.Entry, info *StoreInfo) error {
	doc, err := d.document(ctx, e.Number)
	if errors.Is(err, engine.ErrNotFound) {
		if e.State == catalogue.Creating {
			return ErrNoStore
		}
		return fmt.Errorf("its keyring document is missing: %w", ErrCorrupt)
	}
	if err != nil {
		return err
	}
	in, err := keyring.Inspect(doc)
	if err != nil {
		return err
	}
	info.ID, info.KEK, info.Generation = in.StoreID, in.KEK, in.Generation
	return nil
}
