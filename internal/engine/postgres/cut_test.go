package postgres

import (
	"bytes"
	"fmt"
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/blockseal/blockseal/internal/engine"
)

func TestCut(t *testing.T) {
	for size, tail := range map[int]int{
		0: 0, 1: 0, pieceSize - 1: 0, pieceSize: 0, pieceSize + 1: 1, pieceSize + tailSize: tailSize, pieceSize + tailSize + 1: 0,
		2*pieceSize - 1: 0, 2 * pieceSize: 0, 4096 + 28: 132, 64<<10 + 28: 0,
	} {
		sealed := bytes.Repeat([]byte{1}, size)
		d, r := cut(sealed)
		require.NotNil(t, d, size)
		require.Len(t, r, tail, size)
		require.Equal(t, tail == 0, r == nil, size)
		require.Equal(t, sealed, append(d, r...), size)
	}
	d, r := cut(nil)
	require.Nil(t, d)
	require.Nil(t, r)
}

// A block is read as it was put, wherever it was cut, in each way in which it is put and read, and also where there
// was one with another cut.
func TestBlocksThatAreCut(t *testing.T) {
	r := newRig(t, shared(t))
	r.put("floor", "floor")
	block := func(i, size int) []byte {
		out := make([]byte, size)
		for at := range out {
			out[at] = byte(at/pieceSize + at + i)
		}
		return out
	}
	sizes := []int{4124, 0, 2 * pieceSize, pieceSize + tailSize, 1, pieceSize + tailSize + 1, pieceSize + 1, 64 << 10, 3*pieceSize + 100, pieceSize}
	id := func(i int) []byte { return fmt.Appendf(nil, "id %d", i) }
	apply := func(b engine.Batch) {
		require.NoError(t, r.p.Apply(r.ctx, b, r.guard(), true))
		require.NoError(t, b.Close())
	}
	add := func(b engine.Batch, i, size int) {
		room, err := b.Put(id(i), []byte("record"), size)
		require.NoError(t, err)
		copy(room, block(i, size))
	}
	for turn, put := range []func(i []int){
		func(all []int) {
			for i, size := range all {
				b := r.p.NewBatch()
				add(b, i, size)
				apply(b)
			}
		},
		func(all []int) {
			b := r.p.NewBatch()
			for i, size := range all {
				add(b, i, size)
			}
			apply(b)
		},
		func(all []int) { // which is a transaction
			b := r.p.NewBatch()
			for i, size := range all {
				add(b, i, size)
			}
			require.NoError(t, b.Delete([]byte("none")))
			apply(b)
		},
		func(all []int) { // the blocks stay
			put := r.p.NewBatch()
			for i, size := range all {
				add(put, i, size)
			}
			apply(put)
			for i := range all {
				b := r.p.NewBatch()
				require.NoError(t, b.PutRecord(id(i), []byte("another")))
				apply(b)
			}
		},
	} {
		now := append(sizes[turn:len(sizes):len(sizes)], sizes[:turn]...)
		put(now)
		record := "record"
		if turn == 3 {
			record = "another"
		}
		c, err := r.p.Cursor(r.ctx, engine.Sealed, id(0), []byte("id :"))
		require.NoError(t, err)
		ok := c.First()
		for i, size := range now {
			var row engine.Row
			require.NoError(t, r.p.Get(r.ctx, id(i), engine.Both, &row))
			require.Equal(t, record, string(row.Record))
			require.Equal(t, block(i, size), row.Sealed, "turn %d, %d bytes", turn, size)
			require.NoError(t, r.p.Get(r.ctx, id(i), engine.Sealed, &row), "into the same memory")
			require.Equal(t, block(i, size), row.Sealed)
			require.True(t, ok)
			require.Equal(t, id(i), c.ID())
			value, err := c.Value()
			require.NoError(t, err)
			require.Equal(t, block(i, size), value)
			ok = c.Next()
		}
		require.False(t, ok)
		require.NoError(t, c.Close())
	}
}

// What it is for: a block of 4 KiB, sealed, has two rows out of line and not three.
func TestBlockOfFourKiBHasTwoPieces(t *testing.T) {
	r := newRig(t, shared(t))
	c := r.session()
	if one[int](r, c, `select current_setting('block_size')::int`) != 8192 {
		t.Skip("the server has other pages")
	}
	r.put(string(make([]byte, 4096+28)), "a")
	table := one[string](r, c, `select reltoastrelid::regclass::text from pg_class where oid = 'rows'::regclass`)
	require.Equal(t, 2, one[int](r, c, `select count(*) from `+table))
	require.Equal(t, 4096+28, one[int](r, c, `select octet_length(data) + octet_length(tail) from rows`))
}
