package block

import (
	"context"
	"fmt"

	"github.com/blockseal/blockseal/internal/engine"
)

// steps is how a long rewriting operation is divided.
type steps struct {
	// records is how many of them are replaced at a time: a few hundred microseconds
	// during which no other change is applied.
	records int
	bytes   int // bounds the plaintext that is re-encrypted at a time
	mark    int // how many steps pass between two markers
}

func defaultSteps() steps { return steps{records: 128, bytes: 1 << 20, mark: 64} }

// rewriter replaces records, and blocks with them, that were read before, unless
// they were written in between: writers always win.
type rewriter struct {
	s     *Store
	batch engine.Batch
	was   []engine.Was // the records that are replaced
	bytes int
}

func (s *Store) newRewriter() *rewriter { return &rewriter{s: s, batch: s.part.NewBatch()} }

// full reports whether it is time to flush.
func (w *rewriter) full() bool {
	return len(w.was) >= w.s.steps.records || w.bytes >= w.s.steps.bytes
}

// flush commits what was prepared, but for what somebody else has written meanwhile. It is
// not durable yet.
func (w *rewriter) flush(ctx context.Context) error {
	if len(w.was) == 0 {
		return nil
	}
	defer w.reset()
	s := w.s
	lost, err := s.part.Replace(ctx, w.batch, w.was)
	if err != nil {
		return s.damage(err)
	}
	if lost == len(w.was) {
		return nil
	}
	s.changed()
	c, next, err := w.batch.Change(0)
	for ; err == nil && next > 0; c, next, err = w.batch.Change(next) {
		s.records.replace(c.ID, c.Record)
	}
	return nil // what is in the cache is not trusted
}

func (w *rewriter) reset() {
	w.batch.Close()
	w.batch = w.s.part.NewBatch()
	w.was, w.bytes = w.was[:0], 0
}

// Close implements [io.Closer], for Store.Close.
func (w *rewriter) Close() error { return w.batch.Close() }

// takeRewriting takes the turn of rewriting operations; give it back by receiving
// from s.rewriting.
func (s *Store) takeRewriting(ctx context.Context, what string) error {
	if s.opts.ReadOnly {
		return fmt.Errorf("block: %s: %w", what, ErrReadOnly)
	}
	if s.ctx.Err() != nil {
		return fmt.Errorf("block: %s: %w", what, ErrClosed)
	}
	select {
	case s.rewriting <- struct{}{}:
		return nil
	default:
	}
	if err := s.refuseFromProgress(); err != nil {
		return fmt.Errorf("block: %s: %w", what, err)
	}
	select {
	case s.rewriting <- struct{}{}:
		return nil
	case <-ctx.Done():
		return fmt.Errorf("block: %s: %w", what, ctx.Err())
	case <-s.ctx.Done():
		return fmt.Errorf("block: %s: %w", what, ErrClosed)
	}
}
