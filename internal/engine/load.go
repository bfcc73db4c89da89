package engine

import (
	"context"
	"io"
)

// Loader is a [Partition] whose engine can write many rows beside its log, and then take them all up
// at once.
type Loader interface {
	// NewLoad returns an empty load. The caller closes it, before the engine.
	NewLoad(ctx context.Context) (Load, error)
}

// Load is rows that are applied together or not at all. It belongs to one goroutine.
type Load interface {
	// Put adds a row. The ids ascend, and none comes twice; the caller sees to that.
	Put(id, record, sealed []byte) error
	// Rewrite replaces records by what f makes of them, in the order of the ids. What f is given and
	// returns is valid until its next call. After an error the load can only be closed.
	Rewrite(ctx context.Context, f func(id, record []byte) ([]byte, error)) error
	// Prepare does what Apply would else do while writes wait for it: it makes durable what was put, and
	// writes out what the engine has in memory. On a full disk the end of ctx ends it. It may be called
	// again, and Apply without it.
	Prepare(ctx context.Context) error
	// Apply is that of [Rows] with sync, and without Was: the rows replace what is there, and are
	// durable when it returns nil, as is all that was applied before. After ErrFloor it may be
	// called again. After it has returned nil the load can only be closed.
	//
	// Writes of the partition, and who raises its floor, may wait for Apply, which waits for the disk.
	Apply(ctx context.Context, g Guard) error
	// Close removes what was not applied. To close twice does nothing.
	io.Closer
}
