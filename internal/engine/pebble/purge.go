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

// purgeFS lets Pebble recycle its logs, which makes synced writes cheaper, except during a purge: a
// recycled log keeps bytes of the former one behind its end.
type purgeFS struct {
	vfs.FS
	purging *atomic.Bool
}

// ReuseForWrite implements [vfs.FS]. By its contract it may remove the old file and create the new
// one.
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

// purgeRounds is how often a purge begins the log anew: once for each log that Pebble keeps for
// recycling (one more than its memtables), once for the one in use, and once more.
const purgeRounds = memTables + 3

// purgeTries is how often a purge begins again because somebody opened a snapshot meanwhile and
// closed it.
const purgeTries = 4

type keyRange struct{ lower, upper []byte }

// purge makes the files forget what was deleted or overwritten in ranges of keys whose values lie
// in the tables. It begins the log anew and writes the memtables out until no earlier log is left,
// compacts the ranges, and waits until the earlier files are removed. Before each round it calls
// touch, which sets a key: an empty memtable is not written out.
//
// It first calls inPlace with the first key of each table in a range, or with the range's lower
// bound if the table begins before that; inPlace writes what is there anew. A compaction leaves a
// table of the last level alone if nothing above overlaps it, and such a table may have a deleted
// key with its old value, kept for a snapshot that is closed by now. (One deletion of range keys
// would overlap all tables. But Pebble v2.1 loses tables that it compacts with one, if a read fails
// meanwhile.)
//
// A flush or compaction keeps what an open snapshot sees, and its result does not show that. So a
// purge counts only if no snapshot was open from before its first flush to after its last
// compaction. Else it begins again, up to purgeTries times, and then returns engine.ErrHeld.
//
// A file also stays as long as an earlier iterator is open. purge waits for those until ctx ends.
// If held says that a reader must not be waited for, it returns engine.ErrHeld.
func (d *DB) purge(ctx context.Context, ranges []keyRange, touch func() error, inPlace func(keys [][]byte) error, held func() bool) error {
	select {
	case d.purges <- struct{}{}: // else the end of one purge would undo the beginning of another
	case <-ctx.Done():
		return ctx.Err()
	}
	defer func() { <-d.purges }()
	d.purging.Store(true)
	defer d.purging.Store(false)
	defer d.lookups.write()() // no Lookup is kept meanwhile, which would pin a file
	for range purgeTries {
		calm := d.snapshots.mark()
		// A compaction that runs now may keep what a snapshot saw that is closed by now.
		if err := d.running.await(ctx); err != nil {
			return err
		}
		if err := d.rewrite(ctx, ranges, touch, inPlace); err != nil {
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

// rewrite rewrites each table that has keys in the ranges, and begins the log anew until no earlier
// one is left.
func (d *DB) rewrite(ctx context.Context, ranges []keyRange, touch func() error, inPlace func(keys [][]byte) error) error {
	for _, r := range ranges {
		keys, err := d.firstKeys(r)
		if err == nil {
			err = inPlace(keys)
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

// firstKeys returns, in order, the first key of each table that has keys in a range, or the range's
// lower bound if the table begins before it.
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

// left counts the files that exist and that the present state does not need. Pebble calls such a
// file a zombie while an iterator reads it, and then obsolete until it is removed.
func (d *DB) left() (read, waiting uint64) {
	m := d.p.Metrics()
	return count(m.Table.ZombieCount) + m.BlobFiles.ZombieCount, count(m.Table.ObsoleteCount) + m.BlobFiles.ObsoleteCount
}
