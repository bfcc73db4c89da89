// Package engine is the seam between blockseal and what keeps its bytes: what a store needs of a
// storage engine, in rows. A row is what an engine has of one block: the DEK record and the sealed
// block, under the block's id. Beside its rows a partition has meta records, which are few, small
// and named. An engine knows nothing of keys: all that it is given is sealed.
//
// Start with [Engine]. Package pebble is the engine of a directory, package memory one for tests,
// and package enginetest the suite that each must pass. docs/adr/0014-engine-seam.md says why the
// seam is here, and what another engine has to think of.
package engine

import (
	"context"
	"errors"
	"io"
)

// An engine accepts at least these, in bytes.
const (
	// MaxID is the size of the longest id of a row; the shortest has 0 bytes.
	MaxID    = 4096
	MaxBatch = 1 << 30
)

// Callers tell these errors apart by errors.Is. An engine wraps them with what it knows.
var (
	// ErrNotFound says that there is no such row or meta record.
	ErrNotFound = errors.New("engine: not found")
	// ErrCorrupt says that the engine's own files are damaged.
	ErrCorrupt = errors.New("engine: corrupt")
	// ErrVersion says that they have a version that this engine does not know.
	ErrVersion = errors.New("engine: unknown format version")
	// ErrFloor says that a batch was refused: the partition's floor was raised since the caller
	// read it, or the batch is below the floor. See [Guard].
	ErrFloor = errors.New("engine: the floor was raised")
	// ErrChanged says that a batch was refused: a row in [Guard].Was is not as it was read.
	ErrChanged = errors.New("engine: a row was changed")
	// ErrConflict says that a meta record has another revision than the one that was read.
	ErrConflict = errors.New("engine: somebody else has changed it")
	// ErrNoRoom says that a write was refused, because earlier writes cannot be written out: the
	// disk is full, for one. Its cause is in the chain. Nothing was changed, and writes are
	// accepted again once the engine has written something out.
	ErrNoRoom = errors.New("engine: what was written before cannot be written out")
	// ErrHeld says that a purge did all it could, and that what it should remove is still there:
	// somebody reads it who may do so for long.
	ErrHeld = errors.New("engine: what is purged is being read")
	// ErrOutcomeUnknown says that a server did not say whether a write that it was given was
	// applied: it is there as a whole, now or in a moment, or not at all. Its cause is in the chain.
	// Who reads may find out; who does the same again must be right in both cases.
	ErrOutcomeUnknown = errors.New("engine: it is not known whether the write was applied")
	// ErrViewEnded says that a view, or a cursor, cannot be read any more, because the engine keeps
	// none for longer than a while, or lost it with its server. What is left to be read is read
	// from another one, which is of another state.
	ErrViewEnded = errors.New("engine: the view has ended")
	// ErrTurnLost says that Replace was refused: the partition's turn, which the caller had, went
	// back to the engine before its end. Nothing was changed. See [Turner].
	ErrTurnLost = errors.New("engine: the turn of rewriting operations was lost")
	// ErrClosed says that the engine was closed.
	ErrClosed = errors.New("engine: closed")
)

// Engine has the rows and meta records of any number of partitions, which are independent of each
// other. It is safe for concurrent use, except for Close.
//
// What a call is given, ids, records, bounds and values, is the caller's again when it returns.
//
// A call with a context that has ended returns the context's error and changes nothing. If the
// context ends meanwhile, it ends a wait for other readers, as Purge has, but not necessarily a
// wait for the disk, or for another call that waits for the disk. LoadMeta waits for neither.
//
// An engine may also be a [Checkpointer], a [Meter] and a [Sharer], and its partitions may be a
// [Purger], a [Deferrer] and a [Turner].
type Engine interface {
	// Partition returns a partition, which is empty until something is written to it. It belongs to
	// one store at a time: each call sets its floor to 0. Where other
	// processes share the engine, it is the same store in each of them: the floor is theirs too,
	// and is taken for 0 only until an Apply was refused by it.
	Partition(number uint32) Partition
	// Peek returns a copy of a meta record of a partition that may belong to somebody, or
	// ErrNotFound.
	Peek(ctx context.Context, number uint32, name string) ([]byte, error)
	// Close closes the engine. The caller has ended all calls and released views, cursors, batches
	// and rows. Later calls return ErrClosed.
	Close() error
}

