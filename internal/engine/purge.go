package engine

import (
	"context"
	"sync/atomic"
	"time"

	"github.com/cockroachdb/pebble/v2/vfs"
)

// purgeFS lets Pebble recycle its log files, which makes synced writes cheaper,
// except while a purge is under way: a recycled log keeps the bytes of the one
// before behind its end.
type purgeFS struct {
	vfs.FS
	purging *atomic.Bool
}

// ReuseForWrite implements [vfs.FS], whose contract allows removing the old file
// and creating the new one.
func (f purgeFS) ReuseForWrite(oldname, newname string, category vfs.DiskWriteCategory) (vfs.File, error) {
	if !f.purging.Load() {
		return f.FS.ReuseForWrite(oldname, newname, category)
	}
	file, err := f.Create(newname, category)
	if err != nil {
		return nil, err
	}
	if err := f.Remove(oldname); err != nil {
		file.Close()
		return nil, err
	}
	return file, nil
}

// purgeRounds is how often the log is begun anew in a purge: once for each log
// that Pebble keeps for recycling (one more than its memtables), once for the one
// in use, and once more.
const purgeRounds = memTables + 3

// Purge makes the files forget what was deleted and overwritten in [lower, upper),
// whose values are small enough to be in the tables: it writes the memtables out,
// compacts, begins the log anew until no log from before is left, and waits until
// obsolete files have been removed. touch is called before each round, and sets a
// key, because an empty memtable is not written out. What open snapshots and
// iterators see stays.
func (d *DB) Purge(ctx context.Context, lower, upper []byte, touch func(Batch) error) error {
	d.purging.Store(true)
	defer d.purging.Store(false)
	defer d.lookups.change()() // none is kept meanwhile, which would pin a file
	for range purgeRounds {
		b := d.NewBatch()
		if err := touch(b); err != nil {
			b.Close()
			return err
		}
		err := d.Commit(b, true)
		b.Close()
		if err != nil {
			return err
		}
		if err := d.Flush(); err != nil {
			return err
		}
	}
	if err := d.Compact(ctx, lower, upper); err != nil {
		return err
	}
	for {
		m := d.p.Metrics()
		if m.Table.ObsoleteCount == 0 {
			return nil
		}
		select {
		case <-ctx.Done():
			return ctx.Err()
		case <-time.After(5 * time.Millisecond):
		}
	}
}
