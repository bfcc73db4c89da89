package block

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"iter"
	"runtime"

	"github.com/blockseal/blockseal/internal/engine"
	"github.com/blockseal/blockseal/keyring"
)

// Range is the ids from Start, inclusive, to End, exclusive, in the order of their
// bytes. Nil is unbounded.
type Range struct{ Start, End []byte }

// Block is a block of a scan. ID and Data are valid until the next step of the
// scan: copy what is to be kept.
type Block struct{ ID, Data []byte }

// Blocks walks the blocks of r in order, as they are when the walk begins. A walk
// ends with its first error, which comes with an empty Block; if the store goes
// Inaccessible that is [ErrInaccessible] at the next step.
//
//	for b, err := range s.Blocks(ctx, block.Range{}) {
//		if err != nil { ... }
//	}
func (s *Store) Blocks(ctx context.Context, r Range) iter.Seq2[Block, error] {
	return s.walk(ctx, r, func() (keyring.Hold, engine.Reader, error) {
		h, err := s.keys.Acquire()
		return h, s.part, err
	})
}

// walk is Blocks over what begin returns, which is called when the walk begins.
func (s *Store) walk(ctx context.Context, r Range, begin func() (keyring.Hold, engine.Reader, error)) iter.Seq2[Block, error] {
	return func(yield func(Block, error) bool) {
		fail := func(err error) {
			s.counts.fail(failedScan, err)
			yield(Block{}, fmt.Errorf("block: scan: %w", err))
		}
		if err := ctx.Err(); err != nil {
			fail(err)
			return
		}
		h, rd, err := begin()
		if err != nil {
			fail(err)
			return
		}
		session := h.Session()
		defer h.Pin()()
		c, err := s.newCursor(ctx, rd, r)
		if err != nil {
			h.Release()
			fail(err)
			return
		}
		defer func() {
			s.finish(c)
			clear(c.plain[:cap(c.plain)])
		}()
		size := 0 // of the blocks so far
		for n := 0; ; n++ {
			if n == prefetchAfter && runtime.GOMAXPROCS(0) > 1 {
				h.Release()
				if err := s.walkAhead(ctx, c, session, size, yield); err != nil {
					fail(err)
				}
				return
			}
			b, ok, err := c.next(ctx, &h)
			h.Release()
			if err != nil {
				fail(err)
				return
			}
			if !ok {
				return
			}
			s.counts.scan(len(b.Data))
			size += len(b.Data)
			if !yield(b, nil) {
				return
			}
			if err := ctx.Err(); err != nil {
				fail(err)
				return
			}
			if h, err = s.keys.AcquireSession(session); err != nil {
				fail(err)
				return
			}
		}
	}
}

