package engine

import (
	"context"
	"io"
)

// Rows writes the rows of a partition.
type Rows interface {
	// NewBatch returns an empty batch for this partition. The caller closes it once; another batch
	// may get its memory then.
	NewBatch() Batch
	// Floor returns the floor as this process saw it last. An Apply that the floor refused has seen
	// it.
	Floor() Floor
	// Apply applies all ops of a batch. They are visible to each Get, Cursor and View that begins
	// after it has returned. With sync, they are durable once Batch.Wait has returned, which must
	// be called before the batch is closed; without, after the next Sync.
	//
	// Of two batches the one that is applied later wins, and what is durable makes all that was
	// applied before it durable. Apply may wait for the disk, which the end of ctx may not end.
	// Errors: ErrFloor, ErrChanged, ErrNoRoom; nothing was applied then. With
	// ErrOutcomeUnknown the batch may have been, as a whole; the calls below may return that too.
	Apply(ctx context.Context, b Batch, g Guard, sync bool) error
	// Replace applies the ops of a batch whose row still has the record in was, and removes the
	// others, lost of them, from the batch: whoever wrote a row meanwhile wins. was has each row of
	// the batch once, in the order of the ids. Replace ignores the floor. The ops are durable after
	// the next Sync.
	Replace(ctx context.Context, b Batch, was []Was) (lost int, err error)
	// Sync makes all durable that was applied before.
	Sync(ctx context.Context) error
	// RaiseFloor sets the least epoch that records may name, unless it is higher already. When it
	// returns nil, each batch with an earlier floor in its Guard is either applied, and seen by all
	// that begins now, or refused.
	RaiseFloor(ctx context.Context, epoch uint32) error
	// RefuseKEKs replaces the floor's KEKs, with the same promise.
	RefuseKEKs(ctx context.Context, keks []uint32) error
}

// Floor bounds what records may name. Rewriting operations raise it before they search for what is
// below, so that nothing is written behind the search.
type Floor struct {
	// Revision is another after each RaiseFloor and RefuseKEKs, even if nothing else is.
	Revision uint64
	Epoch    uint32   // the least epoch that a record may name; 0: any
	KEKs     []uint32 // no record may name these KEK ids; callers check this
}

// Guard is what a caller knows of its batch.
type Guard struct {
	Floor uint64 // the revision of the floor that the caller has read; any other refuses the batch
	Epoch uint32 // the least epoch that a record of the batch names
	// Below permits an Epoch below the floor: there may be no epoch that the caller could name
	// instead.
	Below bool
	// Was has rows that must be as they were read, each once and in the order of the ids; else the
	// batch is refused. A nil Record is no row. The floor is checked first.
	Was []Was
}

// Admits reports whether a floor admits a batch.
func (f Floor) Admits(g Guard) bool {
	return g.Floor == f.Revision && (g.Epoch >= f.Epoch || g.Below)
}

// Batch is ops on rows that are applied together or not at all. Of several ops on one row the last
// wins. It belongs to one goroutine.
type Batch interface {
	// Put sets a row with a copy of record, and returns the room for a sealed block of size bytes.
	// The caller fills it in before the next call of the batch. So the block is sealed into the
	// batch's own memory and not copied.
	Put(id, record []byte, size int) (sealed []byte, err error)
	// PutLater is Put for a caller who fills in the record as well, and both later: on any
	// goroutine, before the batch is applied or asked for an Op, and before a call of the batch that
	// takes more bytes than Spare has. Those move what was filled in and what was not.
	PutLater(id []byte, record, size int) (rec, sealed []byte, err error)
	// Spare returns how many more bytes the batch takes without moving what it has. A row takes at
	// most the bytes of its record and sealed block, twice those of its id, and RowOverhead. Grow
	// makes room for n bytes more; it may move what the batch has.
	Spare() int
	Grow(n int) error
	// PutRecord replaces the record of an existing row.
	PutRecord(id, record []byte) error
	// Delete deletes a row, if there is one.
	Delete(id []byte) error
	// Op returns the op at a place in the batch, and the place of the next, in the order of the
	// calls. The first is at 0; next is 0 if there is no op at the place. The caller may overwrite
	// Op.Record with another record of the same size. Op is for a batch that was not applied, or
	// just was; a large batch may be empty after it was applied.
	Op(at int) (op Op, next int, err error)
	// Size is about how many bytes the batch has; Empty reports whether it has no ops.
	Size() int
	Empty() bool
	// Wait waits until a batch that was applied with sync is durable.
	Wait() error
	io.Closer
}

// RowOverhead is the most bytes that a batch has for a row beyond its ids, record and sealed block.
const RowOverhead = 64

// Op deletes a row or gives it a record. ID and Record are the batch's memory.
type Op struct {
	ID, Record []byte
	Deleted    bool
}

// Was is a row's record as it was read.
type Was struct{ ID, Record []byte }
