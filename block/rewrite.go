package block

import (
	"bytes"
	"context"
	"errors"
	"fmt"

	"github.com/blockseal/blockseal/internal/engine"
	"github.com/blockseal/blockseal/keyring"
)

// rewriteChunk is how many records a rewriting operation replaces at a time: a few
// hundred microseconds during which no other change is applied.
const rewriteChunk = 128

// rewriteBytes bounds the plaintext that is re-encrypted at a time.
const rewriteBytes = 1 << 20

// rewriter replaces records, and blocks with them, that were read before, unless
// they were written in between: writers always win.
type rewriter struct {
	s     *Store
	batch engine.Batch
	was   []change
	bytes int
}

// change is one replacement, and the record that it replaces.
type change struct {
	id  []byte
	old []byte
}

func (s *Store) newRewriter() *rewriter { return &rewriter{s: s, batch: s.db.NewBatch()} }

// full reports whether it is time to flush.
func (w *rewriter) full() bool { return len(w.was) >= rewriteChunk || w.bytes >= rewriteBytes }

// flush commits what was prepared, and returns how many changes it left out
// because somebody else had written the block. It is not durable yet.
func (w *rewriter) flush(h *keyring.Hold) (lost int, err error) {
	if len(w.was) == 0 {
		return 0, nil
	}
	defer w.reset()
	s := w.s
	s.gate.Lock()
	defer s.gate.Unlock()
	skip := map[string]bool{}
	for _, c := range w.was {
		same, err := s.recordIs(c.id, c.old)
		if err != nil {
			return 0, err
		}
		if !same {
			skip[string(c.id)] = true
		}
	}
	out := w.batch
	if len(skip) > 0 {
		out = s.db.NewBatch()
		defer out.Close()
		if err := w.batch.Each(func(key, value []byte, _ bool) error {
			if skip[string(key[prefixSize:])] {
				return nil
			}
			return out.Set(key, value)
		}); err != nil {
			return 0, err
		}
	}
	if out.Empty() {
		return len(skip), nil
	}
	if err := out.Each(func(key, value []byte, _ bool) error {
		if key[0] == spaceDEK {
			s.records.put(key[prefixSize:], value)
		}
		return nil
	}); err != nil {
		return 0, err
	}
	return len(skip), s.db.Apply(out, false)
}

func (w *rewriter) reset() {
	w.batch.Close()
	w.batch = w.s.db.NewBatch()
	w.was, w.bytes = w.was[:0], 0
}

// recordIs reports whether a block's DEK record is the given one still. s.gate is
// held.
func (s *Store) recordIs(id, record []byte) (bool, error) {
	v, closer, err := s.db.Get(appendKey(nil, spaceDEK, 0, id))
	if errors.Is(err, engine.ErrNotFound) {
		return false, nil
	}
	if err != nil {
		return false, s.damage(err)
	}
	defer closer.Close()
	return bytes.Equal(v, record), nil
}

// Close implements [io.Closer], for Store.Close.
func (w *rewriter) Close() error { return w.batch.Close() }

// makeDurable waits until everything applied so far is.
func (s *Store) makeDurable() error {
	b := s.db.NewBatch()
	defer b.Close()
	if err := b.LogData(nil); err != nil {
		return err
	}
	return s.db.Commit(b, true)
}

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
	case <-ctx.Done():
		return fmt.Errorf("block: %s: %w", what, ctx.Err())
	case <-s.ctx.Done():
		return fmt.Errorf("block: %s: %w", what, ErrClosed)
	}
}
