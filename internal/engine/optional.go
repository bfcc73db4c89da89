package engine

import (
	"context"
	"time"
)

// Checkpointer is an [Engine] that can copy itself.
type Checkpointer interface {
	// Checkpoint makes a copy of all partitions in dir, which must not exist, with all that was
	// applied before the call. The copy is opened like the engine.
	//
	// frozen, if not nil, is called when the copy's content is fixed, and no batch is applied until
	// it returns: what is applied later is not in the copy. Within frozen, raise raises a
	// partition's floor, as RaiseFloor does.
	//
	// While Checkpoint waits for memory to be written out, the end of ctx ends it; dir does not
	// exist then.
	Checkpoint(ctx context.Context, dir string, frozen func(raise func(partition, epoch uint32))) error
}

// Deferrer is a [Partition] that can change meta records without waiting for the disk.
type Deferrer interface {
	// SwapMetaLater is SwapMeta, but for when the swaps are durable: that is when anything of the
	// engine's is that was changed after them, in whatever partition, or when the engine was closed.
	// A crash before that undoes them, and all that came after them.
	SwapMetaLater(ctx context.Context, swaps ...Swap) (revisions []uint64, err error)
}

// Purger is a [Partition] whose engine can promise that its files forget what was deleted.
type Purger interface {
	// Purge makes the files forget the DEK records and meta records that were deleted or
	// overwritten before the call. It leaves sealed blocks to the engine's housekeeping. It calls
	// touch now and then; touch sets a meta record, so that there is something to write out.
	//
	// The files keep what earlier views and cursors see. Purge waits for those until ctx ends,
	// unless held says that one of them must not be waited for. Then it returns ErrHeld, and also
	// if views come and go faster than it works.
	Purge(ctx context.Context, touch func() error, held func() bool) error
}

// Sharer is an [Engine] that other processes have open as well, with the same partitions. What one
// of them writes the others are not told of: who keeps something of the engine's in memory looks
// whether that is still so, and who finds a floor that somebody else has raised looks for what
// was done before that.
type Sharer interface {
	// Keeps says, in words for people, where what was deleted or overwritten may be for longer
	// than the engine can know: it promises of no file that it forgets.
	Keeps() []string
}

// Turner is a [Partition] of a [Sharer]: one of the processes at a time has its turn of rewriting
// operations.
type Turner interface {
	// Turn waits until nobody has the turn, in this process or another, or until ctx ends. The turn
	// of a process that died passes on. While it is had, until release is called, Replace, RefuseKEKs, and
	// a swap that says Turned, of this Partition return ErrTurnLost if it was lost meanwhile. So what was given to them by whoever had
	// the turn before is applied, and seen by all that begins now, or is refused.
	Turn(ctx context.Context) (release func(), err error)
}

// Hearer is a [Partition] of a [Sharer] that may be told of what other processes change, sooner than
// they would find out by looking.
type Hearer interface {
	// Hear has f called when another process has, or may have, changed the floor, or a meta record by a
	// swap that says Tell: soon, or never. f returns at once, and calls nothing of the engine's.
	// The caller calls stop when it has heard enough, and before Close.
	Hear(f func()) (stop func())
	// LookAtFloor returns the floor as it is now, which Floor returns from then on.
	LookAtFloor(ctx context.Context) (Floor, error)
}

// Meter is an [Engine] that counts.
type Meter interface {
	// Stats returns the counts; it lasts some microseconds.
	Stats() Stats
}

// Stats is for operators, in the terms of an engine that has a log, tables in levels, and values
// apart from them; what an engine does not have is 0. Sizes are in bytes; counts of events begin
// when the engine is opened.
type Stats struct {
	DiskBytes     uint64 // all files
	WALBytes      uint64 // of the log that is still needed
	WALWritten    uint64 // to the log
	MemTableBytes uint64

	CacheBytes, CacheHits, CacheMisses uint64 // of the engine's cache of sealed blocks
	FilterHits, FilterMisses           uint64 // of the filters: a hit saves a look into a table

	Flushes, Compactions, FailedCompactions uint64
	CompactionTime                          time.Duration
	CompactionDebt                          uint64 // bytes to compact until the tree is at rest
	CompactionsRunning                      int
	FlushedBytes, CompactedBytes            uint64 // written, tables and blob files

	ReadAmplification int // tables that a look-up may have to read
	BlobFiles         uint64
	BlobBytes         uint64
	Tombstones        uint64 // deletions that compactions have not yet removed
	ObsoleteBytes     uint64 // of files that are about to be removed
	Snapshots         int    // open ones

	LevelTables, LevelBytes []uint64 // of each level of the tree, from 0
}
