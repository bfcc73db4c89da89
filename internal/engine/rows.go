package engine

import (
	"context"
	"io"
)

// Rows is how the rows of a partition change.
type Rows interface {
	// NewBatch returns an empty batch for this partition. Close it, once: its memory is another
	// batch's then.
	NewBatch() Batch
	// Floor returns the partition's floor, as it was seen last in this process: an Apply that
	// was refused by it has seen it.
	Floor() Floor
	// Apply makes a batch's changes, all or none, visible to every Get, Cursor and View that is
	// begun after it has returned. With sync they are durable once Batch.Wait has returned,
	// which must be called before the batch is closed; without, after the next Sync.
	//
	// Of two batches that are applied one after the other the later wins, and durable is what
	// was applied before whatever is. It may wait for the disk, which ctx may not be able to
	// end. Errors: ErrFloor, ErrChanged, ErrNoRoom; nothing was changed then.
	Apply(ctx context.Context, b Batch, g Guard, sync bool) error
	// Replace makes those changes of a batch whose row still has the record that was read
	// before, and takes the others out of the batch, so that whoever wrote a row meanwhile
	// wins. was has each row of the batch once, in the order of their ids. It looks at no
	// floor. The changes are durable after the next Sync. It returns how many it took out.
	Replace(ctx context.Context, b Batch, was []Was) (lost int, err error)
	// Sync makes durable what was applied before.
	Sync(ctx context.Context) error
	// RaiseFloor sets the least epoch that records may name, unless it is higher already. When
	// it returns nil, a change that was guarded by an earlier floor either has been applied, and
	// is seen by everything that is begun now, or is refused.
	RaiseFloor(ctx context.Context, epoch uint32) error
	// RefuseKEKs replaces the floor's KEKs, with the same promise.
	RefuseKEKs(ctx context.Context, keks []uint32) error
}

// Floor is what records must not fall below. Rewriting operations raise it before they look
// for what is below, so that nothing is written behind their search.
type Floor struct {
	// Revision is another with each RaiseFloor and RefuseKEKs, also where nothing else changes.
	Revision uint64
	Epoch    uint32   // the least epoch that a record may name; 0: any
	KEKs     []uint32 // no record may name these numbers of KEKs; for callers to look at
}

// Guard is what a caller knows of its batch, by a floor that it looked at.
type Guard struct {
	Floor uint64 // the floor's revision: of any other the change is refused
	Epoch uint32 // the least that a record of the batch names
	// Below permits an Epoch below the floor, of which the caller has reasons: there may be no
	// epoch that it could name instead.
	Below bool
	// Was are rows that must be as they were read, each once and in the order of their ids, or
	// the change is refused; a nil Record is no row. The floor is looked at first.
	Was []Was
}

// Admits reports whether a floor lets a change pass.
func (f Floor) Admits(g Guard) bool {
	return g.Floor == f.Revision && (g.Epoch >= f.Epoch || g.Below)
}

// Batch is a set of changes of rows that happen together or not at all. Of several changes of
// one row the last wins. It belongs to one goroutine.
type Batch interface {
	// Put sets a row, with a copy of a record, and returns the room for its sealed block, of
	// the given size, which the caller fills in before anything else is done with the batch: so
	// that a block is sealed into the batch's own memory, and copied no more.
	Put(id, record []byte, size int) (sealed []byte, err error)
	// PutRecord replaces the record of a row that there is.
	PutRecord(id, record []byte) error
	// Delete deletes a row, if there is one.
	Delete(id []byte) error
	// Change returns the change of a row that is at a place in the batch, and the place of the
	// one after it, in the order in which they were asked for. The first is at 0; a next of 0
	// says that there was none. Another record of the same size may be written into that which
	// it returns. It is for a batch that was not applied, or just was; of a large one that was
	// applied there may be nothing left to tell.
	Change(at int) (c Change, next int, err error)
	// Size is about how many bytes the batch takes; Empty reports whether it has no changes.
	Size() int
	Empty() bool
	// Wait waits until a batch that was applied with sync is durable.
	Wait() error
	io.Closer
}

// Change is a change of a row: it is deleted, or has a record from then on. ID and Record are
// the batch's memory.
type Change struct {
	ID, Record []byte
	Deleted    bool
}

// Was is a row's record as it was read.
type Was struct{ ID, Record []byte }
