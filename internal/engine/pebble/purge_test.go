package pebble

import (
	"bytes"
	"context"
	"errors"
	"io"
	"os"
	"strings"
	"sync"
	"sync/atomic"
	"testing"

	"github.com/cockroachdb/pebble/v2/vfs"
	"github.com/stretchr/testify/require"

	"github.com/blockseal/blockseal/internal/engine"
)

// purgeRig is an engine whose oldest level has what is to be purged.
type purgeRig struct {
	*DB
	t  *testing.T
	fs vfs.FS
}

// The values that are to be forgotten; their keys are in the range that is purged.
const oldA, oldB = "the value of before, which was deleted", "the value of before, which was overwritten"

func newPurgeRig(t *testing.T) *purgeRig {
	fs := vfs.NewCrashableMem()
	require.NoError(t, fs.MkdirAll("db", 0o755))
	d := &purgeRig{openDir(t, "db", fs), t, fs}
	set(t, d.DB, "\x02a", oldA, "\x02b", oldB, "\x02c", "stays")
	require.NoError(t, d.Flush(t.Context()))
	require.NoError(t, d.Compact(t.Context(), []byte{2}, []byte{3}))
	levels := d.p.Metrics().Levels
	require.NotZero(t, levels[len(levels)-1].TablesCount, "they are in the deepest level")
	b := d.NewBatch()
	defer b.Close()
	require.NoError(t, b.Delete([]byte("\x02a")))
	require.NoError(t, b.Set([]byte("\x02b"), []byte("the value of now")))
	require.NoError(t, d.Commit(b, true))
	require.NoError(t, d.Flush(t.Context()))
	require.NotEmpty(t, d.holding(oldA), "the search must be able to find it")
	require.NotEmpty(t, d.holding(oldB))
	return d
}

// holding returns the files that have a text. One that Pebble removes meanwhile has none.
func (d *purgeRig) holding(text string) (found []string) {
	names, err := d.fs.List("db")
	require.NoError(d.t, err)
	for _, name := range names {
		f, err := d.fs.Open("db/" + name)
		if errors.Is(err, os.ErrNotExist) {
			continue
		}
		require.NoError(d.t, err)
		b, err := io.ReadAll(f)
		require.NoError(d.t, err)
		require.NoError(d.t, f.Close())
		if bytes.Contains(b, []byte(text)) {
			found = append(found, name)
		}
	}
	return found
}

// inPlace writes what is there, while nobody else writes.
func (d *DB) inPlace(keys [][]byte) error {
	b := d.NewBatch()
	defer b.Close()
	for _, key := range keys {
		v, closer, err := d.Get(key)
		if errors.Is(err, engine.ErrNotFound) {
			err = b.Delete(key)
		} else if err == nil {
			err = errors.Join(b.Set(key, v), closer.Close())
		}
		if err != nil {
			return err
		}
	}
	return d.Commit(b, true)
}

// ranges is what is purged.
var ranges = []keyRange{{[]byte{2}, []byte{3}}}

// touch sets a key, so that there is something to write out.
func (d *purgeRig) touch() error {
	b := d.NewBatch()
	defer b.Close()
	return errors.Join(b.Set([]byte("\x01"), nil), d.Commit(b, true))
}

func (d *purgeRig) purge(ctx context.Context, held func() bool) error {
	return d.DB.purge(ctx, ranges, d.touch, d.inPlace, held)
}

func (d *purgeRig) purged() {
	d.t.Helper()
	require.Empty(d.t, d.holding(oldA))
	require.Empty(d.t, d.holding(oldB))
	_, err := valueOf(d.t, d.DB, "\x02a")
	require.ErrorIs(d.t, err, engine.ErrNotFound)
	for key, want := range map[string]string{"\x02b": "the value of now", "\x02c": "stays"} {
		got, err := valueOf(d.t, d.DB, key)
		require.NoError(d.t, err)
		require.Equal(d.t, want, got)
	}
}

