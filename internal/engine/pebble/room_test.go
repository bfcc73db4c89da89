package pebble

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"strings"
	"sync/atomic"
	"syscall"
	"testing"
	"time"

	"github.com/cockroachdb/pebble/v2"
	"github.com/cockroachdb/pebble/v2/vfs"
	"github.com/cockroachdb/pebble/v2/vfs/errorfs"
	"github.com/stretchr/testify/require"

	"github.com/blockseal/blockseal/internal/engine"
)

// fullFS has no room for tables and blob files while it is full, and tells of each that
// it refused.
type fullFS struct {
	vfs.FS
	full    atomic.Bool
	refused chan struct{}
}

func newFullFS() *fullFS { return &fullFS{FS: vfs.NewMem(), refused: make(chan struct{}, 1)} }

func (f *fullFS) Create(name string, c vfs.DiskWriteCategory) (vfs.File, error) {
	if f.full.Load() && (strings.HasSuffix(name, ".sst") || strings.HasSuffix(name, ".blob")) {
		select {
		case f.refused <- struct{}{}:
		default:
		}
		return nil, syscall.ENOSPC
	}
	return f.FS.Create(name, c)
}

// What waits for the memtables on a full disk ends with its context, and they are written
// out when there is room.
func TestFullDiskEndsWithTheContext(t *testing.T) {
	for name, f := range map[string]func(*DB, context.Context) error{
		"flush":      (*DB).Flush,
		"checkpoint": func(d *DB, ctx context.Context) error { return d.Checkpoint(ctx, "copy", nil) },
		"purge": func(d *DB, ctx context.Context) error {
			p := d.Partition(0)
			touch := func() error {
				_, err := p.SwapMeta(t.Context(), engine.Swap{Name: "touched", Revision: engine.AnyRevision, Value: []byte("1")})
				return err
			}
			return p.(engine.Purger).Purge(ctx, touch, func() bool { return false })
		},
	} {
		t.Run(name, func(t *testing.T) {
			fs := newFullFS()
			require.NoError(t, fs.MkdirAll("db", 0o755))
			d := openDir(t, "db", fs)
			set(t, d, "\x02a", "value")
			fs.full.Store(true)
			ctx, cancel := context.WithCancel(t.Context())
			done := make(chan error, 1)
			go func() { done <- f(d, ctx) }()
			<-fs.refused
			<-fs.refused // the first refusal has come through
			cancel()
			err := <-done
			require.ErrorIs(t, err, context.Canceled)
			require.ErrorIs(t, err, syscall.ENOSPC, "the error says what it waited for")
			_, err = fs.Stat("copy")
			require.Error(t, err, "there is no half of a copy")
			fs.full.Store(false)
			require.NoError(t, f(d, t.Context()))
			got, err := valueOf(t, d, "\x02a")
			require.NoError(t, err)
			require.Equal(t, "value", got)
		})
	}
}

// On a full disk writes are refused once the memtables are full: none waits where neither
// Close nor anybody else could end it. What was acknowledged is there when there is room.
func TestFullDiskRefusesWrites(t *testing.T) {
	fs := newFullFS()
	require.NoError(t, fs.MkdirAll("db", 0o755))
	lock, err := LockDir("db", fs, false)
	require.NoError(t, err)
	defer lock.Close()
	open := func() *DB {
		d, err := Open("db", lock, Options{FS: fs, Create: true, MemTableBytes: 256 << 10})
		require.NoError(t, err)
		return d
	}
	value := []byte(strings.Repeat("v", 512))
	put := func(d *DB, i int) error {
		b := d.NewBatch()
		defer b.Close()
		require.NoError(t, b.Set(fmt.Appendf([]byte{2}, "%06d", i), value))
		return d.Commit(b, true)
	}
	count := func(d *DB) (n int) {
		it, err := d.NewIter([]byte{2}, []byte{3})
		require.NoError(t, err)
		for ok := it.First(); ok; ok = it.Next() {
			n++
		}
		require.NoError(t, it.Close())
		return n
	}
	acknowledged := 0
	// fill is the disk's being full, with all of it noticed: a write that Pebble makes wait
	// before it has failed to write anything out waits until there is room.
	fill := func(d *DB) {
		fs.full.Store(true)
		require.NoError(t, put(d, acknowledged))
		acknowledged++
		_, err := d.beginFlush()
		require.NoError(t, err)
		require.Eventually(t, func() bool { return d.room.failing.Load()&flushing != 0 }, time.Minute, time.Millisecond)
	}
	d := open()
	fill(d)
	for ; err == nil && acknowledged < 1<<20; acknowledged++ {
		if err = put(d, acknowledged); err != nil {
			break
		}
	}
	require.ErrorIs(t, err, engine.ErrNoRoom)
	require.ErrorIs(t, err, syscall.ENOSPC)
	require.Greater(t, acknowledged, 500, "the memtables took what they have room for")
	require.ErrorIs(t, d.Flush(t.Context()), engine.ErrNoRoom)
	require.Equal(t, acknowledged, count(d))

	fs.full.Store(false)
	require.Eventually(t, func() bool { return put(d, acknowledged) == nil }, time.Minute, time.Millisecond, "it is taken as soon as there is room")
	acknowledged++
	require.NoError(t, d.Flush(t.Context()))

	fill(d)
	for err = nil; err == nil; acknowledged++ {
		if err = put(d, acknowledged); err != nil {
			break
		}
	}
	require.ErrorIs(t, err, engine.ErrNoRoom)
	require.NoError(t, d.Close(), "it does not wait for room")
	fs.full.Store(false)
	d = open()
	require.Equal(t, acknowledged, count(d))
	require.NoError(t, d.Close())
}

