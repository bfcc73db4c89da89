package memory

import (
	"bytes"
	"context"
	"fmt"
	"math"
	"slices"

	"github.com/blockseal/blockseal/internal/engine"
)

// batch is ops on a partition's rows, in the order of the calls.
type batch struct {
	p   *partition
	ops []op
}

type op struct {
	row
	deleted bool
}

// NewBatch implements [engine.Rows].
func (p *partition) NewBatch() engine.Batch { return &batch{p: p} }

// Put implements [engine.Batch].
func (b *batch) Put(id, record []byte, size int) ([]byte, error) {
	r := row{id: bytes.Clone(id), record: bytes.Clone(record), sealed: make([]byte, size), has: engine.Both}
	b.ops = append(b.ops, op{row: r})
	return r.sealed, nil
}

// PutLater implements [engine.Batch].
func (b *batch) PutLater(id []byte, record, size int) (rec, sealed []byte, err error) {
	r := row{id: bytes.Clone(id), record: make([]byte, record), sealed: make([]byte, size), has: engine.Both}
	b.ops = append(b.ops, op{row: r})
	return r.record, r.sealed, nil
}

// Spare implements [engine.Batch]: each row has memory of its own.
func (b *batch) Spare() int { return math.MaxInt }

// Grow implements [engine.Batch].
func (b *batch) Grow(int) error { return nil }

// PutRecord implements [engine.Batch].
func (b *batch) PutRecord(id, record []byte) error {
	b.ops = append(b.ops, op{row: row{id: bytes.Clone(id), record: bytes.Clone(record), has: engine.Record}})
	return nil
}

// Delete implements [engine.Batch].
func (b *batch) Delete(id []byte) error {
	b.ops = append(b.ops, op{row: row{id: bytes.Clone(id)}, deleted: true})
	return nil
}

// Op implements [engine.Batch].
func (b *batch) Op(at int) (c engine.Op, next int, err error) {
	if at >= len(b.ops) {
		return c, 0, nil
	}
	ch := b.ops[at]
	return engine.Op{ID: ch.id, Record: ch.record, Deleted: ch.deleted}, at + 1, nil
}

// Size implements [engine.Batch].
func (b *batch) Size() (n int) {
	for _, c := range b.ops {
		n += 2*len(c.id) + len(c.record) + len(c.sealed)
	}
	return n
}

// Empty implements [engine.Batch].
func (b *batch) Empty() bool { return len(b.ops) == 0 }

// Wait implements [engine.Batch].
func (b *batch) Wait() error { return nil }

// Close implements [io.Closer].
func (b *batch) Close() error { return nil }

func (p *partition) own(b engine.Batch) (*batch, error) {
	o, ok := b.(*batch)
	if !ok || o.p != p {
		return nil, fmt.Errorf("engine: the batch was made for another partition")
	}
	return o, nil
}

// Floor implements [engine.Rows].
func (p *partition) Floor() engine.Floor { return *p.floor.Load() }

// Apply implements [engine.Rows].
func (p *partition) Apply(ctx context.Context, b engine.Batch, g engine.Guard, _ bool) error {
	if err := p.e.ready(ctx); err != nil {
		return err
	}
	o, err := p.own(b)
	if err != nil {
		return err
	}
	p.writing.Lock()
	defer p.writing.Unlock()
	if f := p.floor.Load(); !f.Admits(g) {
		return refused(f, g)
	}
	for _, w := range g.Was {
		if !p.is(w) {
			return engine.ErrChanged
		}
	}
	p.apply(o)
	return nil
}

// is reports whether a row is as it was read. p.writing is held.
func (p *partition) is(w engine.Was) bool {
	rows := *p.rows.Load()
	at, found := find(rows, w.ID)
	found = found && rows[at].has&engine.Record != 0
	return found == (w.Record != nil) && (!found || bytes.Equal(rows[at].record, w.Record))
}

// apply replaces the rows by those with a batch's ops.
func (p *partition) apply(b *batch) {
	rows := slices.Clone(*p.rows.Load())
	for _, c := range b.ops {
		at, found := find(rows, c.id)
		switch {
		case c.deleted && found:
			rows = slices.Delete(rows, at, at+1)
		case c.deleted:
		case !found:
			rows = slices.Insert(rows, at, c.clone())
		default:
			r := c.clone()
			if c.has == engine.Record {
				r.sealed, r.has = rows[at].sealed, rows[at].has|engine.Record
			}
			rows[at] = r
		}
	}
	p.rows.Store(&rows)
}

// clone returns a row with memory that no caller has.
func (r row) clone() row {
	return row{id: r.id, record: bytes.Clone(r.record), sealed: bytes.Clone(r.sealed), has: r.has}
}

// Replace implements [engine.Rows].
func (p *partition) Replace(ctx context.Context, b engine.Batch, was []engine.Was) (lost int, err error) {
	if err := p.e.ready(ctx); err != nil {
		return 0, err
	}
	o, err := p.own(b)
	if err != nil {
		return 0, err
	}
	p.writing.Lock()
	defer p.writing.Unlock()
	for _, w := range was {
		if p.is(w) {
			continue
		}
		lost++
		o.ops = slices.DeleteFunc(o.ops, func(c op) bool { return bytes.Equal(c.id, w.ID) })
	}
	p.apply(o)
	return lost, nil
}

// Sync implements [engine.Rows].
func (p *partition) Sync(ctx context.Context) error { return p.e.ready(ctx) }

// RaiseFloor implements [engine.Rows].
func (p *partition) RaiseFloor(ctx context.Context, epoch uint32) error {
	if err := p.e.ready(ctx); err != nil {
		return err
	}
	p.raise(func(f *engine.Floor) { f.Epoch = max(f.Epoch, epoch) })
	return nil
}

// RefuseKEKs implements [engine.Rows].
func (p *partition) RefuseKEKs(ctx context.Context, keks []uint32) error {
	if err := p.e.ready(ctx); err != nil {
		return err
	}
	p.raise(func(f *engine.Floor) { f.KEKs = slices.Clone(keks) })
	return nil
}

func (p *partition) raise(set func(f *engine.Floor)) {
	p.writing.Lock()
	defer p.writing.Unlock()
	f := *p.floor.Load()
	f.Revision++
	set(&f)
	p.floor.Store(&f)
}
