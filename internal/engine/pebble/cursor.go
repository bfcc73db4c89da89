package pebble

import (
	"bytes"
	"context"
	"sync"

	"github.com/cockroachdb/pebble/v2"

	"github.com/blockseal/blockseal/internal/engine"
)

type cursor struct {
	Iter
	p     *partition
	space byte
	seek  [64]byte
	of    *lentLookup // whose iterator it is; nil: its own
}

// lentLookup is a Lookup whose iterators two cursors have, over DEK records and over sealed blocks of one
// partition. So a walk that soon ends makes none.
type lentLookup struct {
	l *Lookup

	mu   sync.Mutex
	lent [2]bool
}

// Cursor implements [engine.Reader].
func (p *partition) Cursor(ctx context.Context, part engine.Parts, lower, upper []byte) (engine.Cursor, error) {
	if err := p.db.ready(ctx); err != nil {
		return nil, err
	}
	if l := p.db.lookupForWalk(); l != nil {
		return p.lend(&lentLookup{l: l}, part, lower, upper)
	}
	return p.over(p.db.p, part, lower, upper)
}

type iterable interface {
	NewIter(o *pebble.IterOptions) (*pebble.Iterator, error)
}

// over returns a cursor with an iterator of its own.
func (p *partition) over(r iterable, part engine.Parts, lower, upper []byte) (engine.Cursor, error) {
	space, o := p.walk(part, lower, upper)
	it, err := r.NewIter(&o)
	return p.newCursor(space, it, err)
}

// lend returns a cursor with the iterator of a Lookup, which has it to lend.
func (p *partition) lend(of *lentLookup, part engine.Parts, lower, upper []byte) (engine.Cursor, error) {
	of.mu.Lock()
	defer of.mu.Unlock()
	space, o := p.walk(part, lower, upper)
	it, err := of.l.over(space)
	if err != nil {
		if of.l.bad = true; of.lent == [2]bool{} {
			of.l.Release()
		}
		return nil, translate(err)
	}
	it.SetBounds(o.LowerBound, o.UpperBound)
	of.lent[space-spaceDEK] = true
	return &cursor{Iter: Iter{it, p.db.guard}, p: p, space: space, of: of}, nil
}

// has reports whether the iterator over a space is to be had.
func (of *lentLookup) has(space byte) bool {
	of.mu.Lock()
	defer of.mu.Unlock()
	return !of.lent[space-spaceDEK]
}

// giveBack takes a cursor's iterator back. The last one releases the Lookup.
func (of *lentLookup) giveBack(c *cursor) (err error) {
	of.mu.Lock()
	defer of.mu.Unlock()
	if err = c.it.Error(); err != nil {
		of.l.bad = true // what it met, the next one who has it would meet
	}
	c.it.SetBounds([]byte{c.space}, []byte{c.space + 1})
	of.lent[c.space-spaceDEK] = false
	if of.lent == [2]bool{} {
		of.l.Release()
	}
	return translate(err)
}

// Close implements [engine.Cursor].
func (c *cursor) Close() error {
	if c.of == nil {
		return c.Iter.Close()
	}
	return c.of.giveBack(c)
}

// Clone implements [engine.Cursor].
func (c *cursor) Clone(part engine.Parts, lower, upper []byte) (engine.Cursor, error) {
	space, o := c.p.walk(part, lower, upper)
	if c.of != nil && c.of.has(space) { // which is so before c is closed, and its user's alone
		return c.p.lend(c.of, part, lower, upper)
	}
	it, err := c.it.Clone(pebble.CloneOptions{IterOptions: &o})
	return c.p.newCursor(space, it, err)
}

func (p *partition) newCursor(space byte, it *pebble.Iterator, err error) (engine.Cursor, error) {
	if err != nil {
		return nil, translate(err)
	}
	return &cursor{Iter: Iter{it, p.db.guard}, p: p, space: space}, nil
}

// walk returns the space and the bounds of a walk over ids.
func (p *partition) walk(part engine.Parts, lower, upper []byte) (space byte, o pebble.IterOptions) {
	space = spaceDEK
	if part == engine.Sealed {
		space = spaceData
	}
	if upper != nil && bytes.Compare(lower, upper) > 0 {
		upper = lower
	}
	o.LowerBound, o.UpperBound = bounds(space, p.number, lower, upper)
	return space, o
}

// SeekGE implements [engine.Cursor].
func (c *cursor) SeekGE(id []byte) bool {
	return c.Iter.SeekGE(appendKey(c.seek[:0], c.space, c.p.number, id))
}

// SeekLT implements [engine.Cursor].
func (c *cursor) SeekLT(id []byte) bool {
	return c.Iter.SeekLT(appendKey(c.seek[:0], c.space, c.p.number, id))
}

// ID implements [engine.Cursor].
func (c *cursor) ID() []byte { return c.Key()[prefixSize:] }

// Size implements [engine.Cursor].
func (c *cursor) Size() int { return c.ValueSize() }
