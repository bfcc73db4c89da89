package row

import (
	"context"
	"errors"
	"fmt"

	"github.com/blockseal/blockseal/internal/engine"
	"github.com/blockseal/blockseal/internal/inner"
	"github.com/blockseal/blockseal/keyring"
)

// Cursor walks the DEK records and the sealed blocks of one engine state side by side. It belongs
// to one goroutine, and each use is inside a hold of one session: closing the store finds it at
// rest.
type Cursor struct {
	t          *Table
	data, deks *way
	start, end []byte
	started    bool
	onData     bool // parts that the current pair has
	onDEK      bool
	id         []byte
	plain      []byte
}

// Cursor returns a cursor over the ids in [start, end), from the last one back if back is set; a
// nil bound is none. The caller calls Finish.
func (t *Table) Cursor(ctx context.Context, r engine.Reader, start, end []byte, back bool) (*Cursor, error) {
	if err := ordered(start, end); err != nil {
		return nil, err
	}
	it, err := r.Cursor(ctx, engine.Sealed, start, end)
	if err != nil {
		return nil, Damage(err)
	}
	data := &way{Cursor: it, back: back}
	deks, err := data.clone(engine.Record, start, end)
	if err != nil {
		return nil, errors.Join(err, data.Close())
	}
	c := &Cursor{t: t, data: data, deks: deks, start: start, end: end}
	t.use.Track(c)
	return c, nil
}

// Close implements [io.Closer] for [Use.CloseAll].
func (c *Cursor) Close() error {
	return errors.Join(c.data.Close(), c.deks.Close())
}

// Finish closes the cursor and overwrites the plaintext that it holds.
func (c *Cursor) Finish() {
	c.t.use.Finish(c)
	clear(c.plain[:cap(c.plain)])
}

// Pair is what the engine has of one block; the record or the sealed block may be missing. Its
// slices are valid until the next step.
type Pair struct{ ID, Record, Value []byte }

// Whole returns an error if a part of the current pair is missing.
func (c *Cursor) Whole() error {
	switch {
	case !c.onDEK:
		return errNoRecord
	case !c.onData:
		return ErrNoData
	}
	return nil
}

// Pair moves to the next id and reports whether there is one.
func (c *Cursor) Pair() (p Pair, ok bool, err error) {
	if !c.started {
		c.started = true
		c.data.First()
		c.deks.First()
	}
	if c.onData {
		c.data.Next()
	}
	if c.onDEK {
		c.deks.Next()
	}
	c.onData, c.onDEK = false, false
	if err := errors.Join(c.data.Err(), c.deks.Err()); err != nil {
		return p, false, Damage(err)
	}
	order := 0 // which of the two cursors is behind the other
	switch {
	case !c.data.Valid() && !c.deks.Valid():
		return p, false, nil
	case !c.deks.Valid():
		order = -1
	case !c.data.Valid():
		order = 1
	default:
		order = c.data.compare(c.data.ID(), c.deks.ID())
	}
	c.onData, c.onDEK = order <= 0, order >= 0
	if c.onData {
		c.id = append(c.id[:0], c.data.ID()...)
		if p.Value, err = c.data.Value(); err != nil {
			return p, false, Damage(err)
		}
	}
	if c.onDEK {
		c.id = append(c.id[:0], c.deks.ID()...)
		if p.Record, err = c.deks.Value(); err != nil {
			return p, false, Damage(err)
		}
	}
	p.ID = c.id
	return p, true, nil
}

// Open opens a pair that is whole. The result is valid until the next Open.
func (c *Cursor) Open(ctx context.Context, h *keyring.Hold, p Pair) ([]byte, error) {
	c.plain = RoomFor(c.plain, p.Value)
	out, err := c.t.Open(ctx, h, p, c.plain)
	if err != nil {
		return nil, err
	}
	c.plain = out
	return out, nil
}

// RoomFor returns buf[:0] if it has room for the plaintext of a sealed block, else a new buffer; it
// overwrites a buffer that it replaces.
func RoomFor(buf, sealed []byte) []byte {
	if len(sealed) <= cap(buf) {
		return buf[:0]
	}
	clear(buf[:cap(buf)])
	return make([]byte, 0, len(sealed))
}

