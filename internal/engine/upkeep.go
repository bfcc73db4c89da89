package engine

import (
	"context"

	"github.com/cockroachdb/pebble/v2"
)

// Checkpoint makes a copy of the engine in dir, which must not exist, with
// everything that was committed before the call. Files that do not change any
// more are linked where the file system can.
func (d *DB) Checkpoint(dir string) error {
	return translate(d.p.Checkpoint(dir, pebble.WithFlushedWAL()))
}

// Flush writes the memtables out.
func (d *DB) Flush() error { return translate(d.p.Flush()) }

// Compact rewrites the keys in [lower, upper) so that deleted and overwritten
// values leave the files.
func (d *DB) Compact(ctx context.Context, lower, upper []byte) error {
	return translate(d.p.Compact(ctx, lower, upper, false))
}

// Metrics returns Pebble's own.
func (d *DB) Metrics() *pebble.Metrics { return d.p.Metrics() }
