package pause

import (
	"context"
	"fmt"

	"github.com/blockseal/blockseal/internal/engine"
)

// pinned is what a Row keeps of this engine: the row that the engine beneath has found. Until it is
// released the session does not end, because the sealed block is the engine's memory; its readers open it
// and ask nobody meanwhile.
type pinned struct {
	row engine.Row
	s   *session // nil: released
}

// Release implements [engine.Held].
func (h *pinned) Release() {
	if s := h.s; s != nil {
		h.s = nil
		h.row.Release()
		s.done()
	}
}

// get is Get of a partition or of a view, in a call of s that it ends, or leaves to the row.
func get(ctx context.Context, s *session, r engine.Reader, id []byte, want engine.Parts, row *engine.Row) error {
	h, ok := row.Held.(*pinned)
	if !ok {
		h = new(pinned)
		row.Held = h
	}
	h.row.Record = row.Record
	err := r.Get(ctx, id, want, &h.row)
	row.Has, row.Record, row.Sealed = h.row.Has, h.row.Record, h.row.Sealed
	if err != nil {
		row.Sealed = nil
		err = s.read(err)
		s.done()
		return err
	}
	h.s = s
	return nil
}

// Get implements [engine.Reader].
func (p *partition) Get(ctx context.Context, id []byte, want engine.Parts, row *engine.Row) error {
	row.Release()
	row.Has = 0
	s, in, err := p.begin(ctx)
	if err != nil {
		return err
	}
	return get(ctx, s, in, id, want, row)
}

// Cursor implements [engine.Reader].
func (p *partition) Cursor(ctx context.Context, part engine.Parts, lower, upper []byte) (engine.Cursor, error) {
	s, in, err := p.begin(ctx)
	if err != nil {
		return nil, err
	}
	defer s.done()
	c, err := in.Cursor(ctx, part, lower, upper)
	return newCursor(s, c, err)
}

// view is a view of one session.
type view struct {
	s *session
	v engine.View
	p *partition
}

// View implements [engine.Partition].
func (p *partition) View(ctx context.Context) (engine.View, error) {
	s, in, err := p.begin(ctx)
	if err != nil {
		return nil, err
	}
	defer s.done()
	v, err := in.View(ctx)
	if err != nil {
		return nil, s.read(err)
	}
	s.keep(v)
	return &view{s: s, v: v, p: p}, nil
}

// begin begins a call in the view's session.
func (v *view) begin(ctx context.Context) error { return begin(ctx, v.s, v.p.e) }

// begin is Engine.begin, in a session that may have ended.
func begin(ctx context.Context, s *session, e *Engine) error {
	if err := s.begin(); err != nil {
		return overtaken(err)
	}
	err := ctx.Err()
	if err == nil && e != nil && e.ready != nil {
		err = e.ready()
	}
	if err != nil {
		s.done()
	}
	return err
}

// overtaken is the error of what was begun in a session that has ended.
func overtaken(why error) error {
	return fmt.Errorf("%w: it was begun before the engine was closed, and cannot go on: %w", engine.ErrViewEnded, why)
}

// Get implements [engine.Reader].
func (v *view) Get(ctx context.Context, id []byte, want engine.Parts, row *engine.Row) error {
	row.Release()
	row.Has = 0
	if err := v.begin(ctx); err != nil {
		return err
	}
	return get(ctx, v.s, v.v, id, want, row)
}

// Cursor implements [engine.Reader].
func (v *view) Cursor(ctx context.Context, part engine.Parts, lower, upper []byte) (engine.Cursor, error) {
	if err := v.begin(ctx); err != nil {
		return nil, err
	}
	defer v.s.done()
	c, err := v.v.Cursor(ctx, part, lower, upper)
	return newCursor(v.s, c, err)
}

// Close implements [io.Closer].
func (v *view) Close() error { return v.s.finish(v.v) }

// cursor is a cursor of one session. What it returns is its own memory: the engine's may go between two
// calls.
type cursor struct {
	s         *session
	c         engine.Cursor
	id, value []byte
	valid     bool
	err       error // why it was refused
}

func newCursor(s *session, c engine.Cursor, err error) (engine.Cursor, error) {
	if err != nil {
		return nil, s.read(err)
	}
	s.keep(c)
	return &cursor{s: s, c: c}, nil
}

// begin begins a call in the cursor's session.
func (c *cursor) begin() bool {
	if why := c.s.begin(); why != nil {
		c.valid, c.err = false, overtaken(why)
		return false
	}
	return true
}

func (c *cursor) moved(valid bool) bool {
	if c.valid = valid; valid {
		c.id = append(c.id[:0], c.c.ID()...)
	}
	c.s.done()
	return valid
}

// First implements [engine.Cursor].
func (c *cursor) First() bool { return c.begin() && c.moved(c.c.First()) }

// Last implements [engine.Cursor].
func (c *cursor) Last() bool { return c.begin() && c.moved(c.c.Last()) }

// Next implements [engine.Cursor].
func (c *cursor) Next() bool { return c.begin() && c.moved(c.c.Next()) }

// Prev implements [engine.Cursor].
func (c *cursor) Prev() bool { return c.begin() && c.moved(c.c.Prev()) }

// SeekGE implements [engine.Cursor].
func (c *cursor) SeekGE(id []byte) bool { return c.begin() && c.moved(c.c.SeekGE(id)) }

// SeekLT implements [engine.Cursor].
func (c *cursor) SeekLT(id []byte) bool { return c.begin() && c.moved(c.c.SeekLT(id)) }

// Valid implements [engine.Cursor].
func (c *cursor) Valid() bool { return c.valid }

// ID implements [engine.Cursor].
func (c *cursor) ID() []byte { return c.id }

// Value implements [engine.Cursor].
func (c *cursor) Value() ([]byte, error) {
	if !c.begin() {
		return nil, c.err
	}
	defer c.s.done()
	v, err := c.c.Value()
	if err != nil {
		return nil, c.s.read(err)
	}
	c.value = append(c.value[:0], v...)
	return c.value, nil
}

// Size implements [engine.Cursor].
func (c *cursor) Size() int {
	if !c.begin() {
		return 0
	}
	defer c.s.done()
	return c.c.Size()
}

// Err implements [engine.Cursor].
func (c *cursor) Err() error {
	if c.err != nil {
		return c.err
	}
	if !c.begin() {
		return c.err
	}
	defer c.s.done()
	return c.s.read(c.c.Err())
}

// Clone implements [engine.Cursor].
func (c *cursor) Clone(part engine.Parts, lower, upper []byte) (engine.Cursor, error) {
	if !c.begin() {
		return nil, c.err
	}
	defer c.s.done()
	clone, err := c.c.Clone(part, lower, upper)
	return newCursor(c.s, clone, err)
}

// Close implements [io.Closer].
func (c *cursor) Close() error { return c.s.finish(c.c) }
