package pebble

import (
	"bytes"
	"context"
	"errors"
	"io/fs"
	"slices"
	"strings"
	"sync"
	"time"

	"github.com/cockroachdb/pebble/v2/vfs"

	"github.com/blockseal/blockseal/internal/engine"
)

// purgeFS lets Pebble recycle its logs, which makes synced writes cheaper, except during a purge: a
// recycled log keeps bytes of the former one behind its end.
type purgeFS struct {
	vfs.FS
	logs *oldLogs
}

// oldLogs is what a purge tells Pebble's recycling of logs.
type oldLogs struct {
	mu      sync.Mutex
	purging bool
}

// setPurging returns when no log is being recycled that began before.
func (l *oldLogs) setPurging(on bool) {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.purging = on
}

// ReuseForWrite implements [vfs.FS]. By its contract it may remove the old file and create the new
// one. Pebble ends the process if it fails. So it does without a log that a purge has removed, and what
// cannot be removed stays: if it is of before the purge, that removes it, and says if it cannot.
func (f purgeFS) ReuseForWrite(oldname, newname string, category vfs.DiskWriteCategory) (vfs.File, error) {
	f.logs.mu.Lock()
	defer f.logs.mu.Unlock()
	if !f.logs.purging {
		file, err := f.FS.ReuseForWrite(oldname, newname, category)
		if !errors.Is(err, fs.ErrNotExist) {
			return inSteps(file, err, newname)
		}
	}
	file, err := f.Create(newname, category)
	if err == nil {
		_ = f.FS.Remove(oldname)
	}
	return file, err
}

// listLogs returns the names of the logs in a directory.
func (f purgeFS) listLogs(dir string) (names []string, err error) {
	names, err = f.List(dir)
	return slices.DeleteFunc(names, func(name string) bool { return !strings.HasSuffix(name, logSuffix) }), err
}

// removeLogs removes logs that nobody needs, which purge makes durable at its end. Pebble has some of
// them for recycling, and may be removing others itself: it goes on where one is not there.
func (f purgeFS) removeLogs(dir string, names []string) error {
	for _, name := range names {
		if err := f.Remove(f.PathJoin(dir, name)); err != nil && !errors.Is(err, fs.ErrNotExist) {
			return err
		}
	}
	return nil
}

// purgeTries is how often a purge begins again because somebody opened a snapshot meanwhile and
// closed it.
const purgeTries = 4

type keyRange struct{ lower, upper []byte }

// purge makes the files forget what was deleted or overwritten in ranges of keys whose values lie
// in the tables. It calls touch, which sets a key, writes the memtables out, removes all logs that
// there were before that, also those which Pebble keeps for recycling, compacts the ranges, waits
// until the earlier tables are removed, and syncs the directory, without which a power failure could
// bring them back.
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
	d.files.logs.setPurging(true)
	defer d.files.logs.setPurging(false)
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
			if err := d.awaitRemoval(ctx, held); err != nil {
				return err
			}
			return d.files.syncDir(d.dir)
		}
		if held() {
			break
		}
	}
	return engine.ErrHeld
}

// rewrite rewrites each table that has keys in the ranges, and removes the logs of before.
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
	if err := touch(); err != nil {
		return err
	}
	if err := d.flushAndForget(ctx); err != nil {
		return err
	}
	for _, r := range ranges {
		if err := d.Compact(ctx, r.lower, r.upper); err != nil {
			return err
		}
	}
	return nil
}

// flushAndForget writes the memtables out and removes each log that there was before.
//
// A flush begins another log than the newest of those, and when it has ended the MANIFEST says,
// durably, that none of them is needed: Pebble has taken them for recycling by then, or is removing
// them. Only a checkpoint that is under way may still copy one. quiet keeps those out.
func (d *DB) flushAndForget(ctx context.Context) error {
	logs, err := d.files.listLogs(d.dir)
	if err != nil {
		return err
	}
	if err := d.Flush(ctx); err != nil {
		return err
	}
	d.quiet.RLock()
	defer d.quiet.RUnlock()
	return d.files.removeLogs(d.dir, logs)
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
