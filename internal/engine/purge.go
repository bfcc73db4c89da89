package engine

import (
	"context"
	"errors"
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

// ErrHeld says that a purge did all it could, and that files are left which somebody
// reads who may do so for long.
var ErrHeld = errors.New("engine: what is purged is being read")

// Purge makes the files forget what was deleted and overwritten in [lower, upper),
// whose values are small enough to be in the tables: it writes the memtables out,
// compacts, begins the log anew until no log from before is left, and waits until the
// files from before have been removed. touch is called before each round, and sets a
// key, because an empty memtable is not written out.
//
// A file stays as long as an iterator from before is open: Purge waits for those too,
// until ctx ends, unless held says that one is open which it must not wait for. Then it
// returns ErrHeld. What open snapshots see stays.
func (d *DB) Purge(ctx context.Context, lower, upper []byte, touch func(Batch) error, held func() bool) error {
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
		read, waiting := d.left()
		switch {
		case read == 0 && waiting == 0:
			return nil
		case waiting == 0 && held():
			return ErrHeld
		}
		select {
		case <-ctx.Done():
			return ctx.Err()
		case <-time.After(5 * time.Millisecond):
		}
	}
}

// left counts the files that the present state does not need and that are there: Pebble
// calls one a zombie as long as an iterator from before reads it, and then obsolete
// until it is removed.
func (d *DB) left() (read, waiting uint64) {
	m := d.p.Metrics()
	return count(m.Table.ZombieCount) + m.BlobFiles.ZombieCount, count(m.Table.ObsoleteCount) + m.BlobFiles.ObsoleteCount
}
