package block_test

import (
	"bytes"
	"context"
	"fmt"
	"runtime"
	"strings"
	"sync/atomic"
	"syscall"
	"testing"

	"github.com/cockroachdb/pebble/v2/vfs"
	"github.com/stretchr/testify/require"

	"github.com/blockseal/blockseal/block"
)

// fullFS has no room for tables and blob files while it is full, and tells of what it
// refused.
type fullFS struct {
	vfs.FS
	full    atomic.Bool
	refused chan struct{}
}

func (g *rig) fillable() *fullFS {
	fs := &fullFS{FS: g.opts.Pebble.FS, refused: make(chan struct{}, 1)}
	g.opts.Pebble.FS = fs
	return fs
}

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

// On a full disk what needs the memtables written out ends with its context and with
// Close, says why it waited, and does its work when there is room.
func TestFullDisk(t *testing.T) {
	checkpoint := func(ctx context.Context, s *block.Store) error { return s.Checkpoint(ctx, "copy") }
	erase := func(ctx context.Context, s *block.Store) error { _, err := s.Erase(ctx, nil); return err }
	for name, op := range map[string]func(context.Context, *block.Store) error{"checkpoint": checkpoint, "erase": erase} {
		for _, end := range []string{"ctx", "close"} {
			t.Run(name+" ended by "+end, func(t *testing.T) {
				g := newRig(t)
				fs := g.fillable()
				s, err := block.Open(g.ctx, g.dir, g.kek, &g.opts)
				require.NoError(t, err)
				require.NoError(t, s.Put(g.ctx, []byte("a"), []byte("1")))
				fs.full.Store(true)
				ctx, cancel := context.WithCancel(g.ctx)
				defer cancel()
				done := make(chan error, 1)
				go func() { done <- op(ctx, s) }()
				<-fs.refused
				<-fs.refused // the first refusal has come through
				want := context.Canceled
				if end == "close" {
					want = block.ErrClosed
					require.NoError(t, s.Close())
				} else {
					cancel()
				}
				err = <-done
				require.ErrorIs(t, err, want)
				require.ErrorIs(t, err, syscall.ENOSPC)
				_, err = fs.Stat("copy")
				require.Error(t, err, "there is no half of a copy")
				require.NoError(t, s.Close(), "Close does not wait for room")
				fs.full.Store(false)
				s = g.open()
				require.NoError(t, op(g.ctx, s))
				got, err := s.Get(g.ctx, []byte("a"), nil)
				require.NoError(t, err)
				require.Equal(t, "1", string(got))
			})
		}
	}
}

// Once the memtables are full as well a change is refused, with the reason, and changes
// nothing; no change waits in a hold for room, which would keep the store from locking
// and from closing.
func TestFullDiskRefusesChanges(t *testing.T) {
	g := newRig(t)
	fs := g.fillable()
	s := g.open()
	data := bytes.Repeat([]byte("x"), 8<<10)
	require.NoError(t, s.Put(g.ctx, []byte("first"), data))
	fs.full.Store(true)
	// That the disk is full is noticed before the memtables are: a change that Pebble makes wait
	// before anything has failed waits until there is room.
	ctx, cancel := context.WithCancel(g.ctx)
	noticing := make(chan error, 1)
	go func() { noticing <- s.Checkpoint(ctx, "copy") }()
	<-fs.refused
	<-fs.refused // the first refusal has come through
	cancel()
	err := <-noticing
	require.ErrorIs(t, err, syscall.ENOSPC)
	put := 0
	for ; put < 10_000; put++ {
		if err = s.Put(g.ctx, fmt.Appendf(nil, "%05d", put), data); err != nil {
			break
		}
	}
	require.ErrorIs(t, err, syscall.ENOSPC)
	require.ErrorIs(t, s.Delete(g.ctx, []byte("first")), syscall.ENOSPC)
	b := s.NewBatch()
	require.NoError(t, b.Put(g.ctx, []byte("b"), nil))
	require.ErrorIs(t, b.Commit(g.ctx), syscall.ENOSPC)
	require.ErrorIs(t, s.RotateEpoch(g.ctx, nil), syscall.ENOSPC)

	lockAndUnlock(g, s) // there is no hold that a lock would wait for
	got, err := s.Get(g.ctx, []byte("first"), nil)
	require.NoError(t, err)
	require.Equal(t, data, got)
	_, err = s.Get(g.ctx, fmt.Appendf(nil, "%05d", put), nil)
	require.ErrorIs(t, err, block.ErrNotFound)

	fs.full.Store(false)
	eventually(t, func() bool { return s.Put(g.ctx, []byte("last"), data) == nil }, "changes are taken when there is room")
	rep, err := s.Verify(g.ctx, nil)
	require.NoError(t, err)
	require.EqualValues(t, put+2, rep.Blocks, "and nothing is lost")
}

// A load that waits for the memtables to be written out, on a full disk, holds up nobody: not who
// writes, and not a lock. It ends with its context and with Close, and says why it waited.
func TestFullDiskDuringALoad(t *testing.T) {
	for _, end := range []string{"ctx", "close"} {
		t.Run("ended by "+end, func(t *testing.T) {
			g := newRig(t)
			fs := g.fillable()
			s := g.open()
			loaded := someBlocks("", 3000, 8)
			require.NoError(t, s.Put(g.ctx, []byte("01000"), []byte("among them"))) // in a memtable
			ctx, cancel := context.WithCancel(g.ctx)
			defer cancel()
			done := make(chan error, 1)
			go func() {
				_, err := s.Load(ctx, inOrder(loaded, func(n int) {
					if n == len(loaded)-1 { // its tables are there, and take all that comes
						for len(leftOfLoads(t, fs, g.dir)) < 2 {
							runtime.Gosched()
						}
						fs.full.Store(true)
					}
				}))
				done <- err
			}()
			<-fs.refused
			<-fs.refused // the first refusal has come through
			require.NoError(t, s.Put(g.ctx, []byte("x"), []byte("beside it")))
			if end == "close" {
				require.NoError(t, s.Close(), "Close does not wait for room")
			} else {
				cancel()
			}
			err := <-done
			require.ErrorIs(t, err, map[string]error{"ctx": context.Canceled, "close": block.ErrClosed}[end])
			require.ErrorIs(t, err, syscall.ENOSPC)
			require.NoError(t, s.Close())
			require.Empty(t, leftOfLoads(t, fs, g.dir))
			fs.full.Store(false)
			s = g.open()
			isWhole(t, g, s, map[string][]byte{"01000": []byte("among them"), "x": []byte("beside it")})
			require.NoError(t, second(s.Load(g.ctx, inOrder(loaded, nil))))
		})
	}
}
