// Package memory is an engine in memory, for tests: the smallest that passes the conformance suite
// (package enginetest), and the one to read first before writing another. Closing it loses all.
//
// The rows of a partition are a sorted slice that is replaced and never written to, so that a view
// is a pointer. A write costs time in proportion to the number of rows.
package memory

import (
	"bytes"
	"context"
	"fmt"
	"slices"
	"sync"
	"sync/atomic"

	"github.com/blockseal/blockseal/internal/engine"
)

// Engine is an engine in memory. New returns one.
type Engine struct {
	closed     atomic.Bool
	mu         sync.Mutex
	partitions map[uint32]*partition
}

// New returns an empty engine.
func New() *Engine { return &Engine{partitions: map[uint32]*partition{}} }

type partition struct {
	state // the present one
	e     *Engine

	writing sync.Mutex // held by whoever changes rows or the floor
	floor   atomic.Pointer[engine.Floor]
	meta    metaRecords
}

// state has rows in the order of their ids. The slice behind the pointer is never written to.
type state struct{ rows *atomic.Pointer[[]row] }

type row struct {
	id, record, sealed []byte
	has                engine.Parts
}

// Partition implements [engine.Engine].
func (e *Engine) Partition(number uint32) engine.Partition {
	e.mu.Lock()
	defer e.mu.Unlock()
	p := e.partitions[number]
	if p == nil {
		p = &partition{e: e, state: newState(nil), meta: metaRecords{of: map[string]metaRecord{}}}
		p.floor.Store(&engine.Floor{Revision: 1})
		e.partitions[number] = p
		return p
	}
	p.raise(func(f *engine.Floor) { f.Epoch, f.KEKs = 0, nil })
	return p
}

// Clear implements [engine.Partition].
func (p *partition) Clear(ctx context.Context) error {
	if err := p.e.ready(ctx); err != nil {
		return err
	}
	p.writing.Lock()
	defer p.writing.Unlock()
	p.meta.mu.Lock()
	defer p.meta.mu.Unlock()
	p.rows.Store(new([]row))
	clear(p.meta.of)
	f := *p.floor.Load()
	f.Revision++
	p.floor.Store(&f)
	return nil
}

// Release implements [engine.Partition]: what it holds is in memory alone, so it is kept.
func (p *partition) Release() {}

// Peek implements [engine.Engine].
func (e *Engine) Peek(ctx context.Context, number uint32, name string) ([]byte, error) {
	if err := e.ready(ctx); err != nil {
		return nil, err
	}
	e.mu.Lock()
	p := e.partitions[number]
	e.mu.Unlock()
	if p == nil {
		return nil, engine.ErrNotFound
	}
	value, _, err := p.LoadMeta(ctx, name)
	return value, err
}

// Close implements [engine.Engine].
func (e *Engine) Close() error {
	if e.closed.Swap(true) {
		return engine.ErrClosed
	}
	return nil
}

func (e *Engine) ready(ctx context.Context) error {
	if e.closed.Load() {
		return engine.ErrClosed
	}
	return ctx.Err()
}

func newState(rows []row) state {
	s := state{new(atomic.Pointer[[]row])}
	s.rows.Store(&rows)
	return s
}

func find(rows []row, id []byte) (at int, found bool) {
	return slices.BinarySearchFunc(rows, id, func(r row, id []byte) int { return bytes.Compare(r.id, id) })
}

func (s state) get(id []byte, want engine.Parts, out *engine.Row) error {
	out.Release()
	out.Has = 0
	rows := *s.rows.Load()
	at, found := find(rows, id)
	if !found || rows[at].has&want == 0 {
		return engine.ErrNotFound
	}
	r := rows[at]
	out.Has = r.has & want
	if out.Has&engine.Record != 0 {
		out.Record = append(out.Record[:0], r.record...)
	}
	if out.Has&engine.Sealed != 0 {
		out.Sealed = r.sealed
	}
	return nil
}

