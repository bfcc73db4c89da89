package engine

import (
	"context"

	"github.com/cockroachdb/pebble/v2"
)

// Checkpoint makes a copy of the engine in dir, which must not exist, with
// everything that was committed before the call. Files that do not change any
// more are linked where the file system can.
//
// Pebble v2.1 copies the log while it is written: a block of it can be copied before a
// change and the next one after, and then the copy does not open
// (https://github.com/cockroachdb/pebble/issues/5142). Nothing is written meanwhile,
// and the memtables are written out first, so that there is little to copy.
//
// It ends with ctx while it waits for the memtables, which on a full disk takes until
// there is room; dir is then not there.
//
// around, if not nil, is called when what was in memory is written out, and calls cut, which
// takes the files: what is applied while around keeps others from applying is in the copy if
// it came before cut, and is not if it came after.
func (d *DB) Checkpoint(ctx context.Context, dir string, around func(cut func() error) error) error {
	if err := d.Flush(ctx); err != nil {
		return err
	}
	cut := func() error {
		d.quiet.Lock()
		defer d.quiet.Unlock()
		return translate(d.p.Checkpoint(dir, pebble.WithFlushedWAL()))
	}
	if around == nil {
		return cut()
	}
	return around(cut)
}

// Flush writes the memtables out, or returns when ctx ends; they are written out all the
// same, when the file system takes them.
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

// beginFlush begins another log, and the writing out of what the one before is for.
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

// Compact rewrites the keys in [lower, upper) so that deleted and overwritten
// values leave the files.
func (d *DB) Compact(ctx context.Context, lower, upper []byte) error {
	return d.room.because(translate(d.p.Compact(ctx, lower, upper, false)))
}

// Metrics returns Pebble's own.
func (d *DB) Metrics() *pebble.Metrics { return d.p.Metrics() }
