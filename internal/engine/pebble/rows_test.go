package pebble

import (
	"fmt"
	"strings"
	"sync/atomic"
	"syscall"
	"testing"
	"time"

	"github.com/cockroachdb/pebble/v2/vfs"
	"github.com/cockroachdb/pebble/v2/vfs/errorfs"
	"github.com/stretchr/testify/require"

	"github.com/blockseal/blockseal/internal/engine"
)

// A change that rests on a row of which nobody can read whether it is as it was is refused for
// that reason: the row was not changed, and who is told so would try for ever.
func TestApplyThatCannotReadWhatItRestsOn(t *testing.T) {
	var failing atomic.Bool
	mem := vfs.NewMem()
	require.NoError(t, mem.MkdirAll("db", 0o755))
	put := func(d *DB, id string, g engine.Guard) error {
		p := d.Partition(0)
		b := p.NewBatch()
		defer b.Close()
		require.NoError(t, b.(*batch).PutRecord([]byte(id), []byte("record")))
		g.Floor = p.Floor().Revision
		return p.Apply(t.Context(), b, g, false)
	}
	t.Run("before", func(t *testing.T) {
		d := openDir(t, "db", mem)
		require.NoError(t, put(d, "a", engine.Guard{}))
		require.NoError(t, d.Flush(t.Context()))
	})
	d := openDir(t, "db", errorfs.Wrap(mem, errorfs.InjectorFunc(func(op errorfs.Op) error {
		if failing.Load() && (op.Kind == errorfs.OpFileReadAt || op.Kind == errorfs.OpOpen) {
			return syscall.EIO
		}
		return nil
	})))
	// Pebble gathers statistics of the tables behind an open, and who opens a table while another is
	// refused it gets that one's error. So the failure begins when nobody else reads.
	require.Eventually(t, func() bool { return d.p.Metrics().Table.InitialStatsCollectionComplete },
		time.Minute, time.Millisecond)
	g := engine.Guard{Was: []engine.Was{{ID: []byte("a"), Record: []byte("record")}}}
	failing.Store(true)
	err := put(d, "b", g)
	require.ErrorIs(t, err, syscall.EIO)
	require.NotErrorIs(t, err, engine.ErrChanged)
	failing.Store(false)
	require.NoError(t, put(d, "b", g))
}

// Pebble gets the sealed blocks of a batch one after the other, and then the records, in the order of
// the calls both; but a batch of one row, which has nothing to gain, and one of records alone, without
// holding anything back.
func TestBatchHasItsRecordsTogether(t *testing.T) {
	d := openMem(t)
	p := d.Partition(1).(*partition)
	put := func(b *batch, id string) {
		sealed, err := b.Put([]byte(id), []byte("record"), 1)
		require.NoError(t, err)
		sealed[0] = '.'
	}
	for name, c := range map[string]struct {
		ops  func(b *batch)
		held int // ops on records
		want string
	}{
		"nothing": {func(*batch) {}, 0, ""},
		"a block": {func(b *batch) { put(b, "a") }, 0, "ra ba"},
		"blocks":  {func(b *batch) { put(b, "a"); put(b, "b"); put(b, "c") }, 2, "ra ba bb bc rb rc"},
		"records": {func(b *batch) {
			for _, id := range []string{"a", "b", "c"} {
				require.NoError(t, b.PutRecord([]byte(id), []byte("record")))
			}
		}, 0, "ra rb rc"},
		"deletions": {func(b *batch) {
			for _, id := range []string{"a", "b", "c"} {
				require.NoError(t, b.Delete([]byte(id)))
			}
		}, 2, "-ra -ba -bb -bc -rb -rc"},
		"one row, over and over": {func(b *batch) {
			put(b, "a")
			require.NoError(t, b.Delete([]byte("a")))
			put(b, "a")
			require.NoError(t, b.PutRecord([]byte("a"), []byte("record")))
		}, 3, "ra ba -ba ba -ra ra ra"},
		"read in between": {func(b *batch) {
			put(b, "a")
			put(b, "b")
			_, _, err := b.Op(0)
			require.NoError(t, err)
			put(b, "c")
			put(b, "d")
		}, 2, "ra ba bb rb bc bd rc rd"},
	} {
		t.Run(name, func(t *testing.T) {
			b := p.NewBatch().(*batch)
			empty := b.Size()
			c.ops(b)
			require.Len(t, b.later.ops, c.held)
			bound := b.Size()
			require.NoError(t, p.Apply(t.Context(), b, engine.Guard{Floor: p.Floor().Revision}, true))
			require.LessOrEqual(t, b.Size(), bound, "the size includes what is held back")
			require.Equal(t, c.want == "", bound == empty)
			var got []string
			require.NoError(t, b.b.Each(func(key, _ []byte, deleted bool) error {
				minus := strings.Repeat("-", map[bool]int{true: 1}[deleted])
				space := map[byte]string{spaceDEK: "r", spaceData: "b"}[key[0]]
				got = append(got, minus+space+string(key[prefixSize:]))
				return nil
			}))
			require.Equal(t, c.want, strings.Join(got, " "))
			require.NoError(t, b.Wait())
			require.NoError(t, b.Close())
		})
	}
}

// A batch that has room for what is put later also has it for the records that it holds back: what
// waits to be filled in stays where it is, and nothing is copied when the batch is applied.
func TestBatchDoesNotGrowForRecordsItHasRoomFor(t *testing.T) {
	for _, n := range []int{1, 2, 40, 3000} {
		t.Run(fmt.Sprint(n), func(t *testing.T) {
			p := openMem(t).Partition(1).(*partition)
			b := p.NewBatch().(*batch)
			const record, size = 100, 10
			row := 2*len("0000") + record + size + engine.RowOverhead
			require.NoError(t, b.Grow(n*row))
			first := &b.b.b.Repr()[0]
			var records [][]byte
			for i := 0; b.Spare() >= row; i++ { // n times, and as often as there is more room
				rec, sealed, err := b.PutLater(fmt.Appendf(nil, "%04d", i), record, size)
				require.NoError(t, err)
				copy(sealed, fmt.Appendf(nil, "%010d", i))
				records = append(records, rec)
			}
			require.GreaterOrEqual(t, len(records), n)
			for i, rec := range records { // now, when the memory for records has grown as well
				copy(rec, fmt.Appendf(nil, "%0100d", i))
			}
			b.gather()
			require.Same(t, first, &b.b.b.Repr()[0], "it was moved")
			require.NoError(t, p.Apply(t.Context(), b, engine.Guard{Floor: p.Floor().Revision}, true))
			require.NoError(t, b.Wait())
			require.NoError(t, b.Close())
			require.LessOrEqual(t, cap(b.later.buf), recordsKept)
			require.LessOrEqual(t, cap(b.later.ops), opsKept)
			var found engine.Row
			for i := range records {
				require.NoError(t, p.Get(t.Context(), fmt.Appendf(nil, "%04d", i), engine.Both, &found))
				require.Equal(t, fmt.Sprintf("%0100d", i), string(found.Record))
				require.Equal(t, fmt.Sprintf("%010d", i), string(found.Sealed))
				found.Release()
			}
		})
	}
}
