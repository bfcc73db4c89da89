//go:build !race

// A batch of a GiB, which one goroutine fills: the race detector would look at each byte.

package block_test

import (
	"fmt"
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/blockseal/blockseal/block"
)

func TestBatchTooLarge(t *testing.T) {
	g := newRig(t)
	s := g.open()
	b := s.NewBatch()
	defer b.Close()
	data := make([]byte, block.MaxBlock)
	for i := range block.MaxBatch / block.MaxBlock {
		err := b.Put(g.ctx, fmt.Appendf(nil, "%d", i), data)
		if err != nil {
			require.ErrorIs(t, err, block.ErrTooLarge)
			require.ErrorIs(t, b.Commit(g.ctx), block.ErrTooLarge)
			return
		}
	}
	t.Fatal("the batch grew beyond its bound")
}

// Deletions count as well.
func TestBatchOfDeletionsIsBounded(t *testing.T) {
	g := newRig(t)
	s := g.open()
	b := s.NewBatch()
	defer b.Close()
	data := make([]byte, block.MaxBlock)
	for i := range block.MaxBatch/block.MaxBlock - 1 {
		require.NoError(t, b.Put(g.ctx, fmt.Appendf(nil, "%d", i), data))
	}
	id := make([]byte, block.MaxID)
	for i := range block.MaxBlock / block.MaxID {
		copy(id, fmt.Sprintf("%08d", i))
		if err := b.Delete(g.ctx, id); err != nil {
			require.ErrorIs(t, err, block.ErrTooLarge)
			require.ErrorIs(t, b.Commit(g.ctx), block.ErrTooLarge)
			return
		}
	}
	t.Fatal("the batch grew beyond its bound")
}
