package pebble

import "github.com/blockseal/blockseal/internal/engine"

// records are ops on DEK records that a batch holds back until it is read or applied. They follow
// each other in Pebble's batch then, and so do the sealed blocks.
//
// Pebble applies a batch in its order, and looks for the place of a key in the memtable where it put
// the key before (arenaskl.Inserter). It searches from the top if the key belongs elsewhere, as it does
// if keys of the two spaces alternate. In a space the ops keep their order, so that the last op on
// a row wins in both.
type records struct {
	ops  []engine.Op // in memory that does not move: helpers write to records of PutLater
	buf  []byte      // the rest of it is free; what was full before is kept by ops alone
	size int         // the most bytes that Pebble's batch grows by
}

const (
	recordsBuf   = 4 << 10  // bytes of the first buf
	recordsKept  = 64 << 10 // most bytes of a buf that is used again
	opsKept      = 1 << 10  // most ops whose room is used again
	entryHead    = 1 + 2*5  // the most bytes of Pebble's for an entry: its kind, and two lengths
	recordsEntry = entryHead + prefixSize
)

// put adds a record of the given size, which the caller fills in.
func (r *records) put(id []byte, size int) (record []byte) {
	n := len(id) + size
	if cap(r.buf)-len(r.buf) < n {
		r.buf = make([]byte, 0, max(recordsBuf, 2*cap(r.buf), n))
	}
	all := r.buf[len(r.buf) : len(r.buf)+n]
	r.buf = r.buf[:len(r.buf)+n]
	copy(all, id)
	record = all[len(id):n:n]
	r.ops = append(r.ops, engine.Op{ID: all[:len(id)], Record: record})
	r.size += recordsEntry + n
	return record
}

// delete adds the deletion of a record.
func (r *records) delete(id []byte) {
	r.put(id, 0)
	r.ops[len(r.ops)-1].Deleted = true
}

// reset leaves memory for the next batch, but for what an uncommonly large one took.
func (r *records) reset() {
	clear(r.ops)
	r.ops, r.buf, r.size = r.ops[:0], r.buf[:0], 0
	if cap(r.ops) > opsKept {
		r.ops = nil
	}
	if cap(r.buf) > recordsKept {
		r.buf = nil
	}
}
