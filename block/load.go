package block

import (
	"context"
	"fmt"
	"iter"

	"github.com/blockseal/blockseal/internal/inner"
	"github.com/blockseal/blockseal/internal/row"
	"github.com/blockseal/blockseal/internal/tally"
)

// Load puts many blocks at once: all of them or, if it returns an error, none. Their ids ascend in
// byte order, each comes once, and an error that comes with a block ends the load. So what
// [Store.Blocks] walks in one store can be loaded into another. A block's ID and Data are the caller's
// again at the next step. Load returns how many blocks there were.
//
//	n, err := to.Load(ctx, from.Blocks(ctx, block.Range{}))
//
// Load writes the engine's tables directly, past its log and memtables, beside DEK records in tables
// of their own, and seals on several cores. Nothing is visible until all is durable, when it returns.
// The blocks replace what the store has under their ids by then, also what others have put since Load
// began. What is written meanwhile is not held up until the tables are taken up, which waits for the
// disk. A crash before that leaves nothing: what was written lies in the store's directory, as large as
// the blocks, and the next Open removes it. Erase refuses with [ErrPinned] during a load, and a
// rotation goes on beside it.
//
// Memory is bounded: some MiB, and the largest block a few times. A load ends with the session in which
// it began, with [ErrInaccessible] or [ErrClosed]; if access to DBOptions.FileKEK is lost while the
// tables are taken up, all blocks may be there all the same, and the error says that it is not known.
// With ByKEK, and on engines without tables (PostgreSQL), it returns [errors.ErrUnsupported]: put the
// blocks in batches there. Other errors are those of [Store.Put]. At most 5 goroutines work beside the
// caller's.
func (s *Store) Load(ctx context.Context, blocks iter.Seq2[Block, error]) (n uint64, err error) {
	var t tally.Batch
	defer func() {
		s.counts.Committed(t, err)
		if err != nil {
			n, err = 0, fmt.Errorf("block: load: %w", err)
		}
	}()
	if err := ctx.Err(); err != nil {
		return 0, err
	}
	h, err := s.writeHold(ctx)
	if err != nil {
		return 0, err
	}
	session := h.For(inner.Block{}).Session()
	defer h.Pin()() // what is sealed under an epoch is rewrapped when it is applied
	h.Release()
	pairs := func(yield func(row.Pair, error) bool) {
		for b, err := range blocks {
			if !yield(row.Pair{ID: b.ID, Value: b.Data}, err) {
				return
			}
		}
	}
	err = s.table.Load(ctx, session, pairs, func(size int) {
		n++
		t.Put(size)
	})
	return n, err
}
