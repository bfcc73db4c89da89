package pause

import (
	"context"
	"errors"
	"fmt"

	"github.com/blockseal/blockseal/internal/engine"
)

// batch is a batch of one session. It is pooled, because each Put makes one.
type batch struct {
	e       *Engine
	s       *session
	p       *partition
	b       engine.Batch // nil: there was no session
	err     error        // why not
	waiting bool         // it was applied with sync, and the session does not end before Wait
}

// NewBatch implements [engine.Rows]. Without a session it returns a batch that refuses everything.
func (p *partition) NewBatch() engine.Batch {
	b := p.e.batches.Get().(*batch)
	b.e, b.p = p.e, p
	s, in, err := p.begin(context.Background())
	if err != nil {
		b.err = err
		return b
	}
	defer s.done()
	b.s, b.b = s, in.NewBatch()
	return b
}

// Put implements [engine.Batch]. It is the batch's memory, so that no call of the session is needed.
func (b *batch) Put(id, record []byte, size int) ([]byte, error) {
	if b.b == nil {
		return nil, b.err
	}
	return b.b.Put(id, record, size)
}

// PutLater implements [engine.Batch].
func (b *batch) PutLater(id []byte, record, size int) (rec, sealed []byte, err error) {
	if b.b == nil {
		return nil, nil, b.err
	}
	return b.b.PutLater(id, record, size)
}

// Spare implements [engine.Batch].
func (b *batch) Spare() int {
	if b.b == nil {
		return 0
	}
	return b.b.Spare()
}

// Grow implements [engine.Batch].
func (b *batch) Grow(n int) error {
	if b.b == nil {
		return b.err
	}
	return b.b.Grow(n)
}

// PutRecord implements [engine.Batch].
func (b *batch) PutRecord(id, record []byte) error {
	if b.b == nil {
		return b.err
	}
	return b.b.PutRecord(id, record)
}

// Delete implements [engine.Batch].
func (b *batch) Delete(id []byte) error {
	if b.b == nil {
		return b.err
	}
	return b.b.Delete(id)
}

// Op implements [engine.Batch].
func (b *batch) Op(at int) (engine.Op, int, error) {
	if b.b == nil {
		return engine.Op{}, 0, b.err
	}
	return b.b.Op(at)
}

// Size implements [engine.Batch].
func (b *batch) Size() int {
	if b.b == nil {
		return 0
	}
	return b.b.Size()
}

// Empty implements [engine.Batch].
func (b *batch) Empty() bool { return b.b == nil || b.b.Empty() }

// Wait implements [engine.Batch].
func (b *batch) Wait() error {
	if b.b == nil {
		return b.err
	}
	if !b.waiting {
		return b.b.Wait()
	}
	b.waiting = false
	err := b.s.wrote(b.b.Wait())
	b.s.done()
	return err
}

// Close implements [io.Closer].
func (b *batch) Close() (err error) {
	if b.waiting {
		_ = b.Wait()
	}
	if b.b != nil {
		err = b.b.Close()
	}
	e := b.e
	*b = batch{}
	e.batches.Put(b)
	return err
}

// own begins a call in the session of a batch, which the caller ends.
func (p *partition) own(ctx context.Context, of engine.Batch) (*batch, engine.Partition, error) {
	b, ok := of.(*batch)
	switch {
	case !ok || b.p != p && (b.p == nil || b.p.number != p.number):
		return nil, nil, fmt.Errorf("engine: the batch was made for another partition than %d", p.number)
	case b.b == nil:
		return nil, nil, b.err
	}
	if err := begin(ctx, b.s, p.e); err != nil {
		return nil, nil, err
	}
	// The session goes on, so that the present one is the batch's.
	in, err := p.in(b.s)
	if err != nil {
		b.s.done()
		return nil, nil, err
	}
	return b, in, nil
}

// Apply implements [engine.Rows].
func (p *partition) Apply(ctx context.Context, of engine.Batch, g engine.Guard, sync bool) error {
	b, in, err := p.own(ctx, of)
	if err != nil {
		return err
	}
	err = in.Apply(ctx, b.b, g, sync)
	switch {
	case err != nil:
		err = b.s.refused(err)
	case sync:
		b.waiting = true // and Wait ends the call
		return nil
	default:
		err = b.s.wrote(nil)
	}
	b.s.done()
	return err
}

// refused is the error of a write that the engine refused; once the session has ended it is why.
func (s *session) refused(err error) error {
	if errors.Is(err, engine.ErrFloor) || errors.Is(err, engine.ErrChanged) {
		return err
	}
	return s.wrote(err)
}

// Replace implements [engine.Rows].
func (p *partition) Replace(ctx context.Context, of engine.Batch, was []engine.Was) (lost int, err error) {
	b, in, err := p.own(ctx, of)
	if err != nil {
		return 0, err
	}
	defer b.s.done()
	lost, err = in.Replace(ctx, b.b, was)
	return lost, b.s.refused(err)
}