// What shows that the disk is full, or is not: a compaction that succeeds says nothing of a flush
// that fails, and a read that fails in the background, as of what a table holds, nothing of either.
// Else a write would be admitted that waits inside Pebble for as long as there is no room, or one
// refused for which there is room.
func TestWhatShowsThatThereIsRoom(t *testing.T) {
	r := newRoom(Options{})
	flush := func(err error) { r.flushed(pebble.FlushInfo{Err: err}) }
	compact := func(err error) { r.compacted(pebble.CompactionInfo{Err: err}) }
	failing := func(want bool) {
		t.Helper()
		require.Equal(t, want, r.because(context.Canceled) != context.Canceled)
	}
	failing(false)
	flush(syscall.ENOSPC)
	compact(nil)
	failing(true)
	flush(errors.New(emptyFlush))
	failing(true)
	flush(nil)
	failing(false)
	compact(syscall.ENOSPC)
	failing(true)
	compact(nil)
	failing(false)
	compact(syscall.ENOSPC)
	flush(nil)
	failing(false)
	compact(pebble.ErrCancelledCompaction)
	flush(errors.New(emptyFlush))
	failing(false)
}

// Pebble tells of a flush that had nothing to write as of one that failed.
func TestAnEmptyFlushIsNoFailure(t *testing.T) {
	d := openMem(t)
	require.NoError(t, d.p.Set([]byte("\x02a"), nil, pebble.NoSync))
	require.NoError(t, d.p.SingleDelete([]byte("\x02a"), pebble.NoSync)) // the two annihilate each other
	require.NoError(t, d.Flush(t.Context()))
	require.Zero(t, d.Metrics().Levels[0].TablesFlushed, "it wrote nothing")
	require.Zero(t, d.room.failing.Load())
}

// told gets what is logged.
type told chan string

func (c told) Write(b []byte) (int, error) {
	select {
	case c <- string(b):
	default:
	}
	return len(b), nil
}

// A table that cannot be read in the background is no full disk.
func TestAReadThatFailsBehindIsNoFullDisk(t *testing.T) {
	mem := vfs.NewMem()
	require.NoError(t, mem.MkdirAll("db", 0o755))
	t.Run("before", func(t *testing.T) {
		d := openDir(t, "db", mem)
		set(t, d, "\x02a", "value")
		require.NoError(t, d.Flush(t.Context()))
	})
	lock, err := LockDir("db", mem, false)
	require.NoError(t, err)
	defer lock.Close()
	logged := make(told, 1)
	d, err := Open("db", lock, Options{Logger: slog.New(slog.NewTextHandler(logged, &slog.HandlerOptions{Level: slog.LevelError})),
		FS: errorfs.Wrap(mem, errorfs.InjectorFunc(func(op errorfs.Op) error {
			if op.Kind == errorfs.OpOpen && strings.HasSuffix(op.Path, ".sst") {
				return syscall.EIO
			}
			return nil
		}))})
	require.NoError(t, err)
	require.Contains(t, <-logged, "input/output error") // Pebble gathers statistics of the tables
	require.Zero(t, d.room.failing.Load())
	require.NoError(t, d.Close())
}