func (c *Cursor) next(ctx context.Context, h *keyring.Hold) (id, data []byte, ok bool, err error) {
	p, ok, err := c.Pair()
	if err != nil || !ok {
		return nil, nil, false, err
	}
	if err = c.Whole(); err == nil {
		data, err = c.Open(ctx, h, p)
	}
	if err != nil {
		return nil, nil, false, fmt.Errorf("block %s: %w", Shown(p.ID), err)
	}
	return p.ID, data, true, nil
}

// EachRecord calls f for each DEK record from the id from on, until f returns false. The caller
// keeps the engine open. It needs no key.
func EachRecord(ctx context.Context, r engine.Reader, from []byte, f func(id, record []byte, in keyring.RecordInfo) (bool, error)) error {
	it, err := r.Cursor(ctx, engine.Record, from, nil)
	if err != nil {
		return Damage(err)
	}
	defer it.Close()
	n := 0
	for ok := it.First(); ok; ok = it.Next() {
		if n++; n%1024 == 0 && ctx.Err() != nil {
			return ctx.Err()
		}
		record, err := it.Value()
		if err != nil {
			return Damage(err)
		}
		id := it.ID()
		in, err := keyring.ParseRecord(record)
		if err != nil {
			return fmt.Errorf("block %s: %w", Shown(id), err)
		}
		if more, err := f(id, record, in); err != nil || !more {
			return err
		}
	}
	return Damage(it.Err())
}

// EachRecord is the function [EachRecord]; it keeps the engine open itself.
func (t *Table) EachRecord(ctx context.Context, from []byte, f func(id, record []byte, in keyring.RecordInfo) (bool, error)) error {
	if err := t.use.Begin(); err != nil {
		return err
	}
	defer t.use.End()
	return EachRecord(ctx, t.Part, from, f)
}

// EachID calls f for each id of [start, end) that has a DEK record, in order or back, until f
// returns false. The id is valid within f, which runs outside of any hold. EachID opens nothing.
func (t *Table) EachID(ctx context.Context, start, end []byte, back bool, begin func() (keyring.Hold, engine.Reader, error), f func(id []byte) bool) error {
	if err := errors.Join(ctx.Err(), ordered(start, end)); err != nil {
		return err
	}
	h, r, err := begin()
	if err != nil {
		return err
	}
	session := h.For(inner.Block{}).Session()
	defer h.Pin()() // it needs no key, but what it reads would stop Erase
	it, err := r.Cursor(ctx, engine.Record, start, end)
	if err != nil {
		h.Release()
		return Damage(err)
	}
	w := &way{Cursor: it, back: back}
	t.use.Track(w)
	defer t.use.Finish(w)
	var id []byte
	for ok := w.First(); ; ok = w.Next() {
		if err = Damage(w.Err()); ok {
			id = append(id[:0], w.ID()...)
		}
		h.Release()
		if err != nil || !ok || !f(id) {
			return err
		}
		if err := ctx.Err(); err != nil {
			return err
		}
		if h, err = t.keys.For(inner.Block{}).AcquireSession(session); err != nil {
			return err
		}
	}
}

// Count returns the number of DEK records in [start, end); a nil bound is none. The caller keeps
// the engine open.
func Count(ctx context.Context, r engine.Reader, start, end []byte) (n uint64, err error) {
	it, err := r.Cursor(ctx, engine.Record, start, end)
	if err != nil {
		return 0, Damage(err)
	}
	defer it.Close()
	for ok := it.First(); ok; ok = it.Next() {
		if n++; n%4096 == 0 && ctx.Err() != nil {
			return n, ctx.Err()
		}
	}
	return n, Damage(it.Err())
}

// Count is the function [Count]; it keeps the engine open itself.
func (t *Table) Count(ctx context.Context, start, end []byte) (n uint64, err error) {
	if err := t.use.Begin(); err != nil {
		return 0, err
	}
	defer t.use.End()
	return Count(ctx, t.Part, start, end)
}
