package block

import (
	"context"
	"errors"
	"fmt"
	"iter"

	"github.com/blockseal/blockseal/internal/catalogue"
	"github.com/blockseal/blockseal/internal/engine"
	"github.com/blockseal/blockseal/internal/pool"
	"github.com/blockseal/blockseal/internal/register"
	"github.com/blockseal/blockseal/internal/row"
	"github.com/blockseal/blockseal/kek"
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
// cannot be read it gives an error, with the name where that is known, and goes on. When the DB is closed
// meanwhile, which may be inside the walk, it ends with [ErrClosed].
func (d *DB) Stores(ctx context.Context) iter.Seq2[StoreInfo, error] {
	return func(yield func(StoreInfo, error) bool) {
		// No iterator of the engine is open while the caller has a turn, who may drop what is found: a
		// Drop waits until nobody reads the files of before; nor is the engine kept open, for who closes
		// the DB.
		type found struct {
			entry catalogue.Entry
			err   error
		}
		var all []found
		if err := d.whileUsed(func() error {
			return d.catalogue.Each(ctx, func(e catalogue.Entry, err error) error {
				all = append(all, found{e, err})
				return ctx.Err()
			})
		}); err != nil {
			yield(StoreInfo{}, fmt.Errorf("block: stores: %w", row.Damage(err)))
			return
		}
		for _, f := range all {
			if err := ctx.Err(); err != nil {
				yield(StoreInfo{}, fmt.Errorf("block: stores: %w", err))
				return
			}
			info, err := StoreInfo{Name: f.entry.Name}, f.err
			if err == nil {
				err = d.whileUsed(func() error { return d.look(ctx, f.entry, &info) })
			}
			switch {
			case errors.Is(err, ErrNoStore):
				continue
			case errors.Is(err, ErrClosed):
				yield(StoreInfo{}, fmt.Errorf("block: stores: %w", err))
				return
			}
			if err != nil {
				err = fmt.Errorf("block: stores: %q: %w", info.Name, row.Damage(err))
			}
			if !yield(info, err) {
				return
			}
		}
	}
}

// whileUsed calls f while the engine is kept open.
func (d *DB) whileUsed(f func() error) error {
	if err := d.use.Begin(); err != nil {
		return ErrClosed
	}
	defer d.use.End()
	return f()
}

// look describes the store of an entry that was found before, or returns ErrNoStore: it is none, or not
// any more.
func (d *DB) look(ctx context.Context, e catalogue.Entry, info *StoreInfo) error {
	if e.State == catalogue.Dropping {
		return ErrNoStore
	}
	err := d.describe(ctx, e, info)
	if err == nil {
		err = d.named(ctx, e)
	}
	if err != nil {
		now, again := d.catalogue.Find(ctx, e.Name)
		if errors.Is(again, ErrNoStore) || again == nil && (now.Number != e.Number || now.State == catalogue.Dropping) {
			return ErrNoStore
		}
	}
	return err
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

// named refuses an entry of the catalogue that leads to another store's partition, by what the
// partition says of itself in clear. A store that has access looks at the tag of its name as well
// (register.CheckName). This is for what comes before, or without a key: to drop and to export a
// store, and to have its partition from the engine at all, which belongs to one store at a time, and
// may be that of another one which is open. Errors: ErrForeign; ErrCorrupt for a store that has lost
// its name.
func (d *DB) named(ctx context.Context, e catalogue.Entry) error {
	record, err := d.engine.Peek(ctx, e.Number, register.NameRecord)
	if errors.Is(err, engine.ErrNotFound) {
		there, err := d.there(ctx, e)
		if err == nil && there {
			err = fmt.Errorf("its own name is missing: %w", ErrCorrupt)
		}
		return row.Damage(err)
	}
	if err != nil {
		return row.Damage(err)
	}
	name, err := register.NameOf(record)
	if err == nil && name != e.Name {
		err = fmt.Errorf("what is found as store %q is store %s: %w", e.Name, row.Shown([]byte(name)), ErrForeign)
	}
	return err
}

// vacant refuses a number that was just given, and has a store: then the catalogue was put back to
// what it was before that one was made.
func (d *DB) vacant(ctx context.Context, e catalogue.Entry) error {
	there, err := d.there(ctx, e)
	if err == nil && there {
		err = fmt.Errorf("partition %d, which is given to store %q, has a store: %w", e.Number, e.Name, ErrCorrupt)
	}
	return row.Damage(err)
}

// Open opens a store. Close closes it, as Store.Close does. If the vault refuses or does not answer,
// it opens all the same, as [Open] says. One that Acquire has open, and that somebody uses, is
// [ErrLocked]. Errors: [ErrNoStore], [ErrName], and those of [Open].
func (d *DB) Open(ctx context.Context, name string, k *kek.KEK, opts *Options) (*Store, error) {
	return d.own(ctx, name, k, opts, "open", d.stores.Own, d.openStore)
}

func (d *DB) own(ctx context.Context, name string, k *kek.KEK, opts *Options, op string,
	own func(ctx context.Context, name string, opening func(context.Context) (*Store, error)) (*Store, error),
	f func(ctx context.Context, name string, k *kek.KEK, o Options) (*Store, error)) (*Store, error) {
	o, err := opts.withDefaults()
	if err == nil && k == nil {
		err = errors.New("a KEK is required")
	}
	if err == nil {
		err = catalogue.CheckName(name)
	}
	if err != nil {
		return nil, fmt.Errorf("block: %s store %s: %w", op, row.Shown([]byte(name)), err)
	}
	if err := d.use.Begin(); err != nil {
		return nil, fmt.Errorf("block: %s store %s: %w", op, row.Shown([]byte(name)), ErrClosed)
	}
	defer d.use.End()
	s, err := own(ctx, name, func(ctx context.Context) (*Store, error) { return f(ctx, name, k, o) })
	if err != nil {
		return nil, fmt.Errorf("block: %s store %s: %w", op, row.Shown([]byte(name)), inDB(err))
	}
	return s, nil
}

// inDB says of an error of the pool what it is here.
func inDB(err error) error {
	switch {
	case errors.Is(err, pool.ErrInUse):
		return fmt.Errorf("%w: in this DB", ErrLocked)
	case errors.Is(err, pool.ErrClosed):
		return ErrClosed
	}
	return err
}

// Acquire returns a store that is open until release is called, having opened it if need be with
// what DBOptions.Resolve returns. It is shared by all who acquire it: nobody closes it. A store that
// its vault refuses is Inaccessible, and no error. To hold one store and to wait for another one may
// take until ctx ends where MaxOpen are all held. Errors: [ErrNoStore], [ErrName], [ErrClosed], that
// of Resolve, and those of [Open].
func (d *DB) Acquire(ctx context.Context, name string) (s *Store, release func(), err error) {
	if err := catalogue.CheckName(name); err != nil {
		return nil, nil, fmt.Errorf("block: acquire store %s: %w", row.Shown([]byte(name)), err)
	}
	if s, release, err = d.stores.Acquire(ctx, name); err != nil {
		return nil, nil, fmt.Errorf("block: acquire store %s: %w", row.Shown([]byte(name)), inDB(err))
	}
	return s, release, nil
}

// prepare finds out how Acquire opens a store.
func (d *DB) prepare(ctx context.Context, name string) (w pool.Way[*Store], err error) {
	if err := d.use.Begin(); err != nil {
		return w, ErrClosed
	}
	defer d.use.End()
	if _, err := d.find(ctx, name); err != nil {
		return w, err
	}
	if d.opts.Resolve == nil {
		return w, errors.New("it is not open, and DBOptions.Resolve is not set")
	}
	k, opts, err := d.opts.Resolve(ctx, name)
	if err == nil && k == nil {
		err = errors.New("DBOptions.Resolve returned no KEK")
	}
	if err != nil {
		d.wasOpened(name, err)
		return w, err
	}
	o, err := opts.withDefaults()
	if err != nil {
		return w, err
	}
	w.Lane = k.ID().Vault
	w.Open = func(ctx context.Context) (*Store, bool, error) {
		if err := d.use.Begin(); err != nil {
			return nil, false, ErrClosed
		}
		defer d.use.End()
		s, err := d.openStore(ctx, name, k, o)
		if err != nil {
			return nil, vault.Transient(err), err
		}
		cause := s.State().Cause
		return s, cause != nil && vault.Transient(cause), nil
	}
	return w, nil
}
