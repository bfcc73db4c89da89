package block_test

import (
	"bytes"
	"slices"
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/blockseal/blockseal/block"
	"github.com/blockseal/blockseal/internal/test/race"
)

func TestLimits(t *testing.T) {
	g := newRig(t)
	s := g.open()
	long := bytes.Repeat([]byte{0xff}, block.MaxID)
	for _, id := range [][]byte{{0}, {0xff}, []byte("a\x00b"), []byte("a/b"), {0, 0, 0, 0}, long} {
		require.NoError(t, s.Put(g.ctx, id, id))
		got, err := s.Get(g.ctx, id, nil)
		require.NoError(t, err)
		require.Equal(t, id, got)
	}
	for _, id := range [][]byte{nil, {}, append(long, 0)} {
		for what, err := range map[string]error{
			"put":          s.Put(g.ctx, id, nil),
			"delete":       s.Delete(g.ctx, id),
			"batch put":    s.NewBatch().Put(g.ctx, id, nil),
			"batch delete": s.NewBatch().Delete(g.ctx, id),
			"get":          second(s.Get(g.ctx, id, nil)),
			"has":          second(s.Has(g.ctx, id)),
			"snapshot":     second(s.Snapshot().Get(g.ctx, id, nil)),
		} {
			require.ErrorIs(t, err, block.ErrInvalidID, what)
			require.ErrorContains(t, err, "want 1 to 4096", what)
		}
	}
	rep, err := s.Verify(g.ctx, nil)
	require.NoError(t, err)
	require.EqualValues(t, 6, rep.Blocks, "a refused change changes nothing")
}

func second[T any](_ T, err error) error { return err }

func TestBlockSizes(t *testing.T) {
	var period [256]byte
	for i := range period {
		period[i] = byte(i * 7)
	}
	pattern := func(n int) []byte { return bytes.Repeat(period[:], n/256+1)[:n] }

	g := newRig(t)
	s := g.open()
	sizes := []int{0, 1, 15, 16, 17, 1023, 1024, 4096, 65537, block.MaxBlock}
	if race.Enabled { // which looks at each byte, and nothing is shared here
		sizes[len(sizes)-1] = 1 << 20
	}
	for _, n := range sizes {
		data := pattern(n)
		require.NoError(t, s.Put(g.ctx, []byte("b"), data))
		got, err := s.Get(g.ctx, []byte("b"), nil)
		require.NoError(t, err)
		require.True(t, bytes.Equal(data, got), "%d bytes", n)
	}
	tooLarge := make([]byte, block.MaxBlock+1)
	require.ErrorIs(t, s.Put(g.ctx, []byte("b"), tooLarge), block.ErrTooLarge)
	require.ErrorIs(t, s.NewBatch().Put(g.ctx, []byte("b"), tooLarge), block.ErrTooLarge)
	got, err := s.Get(g.ctx, []byte("b"), nil)
	require.NoError(t, err)
	require.Len(t, got, sizes[len(sizes)-1])
}

// Scans are in the order of the ids' bytes, and ranges are half open.
func TestScanOrderAndRanges(t *testing.T) {
	g := newRig(t)
	s := g.open()
	ids := [][]byte{{0}, {0, 0}, {0, 1}, []byte("a"), []byte("a\x00"), []byte("aa"), []byte("b"), {0xff}, {0xff, 0xff}}
	for _, i := range []int{4, 0, 8, 2, 6, 1, 7, 3, 5} {
		require.NoError(t, s.Put(g.ctx, ids[i], ids[i]))
	}
	scan := func(r block.Range) (out [][]byte) {
		for b, err := range s.Blocks(g.ctx, r) {
			require.NoError(t, err)
			require.Equal(t, b.ID, b.Data)
			out = append(out, bytes.Clone(b.ID))
		}
		return out
	}
	require.Equal(t, ids, scan(block.Range{}))
	require.Equal(t, ids[3:6], scan(block.Range{Start: []byte("a"), End: []byte("b")}))
	require.Equal(t, ids[5:], scan(block.Range{Start: []byte("aa")}))
	require.Equal(t, ids[:7], scan(block.Range{End: []byte{0xff}}))
	require.Empty(t, scan(block.Range{Start: []byte("x"), End: []byte("x")}))
	require.Empty(t, scan(block.Range{End: []byte{}}))
	for _, err := range s.Blocks(g.ctx, block.Range{Start: []byte("b"), End: []byte("a")}) {
		require.ErrorIs(t, err, block.ErrInvalidID)
	}
	// A scan sees the blocks as they were when it began.
	n := 0
	for b, err := range s.Blocks(g.ctx, block.Range{}) {
		require.NoError(t, err)
		require.NoError(t, s.Delete(g.ctx, b.ID))
		require.NoError(t, s.Put(g.ctx, append(slices.Clone(b.ID), 'x'), nil))
		n++
	}
	require.Equal(t, len(ids), n)
}

func TestHasAndDelete(t *testing.T) {
	g := newRig(t)
	s := g.open()
	has := func() bool {
		ok, err := s.Has(g.ctx, []byte("a"))
		require.NoError(t, err)
		return ok
	}
	require.False(t, has())
	require.NoError(t, s.Delete(g.ctx, []byte("a")), "deleting what is not there is no error")
	require.NoError(t, s.Put(g.ctx, []byte("a"), nil))
	require.True(t, has())
	require.NoError(t, s.Delete(g.ctx, []byte("a")))
	require.False(t, has())
	_, err := s.Get(g.ctx, []byte("a"), nil)
	require.ErrorIs(t, err, block.ErrNotFound)
	require.EqualError(t, err, `block: get "a": block not found`)
}
