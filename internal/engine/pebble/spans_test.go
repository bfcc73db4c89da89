package pebble

import (
	"bytes"
	"math"
	"slices"
	"testing"

	"github.com/cockroachdb/pebble/v2"
	"github.com/stretchr/testify/require"
)

// Where tables end: for each partition with what others it shares them.
func TestSpans(t *testing.T) {
	for _, c := range []struct{ partition, last uint32 }{
		{0, 127}, {1, 127}, {127, 127}, {128, 255}, {511, 511}, {512, 767}, {1023, 1023},
		{1024, 1535}, {1535, 1535}, {1536, 2047}, {8192, 8192 + 4095}, {10_000, 8192 + 4095},
		{math.MaxUint32, math.MaxUint32}, {1 << 31, 1<<31 + 1<<30 - 1},
	} {
		for _, space := range []byte{spaceMeta, spaceDEK} {
			key := appendKey(nil, space, c.partition, "id")
			policy, end, err := spans(key)
			require.NoError(t, err)
			require.Equal(t, pebble.ValueStorageLowReadLatency, policy.ValueStoragePolicy)
			require.Equal(t, after(appendKey(nil, space, c.last, "")), end, c.partition)
			require.Positive(t, bytes.Compare(end, key))
		}
	}
	policy, end, err := spans(appendKey(nil, spaceData, 7, "id"))
	require.NoError(t, err)
	require.Empty(t, end)
	require.Zero(t, policy)
	for _, key := range [][]byte{nil, {0}, {spaceMeta}, {spaceDEK}, {spaceDEK, 0xff}} { // no key of ours
		_, end, err := spans(key)
		require.NoError(t, err)
		require.Positive(t, bytes.Compare(end, key))
	}
}

// One partition's purge rewrites what its group has, and no table of the others.
func TestPurgeLeavesTheTablesOfOthersAlone(t *testing.T) {
	d := openMem(t)
	ctx := t.Context()
	const partitions = 4 * smallestGroup
	for range 2 { // the second time over tables that are there, as a store writes on
		for i := range uint32(partitions) {
			b := d.NewBatch()
			for _, space := range []byte{spaceMeta, spaceDEK, spaceData} {
				require.NoError(t, b.Set(appendKey(nil, space, i, "id"), bytes.Repeat([]byte{byte(i)}, 100)))
			}
			require.NoError(t, d.Commit(b, false))
			require.NoError(t, b.Close())
		}
		require.NoError(t, d.Flush(ctx))
	}
	require.NoError(t, d.Compact(ctx, []byte{0}, []byte{0xff}))
	before := recordTables(t, d)
	require.GreaterOrEqual(t, len(before), 2*partitions/smallestGroup)

	p := d.Partition(2*smallestGroup + 7).(*partition)
	require.NoError(t, p.Clear(ctx))
	touch := func() error { // in the last partition, as a DB's catalogue
		b := d.NewBatch()
		defer b.Close()
		if err := b.Set(appendKey(nil, spaceMeta, math.MaxUint32, "n"), []byte("v")); err != nil {
			return err
		}
		return d.Commit(b, true)
	}
	require.NoError(t, p.Purge(ctx, touch, func() bool { return false }))
	after := recordTables(t, d)
	gone := slices.DeleteFunc(slices.Clone(before), func(t string) bool { return slices.Contains(after, t) })
	require.Len(t, gone, 2, "the group's meta records, and its DEK records")
}

// recordTables returns the tables with records of the partitions before the last.
func recordTables(t *testing.T, d *DB) (names []string) {
	t.Helper()
	levels, err := d.p.SSTables()
	require.NoError(t, err)
	for _, level := range levels {
		for _, table := range level {
			key := table.Smallest.UserKey
			if key[0] < spaceData && !bytes.Equal(key[1:5], []byte{0xff, 0xff, 0xff, 0xff}) {
				names = append(names, table.FileNum.String())
			}
		}
	}
	return names
}
