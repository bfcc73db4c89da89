package pebble

import (
	"context"
	"maps"
	"slices"

	"github.com/cockroachdb/pebble/v2"

	"github.com/blockseal/blockseal/internal/engine"
)

// Checkpoint implements [engine.Checkpointer]. It links files that do not change any more, where
// the file system can.
//
// Pebble v2.1 copies the log while it is written to: it may copy one block of it before a write and
// the next one after it, and such a copy does not open
// (https://github.com/cockroachdb/pebble/issues/5142). So nothing is written meanwhile. The
// memtables are flushed first, so that there is little to copy.
func (d *DB) Checkpoint(ctx context.Context, dir string, frozen func(raise func(partition, epoch uint32))) error {
	if err := d.ready(ctx); err != nil {
		return err
	}
	if err := d.Flush(ctx); err != nil {
		return err
	}
	defer d.shutGates()()
	if err := d.cut(dir); err != nil {
		return err
	}
	if frozen != nil {
		frozen(func(number, epoch uint32) {
			if p := d.partitions.of[number]; p != nil {
				p.raiseLocked(func(f *engine.Floor) { f.Epoch = max(f.Epoch, epoch) })
			}
		})
	}
	return nil
}

// cut makes the copy while nothing is written to the log. The gates already keep out batches; quiet
// keeps out meta records.
func (d *DB) cut(dir string) error {
	d.quiet.Lock()
	defer d.quiet.Unlock()
	return translate(d.p.Checkpoint(dir, pebble.WithFlushedWAL()))
}

// shutGates keeps batches, and new partitions, out until open is called.
func (d *DB) shutGates() (open func()) {
	d.partitions.mu.Lock()
	numbers := slices.Sorted(maps.Keys(d.partitions.of))
	for _, n := range numbers {
		d.partitions.of[n].gate.Lock()
	}
	return func() {
		for _, n := range numbers {
			d.partitions.of[n].gate.Unlock()
		}
		d.partitions.mu.Unlock()
	}
}

// Flush writes the memtables out. If ctx ends first it returns; Pebble still writes them out as
// soon as the file system accepts them.
func (d *DB) Flush(ctx context.Context) error {
	flushed, err := d.beginFlush()
	if err != nil {
		return err
	}
	select {
	case <-flushed:
		return nil
	case <-ctx.Done():
		return d.room.because(ctx.Err())
	}
}

// beginFlush begins another log, and a flush of the memtable of the one before.
func (d *DB) beginFlush() (flushed <-chan struct{}, err error) {
	admitted, err := d.admit()
	if err != nil {
		return nil, err
	}
	defer admitted()
	d.quiet.RLock()
	defer d.quiet.RUnlock()
	defer d.log.ended()
	flushed, err = d.p.AsyncFlush()
	return flushed, translate(err)
}

// Compact rewrites the keys in [lower, upper), so that deleted and overwritten values leave the
// files.
func (d *DB) Compact(ctx context.Context, lower, upper []byte) error {
	return d.room.because(translate(d.p.Compact(ctx, lower, upper, false)))
}

// Metrics returns Pebble's own metrics.
func (d *DB) Metrics() *pebble.Metrics { return d.p.Metrics() }