// Partition is the rows and meta records of one store. It is safe for concurrent use.
type Partition interface {
	Reader
	Rows
	Meta
	// View returns the partition as it is now. The caller closes it: until then the engine keeps
	// what is overwritten and deleted. An engine that others use as well may end the view
	// sooner: it and its cursors return ErrViewEnded then.
	View(ctx context.Context) (View, error)
	// Clear removes all rows and meta records. When it returns nil that is durable, and a change
	// that was guarded by the floor of before has been removed as well, or is refused.
	Clear(ctx context.Context) error
	// Release has the engine forget what it keeps in memory of a partition that nobody uses any
	// more: none of its methods is called after it, nor one of what came from it. Who wants it
	// again asks for it anew.
	Release()
}

// Reader finds rows: those of its state in a View, the present ones in a Partition.
type Reader interface {
	// Get finds parts of a row, into row. ErrNotFound says that it has none of the wanted parts;
	// row.Has says which it has. Get first releases what row has from the call before; after an
	// error there is nothing to release.
	Get(ctx context.Context, id []byte, want Parts, row *Row) error
	// Cursor returns a cursor over a part, Record or Sealed, of the rows whose ids are in [lower,
	// upper); a nil bound is none. It walks one state, also when ctx has ended since, for as long as
	// a View would. The caller closes it.
	Cursor(ctx context.Context, part Parts, lower, upper []byte) (Cursor, error)
}

// View is a partition at one moment. It is safe for concurrent use. Its cursors and rows are
// released before it is closed.
type View interface {
	Reader
	io.Closer
}

// Parts are parts of a row, and how Get reads them.
type Parts uint8

const (
	Record Parts = 1 << iota // the DEK record
	Sealed                   // the sealed block
	// Together has Get read both parts of one state. Without it an engine may read one after the
	// other if that is faster. If a write came in between, the parts do not fit together; a caller
	// who finds that asks again with Together.
	Together

	Both = Record | Sealed
)

// Row is what Get finds. It belongs to its caller and to one goroutine; the zero Row is ready. A
// Row that is used again saves its memory.
type Row struct {
	Has Parts
	// Record is the caller's memory: Get puts the record into Record[:0], if it is wanted.
	Record []byte
	// Sealed is the engine's memory. It may be read until Release.
	Sealed []byte
	// Held is the engine's own, and stays from one Get to the next; nil at first.
	Held Held
}

// Held is what an engine keeps in a Row.
type Held interface {
	// Release releases what pins anything in the engine. To call it twice does nothing.
	Release()
}

// Release releases r.Sealed.
func (r *Row) Release() {
	if r.Held != nil {
		r.Held.Release()
	}
	r.Sealed = nil
}

// Cursor walks one part of the rows of one state, in the byte order of their ids. It belongs to one
// goroutine. At first it is on no row.
type Cursor interface {
	// First, Last, Next, Prev, SeekGE and SeekLT move to a row and report whether there is one:
	// SeekGE to the first id that is not less than id, SeekLT to the last id that is less. After
	// false, see Err. A cursor that ran over one end can turn round.
	First() bool
	Last() bool
	Next() bool
	Prev() bool
	SeekGE(id []byte) bool
	SeekLT(id []byte) bool
	// Valid reports whether the cursor is on a row.
	Valid() bool
	// ID returns the row's id, valid until the next move. It must not be written to.
	ID() []byte
	// Value returns the part, and Size its size; if that costs less, without reading it. Value is
	// valid until the next move and must not be written to.
	Value() ([]byte, error)
	Size() int
	// Err returns what stopped the cursor; nil at the end of the rows.
	Err() error
	// Clone returns a cursor over a part of the rows of the same state, with bounds of its own.
	Clone(part Parts, lower, upper []byte) (Cursor, error)
	io.Closer
}