// A purge leaves nothing of before in a log: not in the one in use, nor in one that Pebble keeps to be
// recycled, nor behind the end of one that was recycled. It begins one log and writes out once. What
// it has removed Pebble goes on without.
func TestPurgeRemovesLogs(t *testing.T) {
	d := newPurgeRig(t)
	const old, many = "what was in each log", 8
	logs := func() []string {
		names, err := d.files.listLogs("db")
		require.NoError(t, err)
		return names
	}
	for i := range many { // later ones are shorter, and end before what they recycle
		set(t, d.DB, "\x02b", strings.Repeat("x", 100*(many-i))+old)
		require.NoError(t, d.Flush(t.Context()))
	}
	set(t, d.DB, "\x02b", old)
	set(t, d.DB, "\x02b", "the value of now")
	before := logs()
	require.Greater(t, len(before), 1, "Pebble keeps one that it does not need")
	flushes := d.p.Metrics().Flush.Count
	require.NoError(t, d.purge(t.Context(), func() bool { return false }))
	require.EqualValues(t, flushes+1, d.p.Metrics().Flush.Count)
	require.Empty(t, d.holding(old))
	d.purged()
	require.NotContains(t, before, logs()[0])
	require.Len(t, logs(), 1)

	for range many {
		set(t, d.DB, "\x02d", "later")
		require.NoError(t, d.Flush(t.Context()))
	}
	require.Greater(t, len(logs()), 1, "it recycles again")
	got, err := valueOf(t, d.DB, "\x02d")
	require.NoError(t, err)
	require.Equal(t, "later", got)
}

// What was deleted and overwritten leaves the deepest level too, where the flushes of a
// purge, and the compactions that those bring about, do not come.
func TestPurgeReachesTheDeepestLevel(t *testing.T) {
	d := newPurgeRig(t)
	require.NoError(t, d.purge(t.Context(), func() bool { return false }))
	d.purged()
}

// What a purge has removed does not come back with a power failure, of which the file system keeps only
// what was synced.
func TestPurgeIsDurable(t *testing.T) {
	d := newPurgeRig(t)
	require.NoError(t, d.purge(t.Context(), func() bool { return false }))
	left := &purgeRig{t: t, fs: d.fs.(*vfs.MemFS).CrashClone(vfs.CrashCloneCfg{})}
	require.Empty(t, left.holding(oldA))
	require.Empty(t, left.holding(oldB))
	require.NotEmpty(t, left.holding("stays"))
}

// A purge has not ended as long as an iterator keeps a file from before.
func TestPurgeWaitsForIterators(t *testing.T) {
	d := newPurgeRig(t)
	it, err := d.NewIter([]byte{2}, []byte{3})
	require.NoError(t, err)
	require.True(t, it.First())

	require.ErrorIs(t, d.purge(t.Context(), func() bool { return true }), engine.ErrHeld)
	require.NotEmpty(t, d.holding(oldA))

	ctx, cancel := context.WithCancel(t.Context())
	err = d.purge(ctx, func() bool { cancel(); return false })
	require.ErrorIs(t, err, context.Canceled)
	require.NotEmpty(t, d.holding(oldA))

	waits, done := make(chan struct{}, 1), make(chan error, 1)
	go func() {
		done <- d.purge(t.Context(), func() bool {
			select {
			case waits <- struct{}{}:
			default:
			}
			return false
		})
	}()
	select {
	case <-waits:
	case err := <-done:
		t.Fatalf("it did not wait: %v", err)
	}
	require.NoError(t, it.Close())
	require.NoError(t, <-done)
	d.purged()
}

// A compaction that ran while a snapshot was open leaves an old value beside the new one in
// the deepest level, where nothing later overlaps them.
func TestPurgeOfWhatASnapshotKept(t *testing.T) {
	d := newPurgeRig(t)
	require.NoError(t, d.purge(t.Context(), func() bool { return false }))
	set(t, d.DB, "\x02a", oldA, "\x02b", oldB)
	snap := d.NewSnapshot()
	set(t, d.DB, "\x02a", "", "\x02b", "the value of now")
	require.NoError(t, d.Flush(t.Context()))
	require.NoError(t, d.Compact(t.Context(), []byte{2}, []byte{3}))
	require.NoError(t, snap.Close())
	require.NotEmpty(t, d.holding(oldA))
	require.NoError(t, d.purge(t.Context(), func() bool { return false }))
	require.Empty(t, d.holding(oldA))
	require.Empty(t, d.holding(oldB))
	got, err := valueOf(t, d.DB, "\x02b")
	require.NoError(t, err)
	require.Equal(t, "the value of now", got)
}

