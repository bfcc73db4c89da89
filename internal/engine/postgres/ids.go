package postgres

import "crypto/sha256"

// headSize is how much of an id is in the index, in bytes. An entry of a B-tree has at most 2,704
// of them (a third of a page of 8 KiB), and ids have up to engine.MaxID.
const headSize = 2000

// key is an id as the columns of a row have it. Ids are ordered as their heads are, and those of
// one head as what is left of them: a head that is shorter than headSize is the whole id. The
// index has the hash in the place of what is left.
type key struct {
	head []byte // up to headSize bytes of the id
	long []byte // if there is more: the SHA-256 of the whole id
	rest []byte // what is left
}

var none = []byte{} // nil would be NULL

func split(id []byte) key {
	if len(id) <= headSize {
		return key{notNil(id), none, none}
	}
	sum := sha256.Sum256(id)
	return key{id[:headSize], sum[:], id[headSize:]}
}

// join is the reverse of split, appended to dst.
func join(dst, head, rest []byte) []byte { return append(append(dst, head...), rest...) }

func notNil(b []byte) []byte {
	if b == nil {
		return none
	}
	return b
}

// columns is keys, turned into what unnest takes.
func columns(keys []key) (heads, longs, rests [][]byte) {
	for _, k := range keys {
		heads, longs, rests = append(heads, k.head), append(longs, k.long), append(rests, k.rest)
	}
	return heads, longs, rests
}
