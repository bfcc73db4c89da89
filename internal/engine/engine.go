// Package engine is the seam between blockseal and whatever keeps its bytes: what a store
// needs of a storage engine, said in rows. A row is what an engine holds of one block, the
// wrapped DEK record and the sealed block, under the block's id. Beside its rows a partition
// has meta records, which are few and small and have names. An engine knows nothing of keys
// or encryption: what it is given is sealed already.
//
// Start with [Engine]. Package pebble beneath this one is the engine of a directory, package
// memory one that tests use, and package enginetest has the suite that each must pass. Why
// the seam is where it is, and what another engine has to think of, is
// docs/adr/0014-engine-seam.md.
package engine

import (
	"context"
	"errors"
	"io"
)

// What is at least taken, in bytes.
const (
	// MaxID is the size of the longest id of a row; the shortest has 0 bytes.
	MaxID = 4096
	// MaxBatch bounds the size of a batch.
	MaxBatch = 1 << 30
)

// Errors that callers tell apart by errors.Is. An engine wraps them with what it knows.
var (
	// ErrNotFound says that there is no such row, or meta record.
	ErrNotFound = errors.New("engine: not found")
	// ErrCorrupt says that what the engine itself keeps is damaged.
	ErrCorrupt = errors.New("engine: corrupt")
	// ErrVersion says that it is of a version which this engine does not know.
	ErrVersion = errors.New("engine: unknown format version")
	// ErrFloor says that a change was refused, because the partition's floor was raised since
	// its caller looked, or because it is below the floor: see [Guard].
	ErrFloor = errors.New("engine: the floor was raised")
	// ErrChanged says that a change was refused, because a row is not any more what it rests
	// on: see [Guard].
	ErrChanged = errors.New("engine: a row was changed")
	// ErrConflict says that a meta record is not the one any more that was read.
	ErrConflict = errors.New("engine: somebody else has changed it")
	// ErrNoRoom says that a write was refused, because what was written before cannot be
	// written out: the disk is full, for one. Its cause is in the chain. Nothing was changed,
	// and writes are taken again as soon as the engine could write something out.
	ErrNoRoom = errors.New("engine: what was written before cannot be written out")
	// ErrHeld says that a purge did all it could, and that what it was to remove is left,
	// because somebody reads it who may do so for long.
	ErrHeld = errors.New("engine: what is purged is being read")
	// ErrClosed says that the engine was closed.
	ErrClosed = errors.New("engine: closed")
)

// Engine holds the rows and meta records of any number of partitions, which have nothing in
// common: what is done in one changes nothing that is seen in another. It is safe for
// concurrent use, but for Close.
//
// What a call is given, ids, records, bounds and values, is the caller's again when it returns.
//
// A call that is given a context that has ended returns its error and changes nothing. One that
// ends meanwhile ends what waits for somebody else's reading, as a purge does; what waits for the
// disk, or for a change that does, it may not be able to end. LoadMeta waits for neither.
//
// What an engine may be able to do besides it says by its type: see [Checkpointer] and
// [Meter], and [Purger] of a partition.
type Engine interface {
	// Partition returns a partition, which is empty until something is written to it. It
	// belongs to one store at a time: its floor is 0 whenever it is asked for anew.
	Partition(number uint32) Partition
	// Close closes the engine, when no call is under way and views, cursors, batches and rows
	// have been let go of. Every call after that returns ErrClosed.
	Close() error
}

// Partition is the rows and meta records of one store. It is safe for concurrent use.
type Partition interface {
	Reader
	Rows
	Meta
	// View returns the partition as it is now. Close it: until then the engine keeps what is
	// overwritten and deleted.
	View(ctx context.Context) (View, error)
}

// Reader finds rows: in a View those of its state, in a Partition those that are there when
// the call looks.
type Reader interface {
	// Get finds parts of a row, into row. ErrNotFound says that it has none of them; which it
	// has of several is in row.Has. What is in row from a call before is let go of first, and
	// with an error there is nothing in it to let go of.
	Get(ctx context.Context, id []byte, want Parts, row *Row) error
	// Cursor returns a cursor over a part, Record or Sealed, of the rows whose ids are in
	// [lower, upper); a nil bound is none. It walks one state. Close it.
	Cursor(ctx context.Context, part Parts, lower, upper []byte) (Cursor, error)
}

// View is a partition at one moment. It is safe for concurrent use. Cursors over it and rows
// from it are let go of before it is closed.
type View interface {
	Reader
	io.Closer
}

// Parts are parts of a row, and how they are wanted.
type Parts uint8

const (
	Record Parts = 1 << iota // the DEK record
	Sealed                   // the sealed block
	// Together, for Get, wants both parts of one state. Without it an engine that does so
	// faster may look for one after the other: where a change came in between they do not go
	// together, and a caller who finds that asks again.
	Together

	Both = Record | Sealed
)

// Row is what Get finds. It is the caller's, and belongs to one goroutine; the zero Row is
// ready to use. Who keeps one from one Get to the next saves what its memory costs.
type Row struct {
	Has Parts
	// Record is the caller's memory: Get puts the record into Record[:0]. It is left alone if
	// it was not wanted.
	Record []byte
	// Sealed is the engine's memory, to be read only, until Release.
	Sealed []byte
	// Held is the engine's own, from one Get to the next; nil at first.
	Held Held
}

// Held is what a Row keeps of an engine's.
type Held interface {
	// Release lets go of what pins anything. To call it twice does nothing.
	Release()
}

// Release lets go of r.Sealed.
func (r *Row) Release() {
	if r.Held != nil {
		r.Held.Release()
	}
	r.Sealed = nil
}

// Cursor walks one part of the rows of one state, in the order of the bytes of their ids. It
// belongs to one goroutine, and is on no row at first.
type Cursor interface {
	// First, Last, Next, Prev, SeekGE and SeekLT move to a row and report whether there is one:
	// SeekGE to that with the least id that is not less, SeekLT to that with the greatest that
	// is less. A false may also be an error: see Err. A cursor that ran over one end turns round.
	First() bool
	Last() bool
	Next() bool
	Prev() bool
	SeekGE(id []byte) bool
	SeekLT(id []byte) bool
	// Valid reports whether the cursor is on a row.
	Valid() bool
	// ID returns the row's id, valid until the next move, to be read only.
	ID() []byte
	// Value returns the part of the row, likewise, and Size its size without reading it where
	// that costs less.
	Value() ([]byte, error)
	Size() int
	// Err returns what stopped the cursor, nil at the end of the rows.
	Err() error
	// Clone returns a cursor over a part of the rows of the very same state, between bounds of
	// its own.
	Clone(part Parts, lower, upper []byte) (Cursor, error)
	io.Closer
}
