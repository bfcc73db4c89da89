package row

import (
	"bytes"
	"fmt"
	"sync/atomic"
)

// chunk is a run of blocks that are read ahead.
type chunk struct {
	keys    []byte // id | record, one after the other
	records []record
	after   []byte // the id before its first block
	to      []byte // the id with which the next chunk begins; unset if last
	last    bool   // there is no next chunk

	plain  []byte // the blocks, opened
	blocks []prefetched
	rest   int   // the first of records that did not fit into plain
	err    error // what stopped the chunk; the blocks before it are good
	opened chan struct{}
}

type record struct{ id, value []byte }

// prefetched is an opened block, in its chunk's memory.
type prefetched struct{ id, plain []byte }

func (ch *chunk) reset() {
	ch.keys, ch.records, ch.to, ch.last = ch.keys[:0], ch.records[:0], ch.to[:0], false
	ch.plain, ch.blocks, ch.rest, ch.err = ch.plain[:0], ch.blocks[:0], 0, nil
}

// add adds a record. Its slices are the engine's until locate is called, after the last add.
func (ch *chunk) add(id, value []byte) {
	ch.keys = append(append(ch.keys, id...), value...)
	ch.records = append(ch.records, record{id, value})
}

// locate points the records at the chunk's own memory: append may have moved it, so that of each
// record only the two lengths still count.
func (ch *chunk) locate() {
	rest := ch.keys
	cut := func(n int) (part []byte) {
		part, rest = rest[:n:n], rest[n:]
		return part
	}
	for i, r := range ch.records {
		ch.records[i] = record{cut(len(r.id)), cut(len(r.value))}
	}
}

// seek moves a cursor over blocks to where the block of record i should be.
func (ch *chunk) seek(it *way, i int) {
	after := ch.after
	if i > 0 {
		after = ch.records[i-1].id
	}
	it.after(after)
}

// pair returns a record with the block at the cursor or, with an error, the id that lacks a
// counterpart.
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

// reachesEnd checks that no block lies between the last record and the next chunk.
func (ch *chunk) reachesEnd(it *way) error {
	switch {
	case ch.err != nil: // nobody knows where the next record is
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

// fits reports whether a sealed block has room in plain once it is open. The first block of a chunk
// may get other memory, unless the walk has too much ahead already. Memory that has plaintext in it
// is never let go.
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

// aheadBytes counts the memory that a walk's chunks have for plaintext.
type aheadBytes struct{ n atomic.Int64 }

// exchange counts memory of size to in place of size from, unless the sum would exceed
// prefetchMost. A buffer of prefetchBytes for each chunk is always granted.
func (a *aheadBytes) exchange(from, to int) bool {
	if n := a.n.Add(int64(to - from)); n > prefetchMost && to > prefetchBytes {
		a.n.Add(int64(from - to))
		return false
	}
	return true
}
