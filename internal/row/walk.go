package row

import (
	"context"
	"fmt"
	"runtime"

	"github.com/blockseal/blockseal/internal/engine"
	"github.com/blockseal/blockseal/internal/inner"
	"github.com/blockseal/blockseal/keyring"
)

// Walk calls yield for the blocks of [start, end) in what begin returns, in order or back, until
// yield returns false. id and data are valid until the next call. Each step has a hold of its own
// in begin's session, and yield runs outside of any hold.
func (t *Table) Walk(ctx context.Context, start, end []byte, back bool, begin func() (keyring.Hold, engine.Reader, error), yield func(id, data []byte) bool) error {
	if err := ctx.Err(); err != nil {
		return err
	}
	h, r, err := begin()
	if err != nil {
		return err
	}
	session := h.For(inner.Block{}).Session()
	defer h.Pin()()
	c, err := t.Cursor(ctx, r, start, end, back)
	if err != nil {
		h.Release()
		return err
	}
	defer c.Finish()
	size := 0 // of all blocks so far
	for n := 0; ; n++ {
		if n == prefetchAfter && runtime.GOMAXPROCS(0) > 1 {
			h.Release()
			return t.walkAhead(ctx, c, session, size, yield)
		}
		id, data, ok, err := c.next(ctx, &h)
		h.Release()
		if err != nil || !ok {
			return err
		}
		size += len(data)
		if !yield(id, data) {
			return nil
		}
		if err := ctx.Err(); err != nil {
			return err
		}
		if h, err = t.keys.For(inner.Block{}).AcquireSession(session); err != nil {
			return err
		}
	}
}

// walkAhead is the rest of a walk, with reading ahead; size is the sum of its first prefetchAfter
// blocks. It returns nil at the end, and when yield returns false.
func (t *Table) walkAhead(ctx context.Context, c *Cursor, session uint64, size int, yield func(id, data []byte) bool) error {
	p, err := t.newPrefetch(ctx, c, session, size/prefetchAfter)
	if err != nil {
		return err
	}
	defer p.stop()
	for {
		ch, err := p.next()
		if ch == nil {
			return err
		}
		for _, b := range ch.blocks {
			h, err := t.keys.For(inner.Block{}).AcquireSession(session)
			if err != nil {
				return err
			}
			h.Release()
			if !yield(b.id, b.plain) {
				return nil
			}
			if err := ctx.Err(); err != nil {
				return err
			}
		}
		for i := ch.rest; i < len(ch.records); i++ {
			h, err := t.keys.For(inner.Block{}).AcquireSession(session)
			if err != nil {
				return err
			}
			id, data, err := c.rest(ctx, &h, ch, i)
			h.Release()
			if err != nil {
				return err
			}
			if !yield(id, data) {
				return nil
			}
			if err := ctx.Err(); err != nil {
				return err
			}
		}
		if ch.err != nil {
			return ch.err
		}
		p.release(ch)
	}
}

// rest opens block i of a chunk, which was not read ahead. The one before it comes first.
func (c *Cursor) rest(ctx context.Context, h *keyring.Hold, ch *chunk, i int) (id, data []byte, err error) {
	if i == ch.rest {
		ch.seek(c.data, i)
	} else {
		c.data.Next()
	}
	at, err := ch.pair(c.data, i)
	if err == nil {
		data, err = c.Open(ctx, h, at)
	}
	if err != nil {
		return nil, nil, fmt.Errorf("block %s: %w", Shown(at.ID), err)
	}
	if i == len(ch.records)-1 {
		c.data.Next()
		ch.err = ch.reachesEnd(c.data)
	}
	return at.ID, data, nil
}
