package block

import (
	"context"
	"fmt"
	"iter"
	"slices"

	"github.com/blockseal/blockseal/internal/engine"
	"github.com/blockseal/blockseal/internal/tally"
	"github.com/blockseal/blockseal/keyring"
)

// Range is the ids from Start, inclusive, to End, exclusive, in byte order. A nil bound is none.
type Range struct {
	Start, End []byte
	// Reverse has a walk go from the greatest id to the least. [Store.Rekey] ignores it.
	Reverse bool
}

// Prefix returns the range of the ids that begin with p; all ids if p is empty.
func Prefix(p []byte) Range {
	r := Range{Start: slices.Clone(p)}
	for i := len(p) - 1; i >= 0; i-- {
		if p[i] < 0xff { // the last byte that can be raised ends the range
			r.End = slices.Clone(p[:i+1])
			r.End[i]++
			break
		}
	}
	return r
}

// Block is a block of a scan. ID and Data are valid until the next step: copy what you keep.
type Block struct{ ID, Data []byte }

// Blocks walks the blocks of r in order, as they are when the walk begins. A walk ends with its
// first error, which comes with an empty Block; after the store went Inaccessible, the next step is
// [ErrInaccessible].
//
//	for b, err := range s.Blocks(ctx, block.Range{}) {
//		if err != nil { ... }
//	}
func (s *Store) Blocks(ctx context.Context, r Range) iter.Seq2[Block, error] {
	return s.walk(ctx, r, s.now)
}

// IDs walks the ids of the blocks of r in order, as they are when the walk begins. It opens no
// block and costs a small part of [Store.Blocks]; a damaged block has an id too. An id is valid
// until the next step. A walk ends with its first error, which comes with a nil id; after the store
// went Inaccessible, the next step is [ErrInaccessible]. Erase refuses with [ErrPinned] while a
// walk is open.
func (s *Store) IDs(ctx context.Context, r Range) iter.Seq2[[]byte, error] {
	return s.ids(ctx, r, s.now)
}

// now begins a walk over the store as it is.
func (s *Store) now() (keyring.Hold, engine.Reader, error) {
	h, err := s.keys.Acquire()
	return h, s.table.Part, err
}

func (s *Store) ids(ctx context.Context, r Range, begin func() (keyring.Hold, engine.Reader, error)) iter.Seq2[[]byte, error] {
	return func(yield func([]byte, error) bool) {
		err := s.table.EachID(ctx, r.Start, r.End, r.Reverse, begin, func(id []byte) bool { return yield(id, nil) })
		if err != nil {
			s.counts.Fail(tally.Scan, err)
			yield(nil, fmt.Errorf("block: ids: %w", err))
		}
	}
}

// walk is Blocks over what begin returns. It calls begin when the walk begins.
func (s *Store) walk(ctx context.Context, r Range, begin func() (keyring.Hold, engine.Reader, error)) iter.Seq2[Block, error] {
	return func(yield func(Block, error) bool) {
		err := s.table.Walk(ctx, r.Start, r.End, r.Reverse, begin, func(id, data []byte) bool {
			s.counts.Scanned(len(data))
			return yield(Block{ID: id, Data: data}, nil)
		})
		if err != nil {
			s.counts.Fail(tally.Scan, err)
			yield(Block{}, fmt.Errorf("block: scan: %w", err))
		}
	}
}
