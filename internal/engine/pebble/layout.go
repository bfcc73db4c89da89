package pebble

import (
	"bytes"
	"encoding/binary"
)

// Pebble's keys, in order. They are on disk; docs/format.md draws them.
//
//	01 | partition u32 BE | name         meta record
//	02 | partition u32 BE | id           DEK record
//	03 | partition u32 BE | id           sealed block
//
// The two keys of a row are always written and deleted in one batch.
const (
	spaceMeta = 0x01
	spaceDEK  = 0x02
	spaceData = 0x03

	prefixSize = 1 + 4
)

// appendKey appends the key of an id, or of a name, in a space.
func appendKey[T string | []byte](dst []byte, space byte, partition uint32, id T) []byte {
	dst = append(dst, space)
	dst = binary.BigEndian.AppendUint32(dst, partition)
	return append(dst, id...)
}

// putKey fills a key in.
func putKey(key []byte, space byte, partition uint32, id []byte) {
	key[0] = space
	binary.BigEndian.PutUint32(key[1:], partition)
	copy(key[prefixSize:], id)
}

// bounds returns the keys between which the ids in [lower, upper) lie; a nil bound is none.
func bounds(space byte, partition uint32, lower, upper []byte) (from, to []byte) {
	from = appendKey(nil, space, partition, lower)
	if upper == nil {
		return from, after(appendKey(nil, space, partition, ""))
	}
	return from, appendKey(nil, space, partition, upper)
}

// after is the first key that follows all those which begin with prefix, which has a byte that
// is not 0xff: each key's first is its space.
func after(prefix []byte) []byte {
	end := bytes.Clone(prefix)
	for end[len(end)-1] == 0xff {
		end = end[:len(end)-1]
	}
	end[len(end)-1]++
	return end
}