// walkAhead is the rest of a walk whose first blocks had so many bytes, with reading
// ahead. It returns nil at the end, and when yield wants no more.
func (s *Store) walkAhead(ctx context.Context, c *cursor, session uint64, size int, yield func(Block, error) bool) error {
	p, err := s.newPrefetch(ctx, c, session, size/prefetchAfter)
	if err != nil {
		return err
	}
	defer p.stop()
	hand := func(h keyring.Hold, b Block) (more bool) {
		h.Release()
		s.counts.scan(len(b.Data))
		return yield(b, nil)
	}
	for {
		ch, err := p.next()
		if ch == nil {
			return err
		}
		for _, b := range ch.blocks {
			h, err := s.keys.AcquireSession(session)
			if err != nil {
				return err
			}
			if !hand(h, Block{ID: b.id, Data: b.plain}) {
				return nil
			}
			if err := ctx.Err(); err != nil {
				return err
			}
		}
		// What did not fit is opened here, one after the other.
		for i := ch.rest; i < len(ch.records); i++ {
			h, err := s.keys.AcquireSession(session)
			if err != nil {
				return err
			}
			b, err := c.rest(ctx, &h, ch, i)
			if err != nil {
				h.Release()
				return err
			}
			if !hand(h, b) {
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

// rest opens a block of a chunk's that was not read ahead, after that before it.
func (c *cursor) rest(ctx context.Context, h *keyring.Hold, ch *chunk, i int) (Block, error) {
	if i == ch.rest {
		ch.seek(c.data, i)
	} else {
		c.data.Next()
	}
	at, err := ch.pair(c.s, c.data, i)
	if err == nil {
		at.value, err = c.open(ctx, h, at)
	}
	if err != nil {
		return Block{}, fmt.Errorf("block %s: %w", shownID(at.id), err)
	}
	if i == len(ch.records)-1 {
		c.data.Next()
		ch.err = ch.end(c.s, c.data)
	}
	return Block{ID: at.id, Data: at.value}, nil
}

// cursor walks DEK records and sealed blocks side by side. Every use of it is
// inside a hold of one session, so that Close finds it at rest.
type cursor struct {
	s          *Store
	data, deks engine.Cursor
	r          Range
	started    bool
	onData     bool   // what the current pair consists of
	onDEK      bool   //
	id         []byte // the current block's id
	plain      []byte // the current block's plaintext
}

func (s *Store) newCursor(ctx context.Context, rd engine.Reader, r Range) (*cursor, error) {
	if err := r.ordered(); err != nil {
		return nil, err
	}
	data, err := rd.Cursor(ctx, engine.Sealed, r.Start, r.End)
	if err != nil {
		return nil, s.damage(err)
	}
	deks, err := data.Clone(engine.Record, r.Start, r.End) // the same state of the engine
	if err != nil {
		return nil, errors.Join(s.damage(err), data.Close())
	}
	c := &cursor{s: s, data: data, deks: deks, r: r}
	s.track(c)
	return c, nil
}

// Close implements [io.Closer], for Store.Close.
func (c *cursor) Close() error {
	return errors.Join(c.data.Close(), c.deks.Close())
}

var _ io.Closer = (*cursor)(nil)

// pair is what the engine has of one block: its record and its sealed data, of
// which one may be missing. The slices are the engine's, until the next step.
type pair struct{ id, record, value []byte }

// whole reports what is missing of the current pair.
func (c *cursor) whole() error {
	switch {
	case !c.onDEK:
		return errNoRecord
	case !c.onData:
		return errNoData
	}
	return nil
}

// pair moves to the next block and reports whether there is one.
func (c *cursor) pair() (p pair, ok bool, err error) {
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
		return p, false, c.s.damage(err)
	}
	order := 0 // which of the two is first
	switch {
	case !c.data.Valid() && !c.deks.Valid():
		return p, false, nil
	case !c.deks.Valid():
		order = -1
	case !c.data.Valid():
		order = 1
	default:
		order = bytes.Compare(c.data.ID(), c.deks.ID())
	}
	c.onData, c.onDEK = order <= 0, order >= 0
	if c.onData {
		c.id = append(c.id[:0], c.data.ID()...)
		if p.value, err = c.data.Value(); err != nil {
			return p, false, c.s.damage(err)
		}
	}
	if c.onDEK {
		c.id = append(c.id[:0], c.deks.ID()...)
		if p.record, err = c.deks.Value(); err != nil {
			return p, false, c.s.damage(err)
		}
	}
	p.id = c.id
	return p, true, nil
}

// open opens a whole pair. The result is valid until the next open.
func (c *cursor) open(ctx context.Context, h *keyring.Hold, p pair) ([]byte, error) {
	c.plain = roomFor(c.plain, p.value)
	out, err := c.s.openPair(ctx, h, p, c.plain)
	if err != nil {
		return nil, err
	}
	c.plain = out
	return out, nil
}

// roomFor returns buf, empty, with room for a sealed block once it is open. A buffer that is
// too small is overwritten: nobody else would, once it is outgrown.
func roomFor(buf, sealed []byte) []byte {
	if len(sealed) <= cap(buf) {
		return buf[:0]
	}
	clear(buf[:cap(buf)])
	return make([]byte, 0, len(sealed))
}

// openPair appends the block of a whole pair to dst.
func (s *Store) openPair(ctx context.Context, h *keyring.Hold, p pair, dst []byte) ([]byte, error) {
	sc := s.take(p.id)
	defer s.give(sc)
	sc.row.Record = append(sc.row.Record[:0], p.record...)
	return s.unseal(ctx, h, sc, p.value, dst)
}

// next moves to the next block and opens it.
func (c *cursor) next(ctx context.Context, h *keyring.Hold) (Block, bool, error) {
	p, ok, err := c.pair()
	if err != nil || !ok {
		return Block{}, false, err
	}
	if err = c.whole(); err == nil {
		p.value, err = c.open(ctx, h, p)
	}
	if err != nil {
		return Block{}, false, fmt.Errorf("block %s: %w", shownID(p.id), err)
	}
	return Block{ID: p.id, Data: p.value}, true, nil
}
