package pebble

import (
	"bytes"
	"context"
	"slices"
	"sync/atomic"
	"time"

	"github.com/cockroachdb/pebble/v2/vfs"

	"github.com/blockseal/blockseal/internal/engine"
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
		file, err := f.FS.ReuseForWrite(oldname, newname, category)
		return inSteps(file, err, newname)
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

// purgeTries is how often a purge begins again because somebody took a snapshot
// meanwhile, and closed it.
const purgeTries = 4

// keyRange is the keys in [lower, upper).
type keyRange struct{ lower, upper []byte }

// purge makes the files forget what was deleted and overwritten in ranges of keys,
// whose values are small enough to be in the tables: it writes the memtables out,
// compacts, begins the log anew until no log from before is left, and waits until the
// files from before have been removed. touch is called before each round, and sets a
// key, because an empty memtable is not written out. meet is called with the first key of
// each table in the range, deleted or not, and lower for one that begins before it, and writes something there that
// changes nothing: a compaction of a range takes its tables down level by level, and leaves
// a table of the last level alone that nothing above overlaps; such a table can have a
// deleted key with its old value, both kept there for a snapshot that is closed by now. (A
// deletion of range keys would overlap them all at once. Pebble v2.1 loses tables that it
// compacts with one when a read fails meanwhile.)
//
// What is flushed or compacted while a snapshot is open keeps what that one sees, and
// nobody sees in the result whether it does. So a purge counts only if from before its
// first flush to after its last compaction there was no snapshot; else it begins again,
// a few times, unless held says that one is open which it must not wait for. Then, and
// when it has tried often enough, it returns engine.ErrHeld.
//
// A file stays as long as an iterator from before is open: Purge waits for those too,
// until ctx ends, unless held says that one is open which it must not wait for. Then it
// returns ErrHeld.
func (d *DB) purge(ctx context.Context, ranges []keyRange, touch func() error, meet func(keys [][]byte) error, held func() bool) error {
	select {
	case d.purges <- struct{}{}: // what one purge has forgotten, another's end would bring back
	case <-ctx.Done():
		return ctx.Err()
	}
	defer func() { <-d.purges }()
	d.purging.Store(true)
	defer d.purging.Store(false)
	defer d.lookups.change()() // none is kept meanwhile, which would pin a file
	for range purgeTries {
		calm := d.snapshots.mark()
		// What is being compacted now may keep what a snapshot sees that is closed by now.
		if err := d.running.await(ctx); err != nil {
			return err
		}
		if err := d.rewrite(ctx, ranges, touch, meet); err != nil {
			return err
		}
		if calm() {
			return d.awaitRemoval(ctx, held)
		}
		if held() {
			break
		}
	}
	return engine.ErrHeld
}

// rewrite writes every table anew that has keys in the ranges, and begins the log anew until
// none from before is left.
func (d *DB) rewrite(ctx context.Context, ranges []keyRange, touch func() error, meet func(keys [][]byte) error) error {
	for _, r := range ranges {
		keys, err := d.firstKeys(r)
		if err == nil {
			err = meet(keys)
		}
		if err != nil {
			return err
		}
	}
	for range purgeRounds {
		if err := touch(); err != nil {
			return err
		}
		if err := d.Flush(ctx); err != nil {
			return err
		}
	}
	for _, r := range ranges {
		if err := d.Compact(ctx, r.lower, r.upper); err != nil {
			return err
		}
	}
	return nil
}

// firstKeys returns, in order, where in a range each table begins that reaches into it: at its
// first key, or where the range does.
func (d *DB) firstKeys(r keyRange) (keys [][]byte, err error) {
	levels, err := d.p.SSTables()
	if err != nil {
		return nil, translate(err)
	}
	for _, level := range levels {
		for _, t := range level {
			if bytes.Compare(t.Largest.UserKey, r.lower) < 0 || bytes.Compare(t.Smallest.UserKey, r.upper) >= 0 {
				continue
			}
			first := t.Smallest.UserKey
			if bytes.Compare(first, r.lower) < 0 {
				first = r.lower
			}
			keys = append(keys, bytes.Clone(first))
		}
	}
	slices.SortFunc(keys, bytes.Compare)
	return slices.CompactFunc(keys, bytes.Equal), nil
}

// awaitRemoval waits until the files from before have been removed.
func (d *DB) awaitRemoval(ctx context.Context, held func() bool) error {
	for {
		read, waiting := d.left()
		switch {
		case read == 0 && waiting == 0:
			return nil
		case waiting == 0 && held():
			return engine.ErrHeld
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
