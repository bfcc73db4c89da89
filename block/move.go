package block

import (
	"context"
	"errors"
	"fmt"
	"io"

	"github.com/blockseal/blockseal/internal/catalogue"
	"github.com/blockseal/blockseal/internal/engine"
	"github.com/blockseal/blockseal/internal/pool"
	"github.com/blockseal/blockseal/internal/register"
	"github.com/blockseal/blockseal/internal/row"
	"github.com/blockseal/blockseal/internal/transfer"
	"github.com/blockseal/blockseal/keyring"
)

// Moved is what Export has written, or Import read.
type Moved struct {
	StoreInfo
	Blocks uint64 `json:"blocks"`
	Bytes  uint64 `json:"bytes"` // of their DEK records and sealed blocks
}

// Export writes a store to w as it is: its keyring document, its DEK records, its blocks, sealed as
// they are. It takes no key, and a store that is open goes on. What is written has the store as it
// was at one moment after the call; docs/format.md has its bytes. Whoever has it, and access to the
// KEK, has the store.
//
// To move a store, write nothing to it any more, export it, import it elsewhere, open it there and
// call Revalidate, and then [DB.Drop] it here. Its checkpoints stay where they are: the receipt names
// them.
//
// The end of ctx and Close of the DB end it, also while w does not take what it is given: then a Write may be
// under way when Export returns. Errors: [ErrNoStore], [ErrForeign], [ErrCorrupt] for a store of
// which a block is half there.
func (d *DB) Export(ctx context.Context, name string, w io.Writer) (m Moved, err error) {
	defer func() {
		if err != nil {
			m, err = Moved{}, fmt.Errorf("block: export store %s: %w", row.Shown([]byte(name)), row.Damage(err))
		}
	}()
	if err := catalogue.CheckName(name); err != nil {
		return m, err
	}
	if err := d.use.Begin(); err != nil {
		return m, ErrClosed
	}
	defer d.use.End()
	ctx, cancel := d.tasks.whileOpen(ctx)
	defer cancel()
	defer func() { err = d.tasks.ending(err) }()
	p, number, done, err := d.borrow(ctx, name)
	if err != nil {
		return m, err
	}
	defer done()
	c, err := transfer.Export(ctx, w, p, register.DocumentName)
	if err != nil {
		return m, err
	}
	m = Moved{StoreInfo: StoreInfo{Name: name}, Blocks: c.Rows, Bytes: c.Bytes}
	return m, d.describe(ctx, catalogue.Entry{Name: name, Number: number, State: catalogue.Present}, &m.StoreInfo)
}

// borrow returns the partition of a store to be read until done is called: that of the open one, or
// that of one which stays closed meanwhile.
func (d *DB) borrow(ctx context.Context, name string) (p engine.Partition, number uint32, done func(), err error) {
	for {
		if s := d.isOpen(name); s != nil {
			if s.use.Begin() == nil {
				return s.part, s.number, s.use.End, nil
			}
			select { // it is being closed
			case <-s.gone:
			case <-ctx.Done():
				return nil, 0, nil, ctx.Err()
			}
		}
		again, err := d.stores.Reserve(name)
		if errors.Is(err, pool.ErrInUse) { // it was opened or closed in between
			if err := ctx.Err(); err != nil {
				return nil, 0, nil, err
			}
			d.stores.Await(ctx, name)
			continue
		}
		if err != nil {
			return nil, 0, nil, inDB(err)
		}
		e, err := d.find(ctx, name)
		if err != nil {
			again()
			return nil, 0, nil, err
		}
		p := d.engine.Partition(e.Number)
		return p, e.Number, func() { p.Release(); again() }, nil
	}
}

// Import reads a store that Export wrote. It takes no key. The store has the name that it had, which
// must be free, and no store of the DB may have its id: a store is in a DB once. It is a copy, and
// opens Inaccessible until it is revalidated. What was cut off or damaged on the way is no store, and
// [ErrCorrupt]. The end of ctx and Close end it, also while r has nothing: then a Read may be under way when
// Import returns. Of a name that somebody is just making or importing it is [ErrLocked]. Errors: [ErrExists],
// whether the store of that name is open or not, [ErrVersion], [ErrReadOnly].
func (d *DB) Import(ctx context.Context, r io.Reader) (m Moved, err error) {
	defer func() {
		if err != nil {
			m, err = Moved{}, fmt.Errorf("block: import: %w", row.Damage(err))
		}
	}()
	if err := d.use.Begin(); err != nil {
		return m, ErrClosed
	}
	defer d.use.End()
	if d.opts.ReadOnly {
		return m, ErrReadOnly
	}
	ctx, cancel := d.tasks.whileOpen(ctx)
	defer cancel()
	defer func() { err = d.tasks.ending(err) }()
	a, err := transfer.Read(ctx, r)
	if err != nil {
		return m, err
	}
	in, err := keyring.Inspect(a.Value(register.DocumentName))
	if err == nil {
		m.Name, err = register.NameOf(a.Value(register.NameRecord))
	}
	if err == nil {
		if err = catalogue.CheckName(m.Name); err != nil {
			err = fmt.Errorf("%w: %w", ErrCorrupt, err) // no store has ever written it
		}
	}
	if err == nil {
		err = d.isNew(ctx, in.StoreID)
	}
	if err != nil {
		return m, err
	}
	m.ID, m.KEK, m.Generation = in.StoreID, in.KEK, in.Generation
	again, err := d.stores.Reserve(m.Name)
	if errors.Is(err, pool.ErrInUse) {
		err = d.taken(ctx, m.Name, err)
	}
	if err != nil {
		return m, fmt.Errorf("store %s: %w", row.Shown([]byte(m.Name)), inDB(err))
	}
	defer again()
	e, err := d.enter(ctx, m.Name)
	if err != nil {
		return m, err
	}
	c, err := transfer.Counts{}, d.vacant(ctx, e)
	if err == nil {
		c, err = d.arrive(ctx, a, e)
	}
	if err != nil {
		return m, errors.Join(err, d.withdraw(context.WithoutCancel(ctx), e))
	}
	m.Blocks, m.Bytes = c.Rows, c.Bytes
	return m, nil
}

// arrive fills the partition of an entry that was just made.
func (d *DB) arrive(ctx context.Context, a *transfer.Arrival, e catalogue.Entry) (c transfer.Counts, err error) {
	a.Meta = register.Arrived(a.Meta, d.instanceOf(e.Number))
	a.Last = d.listing.RLocker() // a Checkpoint has the store before it is one, or has it remember its copy
	p := d.engine.Partition(e.Number)
	defer p.Release()
	if err := d.setMade(ctx, p); err != nil {
		return c, err
	}
	if c, err = a.Into(ctx, p); err != nil {
		return c, err
	}
	return c, d.present(context.WithoutCancel(ctx), e)
}

// isNew refuses the id of a store that is in the DB already. Of one that cannot be read the id is not
// known, and it is not this one's business.
func (d *DB) isNew(ctx context.Context, id keyring.StoreID) error {
	return d.catalogue.Each(ctx, func(e catalogue.Entry, err error) error {
		var info StoreInfo
		if err == nil && d.describe(ctx, e, &info) == nil && info.ID == id {
			return fmt.Errorf("%w: it is here as %q", ErrExists, e.Name)
		}
		return ctx.Err()
	})
}
