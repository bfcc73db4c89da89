package pebble

import (
	"encoding/binary"
	"math/bits"

	"github.com/cockroachdb/pebble/v2"
)

// spans is where Pebble's flushes and compactions begin another table, whatever the size of the last
// one: at each space, and among meta records and DEK records at each group of partitions. So a purge
// of one partition rewrites what a group has and not what all have, and one table of a flush, which
// would span all, takes no others into its compaction.
//
// Meta records and DEK records stay in the tables, whatever their size: a compaction removes them
// there; see Purge. Sealed blocks have no groups, because Pebble writes a blob file for each table of
// a flush.
func spans(startKey []byte) (pebble.SpanPolicy, []byte, error) {
	switch {
	case len(startKey) == 0 || startKey[0] < spaceMeta:
		return pebble.SpanPolicy{}, []byte{spaceMeta}, nil
	case startKey[0] >= spaceData:
		return pebble.SpanPolicy{}, nil, nil
	}
	var number [4]byte
	copy(number[:], startKey[1:])
	return pebble.SpanPolicy{ValueStoragePolicy: pebble.ValueStorageLowReadLatency},
		groupEnd(startKey[0], binary.BigEndian.Uint32(number[:])), nil
}

// A group is 128 partitions, and of high numbers as many more that each doubling of those adds 2 groups.
// So what shares tables is a part of all, and tables stay few: OpenDB takes 27 µs of a processor for
// each that there is.
const (
	smallestGroup  = 128
	groupsDoubling = 2
)

// groupEnd returns the first key after those of the group that a partition is in.
func groupEnd(space byte, partition uint32) []byte {
	size := uint32(smallestGroup)
	if n := bits.Len32(partition / groupsDoubling); n > 0 {
		size = max(size, 1<<(n-1))
	}
	return after(appendKey(nil, space, partition|(size-1), ""))
}
