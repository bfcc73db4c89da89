//go:build !race

// With -batch.full a batch of a GiB, which one goroutine fills: the race detector would look at each byte.

package block_test

import (
	"flag"
	"fmt"
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/blockseal/blockseal/block"
)

var batchFull = flag.Bool("batch.full", false, "fill TestBatchTooLarge's batch of a GiB with data, most of which it otherwise only counts")

// A batch is bounded: neither a block nor enough deletions go beyond MaxBatch, and a batch that
// refused one commits nothing.
func TestBatchTooLarge(t *testing.T) {
	g := newRig(t)
	s := g.open()
	b := s.NewBatch()
	defer b.Close()
	data := make([]byte, block.MaxBlock)
	require.NoError(t, b.Put(g.ctx, []byte("first"), data))
	blocks := block.MaxBatch/block.MaxBlock - 2
	if !*batchFull {
		undo := b.Weigh((blocks - 1) * block.MaxBlock)
		defer undo()
		blocks = 1
	}
	for i := range blocks {
		require.NoError(t, b.Put(g.ctx, fmt.Appendf(nil, "%d", i), data))
	}
	id := make([]byte, block.MaxID)
	var err error
	for i := 0; err == nil && i <= block.MaxBlock/block.MaxID; i++ {
		copy(id, fmt.Sprintf("%08d", i))
		err = b.Delete(g.ctx, id)
	}
	require.ErrorIs(t, err, block.ErrTooLarge, "the deletions grew beyond the bound")
	require.ErrorIs(t, b.Commit(g.ctx), block.ErrTooLarge)
	b.Unspoil() // a second batch of this size takes as long again
	require.ErrorIs(t, b.Put(g.ctx, []byte("one more"), data), block.ErrTooLarge)
	require.ErrorIs(t, b.Commit(g.ctx), block.ErrTooLarge)
}
