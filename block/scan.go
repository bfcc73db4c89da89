package block

import (
	"context"
	"fmt"
	"iter"

	"github.com/blockseal/blockseal/internal/engine"
	"github.com/blockseal/blockseal/internal/tally"
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
		return h, s.table.Part, err
	})
}

// walk is Blocks over what begin returns, which is called when the walk begins.
func (s *Store) walk(ctx context.Context, r Range, begin func() (keyring.Hold, engine.Reader, error)) iter.Seq2[Block, error] {
	return func(yield func(Block, error) bool) {
		err := s.table.Walk(ctx, r.Start, r.End, begin, func(id, data []byte) bool {
			s.counts.Scanned(len(data))
			return yield(Block{ID: id, Data: data}, nil)
		})
		if err != nil {
			s.counts.Fail(tally.Scan, err)
			yield(Block{}, fmt.Errorf("block: scan: %w", err))
		}
	}
}
