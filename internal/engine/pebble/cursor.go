package pebble

import (
	"bytes"
	"context"

	"github.com/cockroachdb/pebble/v2"

	"github.com/blockseal/blockseal/internal/engine"
)

type cursor struct {
	Iter
	p     *partition
	space byte
	seek  [64]byte
}

// Cursor implements [engine.Reader].
func (p *partition) Cursor(ctx context.Context, part engine.Parts, lower, upper []byte) (engine.Cursor, error) {
	return p.cursor(ctx, p.db.p, part, lower, upper)
}

type iterable interface {
	NewIter(o *pebble.IterOptions) (*pebble.Iterator, error)
}

func (p *partition) cursor(ctx context.Context, r iterable, part engine.Parts, lower, upper []byte) (engine.Cursor, error) {
	if err := p.db.ready(ctx); err != nil {
		return nil, err
	}
	space, o := p.walk(part, lower, upper)
	it, err := r.NewIter(&o)
	return p.newCursor(space, it, err)
}

// Clone implements [engine.Cursor].
func (c *cursor) Clone(part engine.Parts, lower, upper []byte) (engine.Cursor, error) {
	space, o := c.p.walk(part, lower, upper)
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
