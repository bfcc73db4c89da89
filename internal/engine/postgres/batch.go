package postgres

import (
	"bytes"
	"fmt"
	"math"
	"slices"

	"github.com/blockseal/blockseal/internal/engine"
)

// batch is changes of a partition's rows, in the order in which they were asked for.
type batch struct {
	p       *partition
	changes []change
	size    int
}

// change is one of a row. In a batch that was not folded a deletion, or a record without a block,
// may be followed by another change of the same row.
type change struct {
	id, record []byte
	sealed     []byte // nil with recordOnly and deletion, and where a row is to have none
	kind       kind
}

type kind uint8

const (
	wholeRow   kind = iota // record and block
	recordOnly             // the block is left as it is
	deletion
)

// NewBatch implements [engine.Rows].
func (p *partition) NewBatch() engine.Batch { return &batch{p: p} }

// add adds a change with a copy of id, and with room for the rest in the same piece of memory.
func (b *batch) add(id []byte, record, size int, k kind) *change {
	all := make([]byte, len(id)+record+size)
	n, m := len(id), len(id)+record
	copy(all, id)
	c := change{id: all[:n:n], record: all[n:m:m], kind: k}
	if k == wholeRow {
		c.sealed = all[m:]
	}
	b.size += len(all)
	b.changes = append(b.changes, c)
	return &b.changes[len(b.changes)-1]
}

// Put implements [engine.Batch].
func (b *batch) Put(id, record []byte, size int) ([]byte, error) {
	c := b.add(id, len(record), size, wholeRow)
	copy(c.record, record)
	return c.sealed, nil
}

// PutLater implements [engine.Batch].
func (b *batch) PutLater(id []byte, record, size int) (rec, sealed []byte, err error) {
	c := b.add(id, record, size, wholeRow)
	return c.record, c.sealed, nil
}

// Spare implements [engine.Batch]: each row has memory of its own.
func (b *batch) Spare() int { return math.MaxInt }

// Grow implements [engine.Batch].
func (b *batch) Grow(int) error { return nil }

// PutRecord implements [engine.Batch].
func (b *batch) PutRecord(id, record []byte) error {
	copy(b.add(id, len(record), 0, recordOnly).record, record)
	return nil
}

// Delete implements [engine.Batch].
func (b *batch) Delete(id []byte) error {
	b.add(id, 0, 0, deletion)
	return nil
}

// Op implements [engine.Batch].
func (b *batch) Op(at int) (c engine.Op, next int, err error) {
	if at >= len(b.changes) {
		return c, 0, nil
	}
	ch := &b.changes[at]
	return engine.Op{ID: ch.id, Record: ch.record, Deleted: ch.kind == deletion}, at + 1, nil
}

// Size implements [engine.Batch].
func (b *batch) Size() int { return b.size }

// Empty implements [engine.Batch].
func (b *batch) Empty() bool { return len(b.changes) == 0 }

// Wait implements [engine.Batch]: what was applied is durable.
func (b *batch) Wait() error { return nil }

// Close implements [io.Closer].
func (b *batch) Close() error {
	*b = batch{p: b.p}
	return nil
}

// own returns a batch that is for this partition.
func (p *partition) own(b engine.Batch) (*batch, error) {
	o, ok := b.(*batch)
	if !ok || o.p != p {
		return nil, fmt.Errorf("engine: the batch was made for another partition than %d", p.number)
	}
	return o, nil
}

// leaveOut takes rows out of a batch.
func (b *batch) leaveOut(skip map[string]bool) {
	b.changes = slices.DeleteFunc(b.changes, func(c change) bool { return skip[string(c.id)] })
	b.size = 0
	for _, c := range b.changes {
		b.size += c.size()
	}
}

func (c *change) size() int { return len(c.id) + len(c.record) + len(c.sealed) }

// folded returns one change for each row of a batch, in the order of the ids: in that order rows
// are locked, so that of two that change the same ones none waits for the other for ever.
func (b *batch) folded() []change {
	if len(b.changes) < 2 {
		return b.changes
	}
	at := make(map[string]int, len(b.changes))
	out := make([]change, 0, len(b.changes))
	for _, c := range b.changes {
		i, seen := at[string(c.id)]
		if !seen {
			at[string(c.id)] = len(out)
			out = append(out, c)
			continue
		}
		if before := out[i]; c.kind == recordOnly && before.kind != recordOnly {
			c.kind, c.sealed = wholeRow, before.sealed // which is none after a deletion
		}
		out[i] = c
	}
	slices.SortFunc(out, func(a, b change) int { return bytes.Compare(a.id, b.id) })
	return out
}
