package pebble

import (
	"bytes"
	"encoding/binary"
)

// These are Pebble's keys, in order. On disk, and must not change; see docs/format.md, section 4.
//
//	01 | partition u32 BE | name         meta record
//	02 | partition u32 BE | id           DEK record
//	03 | partition u32 BE | id           sealed block
//
// One batch writes or deletes both keys of a row.
const (
	spaceMeta = 0x01
	spaceDEK  = 0x02
	spaceData = 0x03

	prefixSize = 1 + 4
)

func appendKey[T string | []byte](dst []byte, space byte, partition uint32, id T) []byte {
	dst = append(dst, space)
	dst = binary.BigEndian.AppendUint32(dst, partition)
	return append(dst, id...)
}

func putKey(key []byte, space byte, partition uint32, id []byte) {
	key[0] = space
	binary.BigEndian.PutUint32(key[1:], partition)
	copy(key[prefixSize:], id)
}

// bounds returns the keys that bound the ids in [lower, upper); a nil bound is none.
func bounds(space byte, partition uint32, lower, upper []byte) (from, to []byte) {
	from = appendKey(nil, space, partition, lower)
	if upper == nil {
		return from, after(appendKey(nil, space, partition, ""))
	}
	return from, appendKey(nil, space, partition, upper)
}

// after returns the first key after all keys that begin with prefix. Some byte of prefix is not
// 0xff: the first is a space.
func after(prefix []byte) []byte {
	end := bytes.Clone(prefix)
	for end[len(end)-1] == 0xff {
		end = end[:len(end)-1]
	}
	end[len(end)-1]++
	return end
}
