package engine

import (
	"context"
	"time"
)

// Checkpointer is an [Engine] that can copy itself.
type Checkpointer interface {
	// Checkpoint makes a copy of all partitions in dir, which must not exist, with everything
	// that was applied before the call. The copy is opened as the engine is.
	//
	// taken, if not nil, is called when what the copy will have is decided, while no change is
	// applied to a row: what is applied after it is not in the copy. raise raises a partition's
	// floor there, as RaiseFloor would.
	//
	// It ends with ctx while it waits for what is in memory to be written out; dir is then not
	// there.
	Checkpoint(ctx context.Context, dir string, taken func(raise func(partition, epoch uint32))) error
}

// Purger is a [Partition] whose engine can promise that its files forget what was deleted.
type Purger interface {
	// Purge makes the files forget the records of rows, and the meta records, that were deleted
	// or overwritten before the call. Sealed blocks are left to the engine's own housekeeping.
	// touch is called now and then, and sets a meta record, so that there is something to write
	// out.
	//
	// Views and cursors from before keep what they see in the files: Purge waits for them until
	// ctx ends, unless held says that one is open which it must not wait for. Then, and when
	// views come and go faster than it works, it returns ErrHeld.
	Purge(ctx context.Context, touch func() error, held func() bool) error
}

// Meter is an [Engine] that counts.
type Meter interface {
	// Stats takes some microseconds.
	Stats() Stats
}

// Stats is what an operator looks at, in the terms of an engine that has a log, tables in
// levels, and values apart from them; what an engine does not have is 0. Sizes are in bytes;
// counts of what happened are since the engine was opened.
type Stats struct {
	DiskBytes     uint64 // all files
	WALBytes      uint64 // of the log that is still needed
	WALWritten    uint64 // to the log
	MemTableBytes uint64

	CacheBytes, CacheHits, CacheMisses uint64 // of the engine's cache of sealed blocks
	FilterHits, FilterMisses           uint64 // of the filters: a hit saved a look into a table

	Flushes, Compactions, FailedCompactions uint64
	CompactionTime                          time.Duration
	CompactionDebt                          uint64 // what is to be compacted until the tree is at rest
	CompactionsRunning                      int
	FlushedBytes, CompactedBytes            uint64 // written, tables and blob files

	ReadAmplification int // tables that a look-up may have to go through
	BlobFiles         uint64
	BlobBytes         uint64
	Tombstones        uint64 // deletions that compactions have not yet removed
	ObsoleteBytes     uint64 // of files that are about to be removed
	Snapshots         int    // open ones

	LevelTables, LevelBytes []uint64 // of each level of the tree, from 0
}
