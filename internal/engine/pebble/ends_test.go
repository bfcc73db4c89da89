package pebble

import (
	"bytes"
	"fmt"
	"io"
	"testing"

	"github.com/cockroachdb/pebble/v2/vfs"
	"github.com/stretchr/testify/require"

	"github.com/blockseal/blockseal/internal/engine"
)

// What a table has at its ends is what the MANIFEST says of it, and of no other table: after
// flushes, deletions of ranges, a load and compactions.
func TestTableEndsAreTheManifests(t *testing.T) {
	fs := vfs.NewMem()
	require.NoError(t, fs.MkdirAll("db", 0o755))
	e := openOn(t, fs, "db", Options{Create: true, MemTableBytes: 64 << 10, ValueSeparation: 200})
	d := e.DB
	copies := 0
	look := func() (tables, ranges int) {
		require.NoError(t, d.Flush(t.Context()))
		copies++
		copy := fmt.Sprintf("copy%d", copies) // where no compaction goes on
		require.NoError(t, d.Checkpoint(t.Context(), copy, nil))
		m := current(t, fs, copy)
		for n, want := range m.tables {
			have, err := tableEnds(fs, fmt.Sprintf("%s/%06d.sst", copy, n), readerOptions())
			require.NoError(t, err)
			require.True(t, have.are(want.ends), "%06d.sst: %x, %x", n, have, want.ends)
			if _, trailer := cutTrailer(want.ends.last); trailer>>8 == 1<<56-1 {
				ranges++
			}
			for other, o := range m.tables {
				if other != n {
					require.False(t, have.are(o.ends), "%06d.sst and %06d.sst", n, other)
				}
			}
		}
		return len(m.tables), ranges
	}
	most, withRanges := 0, 0
	see := func() {
		tables, ranges := look()
		most, withRanges = max(most, tables), withRanges+ranges
	}
	for round := range 3 {
		for i := range uint32(8) {
			b := d.NewBatch()
			for row := range 40 {
				id := fmt.Sprintf("%03d", (row*7+round)%97)
				require.NoError(t, b.Set(appendKey(nil, spaceDEK, i, id), bytes.Repeat([]byte{byte(i)}, 100)))
				require.NoError(t, b.Set(appendKey(nil, spaceData, i, id), bytes.Repeat([]byte{byte(row)}, 400)))
			}
			require.NoError(t, d.Commit(b, false))
			require.NoError(t, b.Close())
		}
		see()
		require.NoError(t, d.Partition(uint32(3+round)).Clear(t.Context()))
		see()
	}
	l, err := d.Partition(9).(engine.Loader).NewLoad(t.Context())
	require.NoError(t, err)
	for i := range 1000 {
		require.NoError(t, l.Put(fmt.Appendf(nil, "%06d", i), []byte("record"), []byte("sealed")))
	}
	require.NoError(t, l.Apply(t.Context(), engine.Guard{Floor: d.Partition(9).Floor().Revision}))
	require.NoError(t, l.Close())
	see()
	require.NoError(t, d.Compact(t.Context(), []byte{0}, []byte{0xff}))
	see()
	require.Greater(t, most, 3)
	require.Positive(t, withRanges, "no table ended with a deletion of a range")
}

// Two tables of one size are told apart by their keys, and by which change of one key is whose.
func TestTablesThatWereExchanged(t *testing.T) {
	read := func(fs vfs.FS, name string) []byte {
		f, err := fs.Open(name)
		require.NoError(t, err)
		b, err := io.ReadAll(f)
		require.NoError(t, err)
		require.NoError(t, f.Close())
		return b
	}
	write := func(fs vfs.FS, name string, b []byte) {
		f, err := fs.Create(name, vfs.WriteCategoryUnspecified)
		require.NoError(t, err)
		_, err = f.Write(bytes.Clone(b)) // which may change what it is given
		require.NoError(t, err)
		require.NoError(t, f.Close())
	}
	for name, ids := range map[string][2]string{"other keys": {"a", "b"}, "one key": {"a", "a"}} {
		t.Run(name, func(t *testing.T) {
			fs := vfs.NewMem()
			require.NoError(t, fs.MkdirAll("db", 0o755))
			d := openOn(t, fs, "db", Options{Create: true}).DB
			for _, id := range ids {
				b := d.NewBatch()
				require.NoError(t, b.Set(appendKey(nil, spaceDEK, 1, id), []byte("record")))
				require.NoError(t, d.Commit(b, true))
				require.NoError(t, b.Close())
				require.NoError(t, d.Flush(t.Context()))
			}
			require.NoError(t, d.Checkpoint(t.Context(), "copy", nil))
			m := current(t, fs, "copy")
			require.Len(t, m.tables, 2)
			var names []string
			for n := range m.tables {
				names = append(names, fmt.Sprintf("copy/%06d.sst", n))
			}
			a, b := read(fs, names[0]), read(fs, names[1])
			require.Len(t, a, len(b))
			survey := func() error {
				_, err := Survey("copy", fs, Expected{Phase: Opened})
				return err
			}
			require.NoError(t, survey())
			write(fs, names[0], b)
			write(fs, names[1], a)
			for _, n := range names {
				require.ErrorContains(t, survey(), fs.PathBase(n)+" is another table than the one that was there")
			}
			require.ErrorIs(t, survey(), engine.ErrCorrupt)
			// One that is damaged is left to whoever reads it, and one of the same size that is of another time
			// has no twin there.
			write(fs, names[1], b)
			clear(a[:len(a)/2])
			write(fs, names[0], a)
			require.NoError(t, survey())
			write(fs, names[0], b)
			require.ErrorContains(t, survey(), fs.PathBase(names[0])+" is another table")
		})
	}
}
