package pebble

import (
	"context"
	"io"
	"sync"
	"sync/atomic"

	"github.com/blockseal/blockseal/internal/engine"
)

// DB is an engine of rows. Beside that it has the keys beneath them as they are, for tools and
// for measurements beside plain Pebble.
var (
	_ engine.Engine       = (*DB)(nil)
	_ engine.Checkpointer = (*DB)(nil)
	_ engine.Meter        = (*DB)(nil)
	_ engine.Purger       = (*partition)(nil)
)

// partitions is those that were asked for.
type partitions struct {
	mu sync.Mutex
	of map[uint32]*partition
}

// partition is one of a DB's.
type partition struct {
	db     *DB
	number uint32

	// gate is held for reading while a change is applied to rows, and for writing by what
	// raises the floor and by what replaces rows that it read before. The wait for durability
	// is outside of it.
	gate  sync.RWMutex
	floor atomic.Pointer[engine.Floor] // changed under gate
	meta  revisions
}

// Partition implements [engine.Engine].
func (d *DB) Partition(number uint32) engine.Partition {
	d.partitions.mu.Lock()
	defer d.partitions.mu.Unlock()
	p := d.partitions.of[number]
	if p == nil {
		p = &partition{db: d, number: number, meta: newRevisions()}
		p.floor.Store(&engine.Floor{Revision: 1})
		d.partitions.of[number] = p
		return p
	}
	// Of another owner, whose changes are not to come any more.
	p.raise(func(f *engine.Floor) { f.Epoch, f.KEKs = 0, nil })
	return p
}

// ready refuses what comes after Close, or too late.
func (d *DB) ready(ctx context.Context) error {
	if d.closed.Load() {
		return engine.ErrClosed
	}
	return ctx.Err()
}

// held is what a row keeps of the engine's, from one Get to the next.
type held struct {
	key     []byte
	reading Reading
	lookup  *Lookup
	closer  io.Closer // of the sealed block
}

// Release implements [engine.Held].
func (h *held) Release() {
	if h.closer != nil {
		_ = h.closer.Close() // of memory, which does not fail
		h.closer = nil
	}
	if h.lookup != nil {
		h.lookup.Release()
		h.lookup = nil
	}
}

func holdFor(row *engine.Row) *held {
	row.Release()
	row.Has = 0
	h, ok := row.Held.(*held)
	if !ok {
		h = new(held)
		row.Held = h
	}
	return h
}

// Get implements [engine.Reader]. The two parts of a row are two look-ups, which a change may
// come between; that is found where one of them is missing, and else by the caller, with
// Together.
func (p *partition) Get(ctx context.Context, id []byte, want engine.Parts, row *engine.Row) error {
	h := holdFor(row)
	if err := p.db.ready(ctx); err != nil {
		return err
	}
	switch want {
	case engine.Record, engine.Sealed:
		// What is looked for alone is mostly a block whose record the caller knows: one of the
		// latest, which Pebble finds in its memtables at once.
		return h.find(p.db, p.number, id, want, row)
	case engine.Both:
		if h.lookup = p.db.Lookup(&h.reading); h.lookup != nil {
			return h.find(h.lookup, p.number, id, want, row)
		}
		err := h.find(p.db, p.number, id, want, row)
		if err != nil || row.Has == engine.Both {
			return err
		}
		h.Release()
		row.Has, row.Sealed = 0, nil
	}
	h.lookup = p.db.State()
	return h.find(h.lookup, p.number, id, want, row)
}

// find looks parts of a row up, one after the other.
func (h *held) find(r Getter, partition uint32, id []byte, want engine.Parts, row *engine.Row) error {
	h.key = appendKey(h.key[:0], spaceDEK, partition, id)
	if want&engine.Record != 0 {
		v, closer, err := r.Get(h.key)
		switch err {
		case nil:
			row.Record = append(row.Record[:0], v...)
			row.Has |= engine.Record
			if err := closer.Close(); err != nil {
				h.Release()
				return err
			}
		case engine.ErrNotFound:
		default:
			h.Release()
			return err
		}
	}
	if want&engine.Sealed != 0 {
		h.key[0] = spaceData
		v, closer, err := r.Get(h.key)
		switch err {
		case nil:
			row.Sealed, h.closer = v, closer
			row.Has |= engine.Sealed
		case engine.ErrNotFound:
		default:
			h.Release()
			return err
		}
	}
	if row.Has == 0 {
		h.Release()
		return engine.ErrNotFound
	}
	return nil
}

// view is a partition at one moment.
type view struct {
	p    *partition
	snap *Snapshot
}

// View implements [engine.Partition].
func (p *partition) View(ctx context.Context) (engine.View, error) {
	if err := p.db.ready(ctx); err != nil {
		return nil, err
	}
	return &view{p, p.db.NewSnapshot()}, nil
}

// Get implements [engine.Reader].
func (v *view) Get(ctx context.Context, id []byte, want engine.Parts, row *engine.Row) error {
	h := holdFor(row)
	if err := v.p.db.ready(ctx); err != nil {
		return err
	}
	return h.find(v.snap, v.p.number, id, want, row)
}

// Cursor implements [engine.Reader].
func (v *view) Cursor(ctx context.Context, part engine.Parts, lower, upper []byte) (engine.Cursor, error) {
	return v.p.cursor(ctx, v.snap.s, part, lower, upper)
}

// Close implements [engine.View].
func (v *view) Close() error { return v.snap.Close() }
