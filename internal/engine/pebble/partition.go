package pebble

import (
	"context"
	"io"
	"sync"
	"sync/atomic"

	"github.com/blockseal/blockseal/internal/engine"
)

// A DB is an engine of rows. It also has methods for the keys beneath, for tools and for
// comparisons with plain Pebble.
var (
	_ engine.Engine       = (*DB)(nil)
	_ engine.Checkpointer = (*DB)(nil)
	_ engine.Meter        = (*DB)(nil)
	_ engine.Purger       = (*partition)(nil)
	_ engine.Deferrer     = (*partition)(nil)
	_ engine.Loader       = (*partition)(nil)
)

type partitions struct {
	mu sync.Mutex
	of map[uint32]*partition
}

type partition struct {
	db     *DB
	number uint32

	// gate is read-locked while a batch is applied, and locked while the floor is raised, or while
	// rows are compared with what was read and then written. Nobody but a load
	// that is applied waits for the disk's sync under it.
	gate  sync.RWMutex
	floor atomic.Pointer[engine.Floor] // stored under gate
	meta  revisions

	cleared atomic.Bool // by Clear: Purge removes the sealed blocks in tables too, and from blob files those that nobody shares
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
	// The partition has another owner now, and no write of the former one follows.
	p.raise(func(f *engine.Floor) { f.Epoch, f.KEKs = 0, nil })
	return p
}

// ready returns the error of a call after Close or after the end of ctx.
func (d *DB) ready(ctx context.Context) error {
	if d.closed.Load() {
		return engine.ErrClosed
	}
	return ctx.Err()
}

type held struct {
	key     []byte
	reading Reading
	lookup  *Lookup
	closer  io.Closer // of the sealed block
}

// Release implements [engine.Held].
func (h *held) Release() {
	if h.closer != nil {
		_ = h.closer.Close()
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

// Get implements [engine.Reader]. It looks up the two parts of a row one after the other, and a
// write may come in between. If one part is missing then, Get itself looks again; else the caller
// does, with Together.
func (p *partition) Get(ctx context.Context, id []byte, want engine.Parts, row *engine.Row) error {
	h := holdFor(row)
	if err := p.db.ready(ctx); err != nil {
		return err
	}
	switch want {
	case engine.Record, engine.Sealed:
		// A part that is wanted alone is mostly a block whose record is cached: one of the latest,
		// which Pebble finds in its memtables at once.
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
	if err := v.p.db.ready(ctx); err != nil {
		return nil, err
	}
	return v.p.over(v.snap.s, part, lower, upper)
}

// Close implements [engine.View].
func (v *view) Close() error { return v.snap.Close() }