// Get implements [engine.Reader].
func (p *partition) Get(ctx context.Context, id []byte, want engine.Parts, out *engine.Row) error {
	out.Release()
	out.Has = 0
	if err := p.e.ready(ctx); err != nil {
		return err
	}
	return p.get(id, want, out)
}

// Cursor implements [engine.Reader].
func (p *partition) Cursor(ctx context.Context, part engine.Parts, lower, upper []byte) (engine.Cursor, error) {
	if err := p.e.ready(ctx); err != nil {
		return nil, err
	}
	return newCursor(*p.rows.Load(), part, lower, upper), nil
}

type view struct {
	state
	e *Engine
}

// View implements [engine.Partition].
func (p *partition) View(ctx context.Context) (engine.View, error) {
	if err := p.e.ready(ctx); err != nil {
		return nil, err
	}
	return &view{newState(*p.rows.Load()), p.e}, nil
}

// Get implements [engine.Reader].
func (v *view) Get(ctx context.Context, id []byte, want engine.Parts, out *engine.Row) error {
	out.Release()
	out.Has = 0
	if err := v.e.ready(ctx); err != nil {
		return err
	}
	return v.get(id, want, out)
}

// Cursor implements [engine.Reader].
func (v *view) Cursor(ctx context.Context, part engine.Parts, lower, upper []byte) (engine.Cursor, error) {
	if err := v.e.ready(ctx); err != nil {
		return nil, err
	}
	return newCursor(*v.rows.Load(), part, lower, upper), nil
}

// Close implements [engine.View].
func (v *view) Close() error { return nil }

// cursor walks the rows of a state that have a part.
type cursor struct {
	all  []row
	rows []row // between the bounds
	part engine.Parts
	at   int
}

func newCursor(all []row, part engine.Parts, lower, upper []byte) *cursor {
	from, _ := find(all, lower)
	to := len(all)
	if upper != nil {
		to, _ = find(all, upper)
	}
	rows := slices.DeleteFunc(slices.Clone(all[from:max(from, to)]), func(r row) bool { return r.has&part == 0 })
	return &cursor{all: all, rows: rows, part: part, at: len(rows)}
}

// Clone implements [engine.Cursor].
func (c *cursor) Clone(part engine.Parts, lower, upper []byte) (engine.Cursor, error) {
	return newCursor(c.all, part, lower, upper), nil
}

func (c *cursor) to(at int) bool {
	c.at = at
	return c.Valid()
}

func (c *cursor) First() bool           { return c.to(0) }
func (c *cursor) Last() bool            { return c.to(len(c.rows) - 1) }
func (c *cursor) Next() bool            { return c.to(min(c.at+1, len(c.rows))) }
func (c *cursor) Prev() bool            { return c.to(max(c.at-1, -1)) }
func (c *cursor) Valid() bool           { return c.at >= 0 && c.at < len(c.rows) }
func (c *cursor) ID() []byte            { return c.rows[c.at].id }
func (c *cursor) Size() int             { v, _ := c.Value(); return len(v) }
func (c *cursor) Err() error            { return nil }
func (c *cursor) Close() error          { return nil }
func (c *cursor) SeekGE(id []byte) bool { at, _ := find(c.rows, id); return c.to(at) }
func (c *cursor) SeekLT(id []byte) bool { at, _ := find(c.rows, id); return c.to(at - 1) }

// Value implements [engine.Cursor].
func (c *cursor) Value() ([]byte, error) {
	if c.part == engine.Record {
		return c.rows[c.at].record, nil
	}
	return c.rows[c.at].sealed, nil
}

// refused is the error of a batch that a floor does not admit.
func refused(f *engine.Floor, g engine.Guard) error {
	return fmt.Errorf("%w: it is epoch %d, revision %d; the batch names epoch %d and went by revision %d",
		engine.ErrFloor, f.Epoch, f.Revision, g.Epoch, g.Floor)
}