// What a snapshot saw that is taken during a purge is found again by the purge, whenever
// that snapshot is closed; while one stays open the purge does not say that it did its work.
func TestPurgeBesideSnapshots(t *testing.T) {
	never := func() bool { return false }
	t.Run("closed during it", func(t *testing.T) {
		d := newPurgeRig(t)
		var snap *Snapshot
		tries := 0
		require.NoError(t, d.DB.purge(t.Context(), ranges, func() error {
			if tries++; tries == 1 {
				require.NoError(t, snap.Close())
			}
			return d.touch()
		}, func(keys [][]byte) error {
			if tries == 0 {
				snap = d.NewSnapshot()
			}
			return d.inPlace(keys)
		}, never))
		require.Equal(t, 2, tries, "it began again")
		d.purged()
	})
	t.Run("closed at the end", func(t *testing.T) {
		d := newPurgeRig(t)
		var snap *Snapshot
		var once sync.Once
		err := d.DB.purge(t.Context(), ranges, func() error {
			if snap == nil {
				snap = d.NewSnapshot()
			}
			return d.touch()
		}, d.inPlace, func() bool {
			once.Do(func() { require.NoError(t, snap.Close()) })
			return false
		})
		require.NoError(t, err)
		d.purged()
	})
	t.Run("open", func(t *testing.T) {
		d := newPurgeRig(t)
		var snap *Snapshot
		tries := 0
		require.ErrorIs(t, d.DB.purge(t.Context(), ranges, func() error {
			tries++
			snap = d.NewSnapshot()
			return d.touch()
		}, d.inPlace, func() bool { return true }), engine.ErrHeld)
		require.Equal(t, 1, tries, "it does not wait for what it must not wait for")
		require.NoError(t, snap.Close())
		require.NoError(t, d.purge(t.Context(), never))
		d.purged()
	})
	t.Run("one after the other", func(t *testing.T) {
		d := newPurgeRig(t)
		err := d.DB.purge(t.Context(), ranges, func() error {
			require.NoError(t, d.NewSnapshot().Close())
			return d.touch()
		}, d.inPlace, never)
		require.ErrorIs(t, err, engine.ErrHeld, "it cannot know")
	})
}

// removedAndFailed is a file system whose removal of a log takes place, and is reported as another error.
type removedAndFailed struct {
	vfs.FS
	on  atomic.Bool
	err error
}

func (f *removedAndFailed) Remove(name string) error {
	err := f.FS.Remove(name)
	if err == nil && f.on.Load() && strings.HasSuffix(name, logSuffix) {
		return f.err
	}
	return err
}

// A log whose removal took place and was reported as failed, as over a network whose answer was lost, is gone: Pebble
// goes on without it where it would have recycled it.
func TestPurgeOfLogsThatAreGone(t *testing.T) {
	for name, failure := range map[string]error{"an I/O error": errors.New("input/output error"), "it is not there": os.ErrNotExist} {
		t.Run(name, func(t *testing.T) {
			fs := &removedAndFailed{FS: vfs.NewMem(), err: failure}
			require.NoError(t, fs.MkdirAll("db", 0o755))
			d := &purgeRig{openDir(t, "db", fs), t, fs}
			for range 3 {
				set(t, d.DB, "\x02d", "earlier")
				require.NoError(t, d.Flush(t.Context()))
			}
			fs.on.Store(true)
			err := d.purge(t.Context(), func() bool { return false })
			fs.on.Store(false)
			if failure != os.ErrNotExist {
				require.ErrorIs(t, err, failure)
			}
			for range 8 {
				set(t, d.DB, "\x02d", "later")
				require.NoError(t, d.Flush(t.Context()))
			}
			require.NoError(t, d.purge(t.Context(), func() bool { return false }))
		})
	}
}
