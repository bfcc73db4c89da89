package block

import (
	"bytes"
	"context"
	"fmt"

	"github.com/blockseal/blockseal/internal/engine"
	"github.com/blockseal/blockseal/keyring"
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
func (w *rewriter) full() bool {
	return len(w.was) >= w.s.steps.records || w.bytes >= w.s.steps.bytes
}

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
	skip, err := s.overwritten(w.was)
	if err != nil {
		return 0, err
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
	if err := eachRecord(out, func(id, record []byte, _ bool) { s.records.replace(id, record) }); err != nil {
		return 0, err
	}
	if err := s.db.Apply(out, false); err != nil {
		return len(skip), err
	}
	s.changed()
	return len(skip), nil
}

func (w *rewriter) reset() {
	w.batch.Close()
	w.batch = w.s.db.NewBatch()
	w.was, w.bytes = w.was[:0], 0
}

// overwritten returns the ids of the changes whose record is not the one any more that
// was read before. The changes are in the order of their ids: one iterator goes from
// each to the next, which costs a tenth of looking each one up. s.gate is held.
func (s *Store) overwritten(was []change) (skip map[string]bool, err error) {
	upper := append(appendKey(nil, spaceDEK, 0, was[len(was)-1].id), 0)
	it, err := s.db.NewIter(appendKey(nil, spaceDEK, 0, was[0].id), upper)
	if err != nil {
		return nil, s.damage(err)
	}
	defer it.Close()
	skip = map[string]bool{}
	var key []byte
	for _, c := range was {
		key = appendKey(key[:0], spaceDEK, 0, c.id)
		found := it.SeekGE(key)
		if err := it.Err(); err != nil { // the next seek would forget it
			return nil, s.damage(err)
		}
		same := found && bytes.Equal(it.Key(), key)
		if same {
			record, err := it.Value()
			if err != nil {
				return nil, s.damage(err)
			}
			same = bytes.Equal(record, c.old)
		}
		if !same {
			skip[string(c.id)] = true
		}
	}
	return skip, nil
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
