package row

import (
	"bytes"
	"fmt"
	"sync/atomic"
)

// chunk is a run of blocks that are read ahead.
type chunk struct {
	keys    []byte   // id | record, of one after the other
	records []record // what is in keys
	after   []byte   // its blocks follow this id
	to      []byte   // where those of the next one begin: an id; see last
	last    bool     // there is no next one

	plain  []byte // the blocks, opened
	blocks []prefetched
	rest   int   // the first of records that did not fit into plain
	err    error // what came after the blocks, or in place of those that are left out
	opened chan struct{}
}

// record is a DEK record and its block's id.
type record struct{ id, value []byte }

// prefetched is a block in its chunk.
type prefetched struct{ id, plain []byte }

func (ch *chunk) reset() {
	ch.keys, ch.records, ch.to, ch.last = ch.keys[:0], ch.records[:0], ch.to[:0], false
	ch.plain, ch.blocks, ch.rest, ch.err = ch.plain[:0], ch.blocks[:0], 0, nil
}

// add adds a record; locate follows the last of them.
func (ch *chunk) add(id, value []byte) {
	ch.keys = append(append(ch.keys, id...), value...)
	ch.records = append(ch.records, record{id, value})
}

// locate replaces the engine's slices, of which only the lengths still mean something, by
// the chunk's own.
func (ch *chunk) locate() {
	rest := ch.keys
	take := func(n int) (part []byte) {
		part, rest = rest[:n:n], rest[n:]
		return part
	}
	for i, r := range ch.records {
		ch.records[i] = record{take(len(r.id)), take(len(r.value))}
	}
}

// seek moves a cursor over blocks to where that of a record should be, or to whatever
// is there after the one before.
func (ch *chunk) seek(it *way, i int) {
	after := ch.after
	if i > 0 {
		after = ch.records[i-1].id
	}
	it.after(after)
}

// pair returns a record with its block, which is where the iterator stands. The id is
// that of the one that has no counterpart if there is an error.
func (ch *chunk) pair(it *way, i int) (p Pair, err error) {
	if p, err = ch.match(it, i); err != nil {
		return p, err
	}
	p.Value, err = it.Value()
	return p, Damage(err)
}

// match is pair without the block's data, which may be large.
func (ch *chunk) match(it *way, i int) (p Pair, err error) {
	r := ch.records[i]
	p = Pair{ID: r.id, Record: r.value}
	order := 1
	if it.Valid() {
		order = it.compare(it.ID(), r.id)
	} else if err := it.Err(); err != nil {
		return p, Damage(err)
	}
	switch {
	case order < 0:
		p.ID = bytes.Clone(it.ID())
		return p, errNoRecord
	case order > 0:
		return p, ErrNoData
	}
	return p, nil
}

// reachesEnd looks whether there are blocks between the last record and the next chunk.
func (ch *chunk) reachesEnd(it *way) error {
	switch {
	case ch.err != nil: // where the next record is is not known
		return ch.err
	case !it.Valid():
		if err := it.Err(); err != nil {
			return Damage(err)
		}
		return nil
	case ch.last || it.compare(it.ID(), ch.to) < 0:
		return fmt.Errorf("block %s: %w", Shown(it.ID()), errNoRecord)
	}
	return nil
}

// fits reports whether a sealed block has room once it is open. The first of a chunk, for
// which there may be other memory, has room unless too much is ahead already. Memory is
// not let go while there is plaintext in it.
func (ch *chunk) fits(sealed int, ahead *aheadBytes) bool {
	if len(ch.plain)+sealed <= cap(ch.plain) && (len(ch.plain) > 0 || cap(ch.plain) <= prefetchBytes || sealed > prefetchBytes) {
		return true
	}
	if len(ch.plain) > 0 {
		return false
	}
	size := max(sealed, prefetchBytes)
	if !ahead.exchange(cap(ch.plain), size) {
		return false
	}
	clear(ch.plain[:cap(ch.plain)])
	ch.plain = make([]byte, 0, size)
	return true
}

// aheadBytes is the memory that the chunks of a walk have for plaintext.
type aheadBytes struct{ n atomic.Int64 }

// exchange accounts for memory of one size in the place of memory of another, unless that
// makes more than there may be; memory of the usual size, of which there is one a chunk,
// there always is.
func (a *aheadBytes) exchange(from, to int) bool {
	if n := a.n.Add(int64(to - from)); n > prefetchMost && to > prefetchBytes {
		a.n.Add(int64(from - to))
		return false
	}
	return true
}
