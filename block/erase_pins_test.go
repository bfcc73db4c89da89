package block_test

import (
	"bytes"
	"context"
	"fmt"
	"io"
	"iter"
	"sync"
	"testing"
	"time"

	"github.com/cockroachdb/pebble/v2/vfs"
	"github.com/stretchr/testify/require"

	"github.com/blockseal/blockseal/block"
)

// A scan goes on with what it saw at its beginning, under epochs that were dropped since,
// and Erase finds that it is open.
func TestScanAcrossRotateEpochAndErase(t *testing.T) {
	for _, n := range []int{8, 100} { // of which the scan reads the latter ahead
		t.Run(fmt.Sprint(n), func(t *testing.T) {
			g := newRig(t)
			s := g.open()
			for i := range n {
				require.NoError(t, s.Put(g.ctx, fmt.Appendf(nil, "%03d", i), fmt.Append(nil, "data ", i)))
			}
			seen := 0
			for b, err := range s.Blocks(g.ctx, block.Range{}) {
				require.NoError(t, err)
				require.Equal(t, fmt.Sprint("data ", seen), string(b.Data))
				if seen == 0 {
					require.NoError(t, s.RotateEpoch(g.ctx, nil))
					require.Equal(t, 1, s.State().Epochs, "the one that the scan needs was dropped")
					_, err := s.Erase(g.ctx, nil)
					require.ErrorIs(t, err, block.ErrPinned)
				}
				seen++
			}
			require.Equal(t, n, seen)
			_, err := s.Erase(g.ctx, nil)
			require.NoError(t, err)
		})
	}
}

// A walk over ids keeps the engine's files as a scan does: Erase finds that it is open, and does
// not wait for whoever walks, which may be its own caller.
func TestEraseInsideAWalkOverIDs(t *testing.T) {
	for _, of := range []string{"store", "snapshot"} {
		t.Run(of, func(t *testing.T) {
			g := newRig(t)
			s := g.open()
			g.putMany(s, "block", 3)
			_, err := s.Erase(g.ctx, nil) // which leaves the rows in tables
			require.NoError(t, err)
			sn := s.Snapshot()
			walk := s.IDs(g.ctx, block.Range{})
			if of == "snapshot" {
				walk = sn.IDs(g.ctx, block.Range{Reverse: true})
			}
			seen := 0
			for _, err := range walk {
				require.NoError(t, err)
				require.NoError(t, sn.Close())                         // the walk goes on without it
				ctx, cancel := context.WithTimeout(g.ctx, time.Minute) // so that waiting for itself is an error
				_, err := s.Erase(ctx, nil)
				cancel()
				require.ErrorIs(t, err, block.ErrPinned)
				seen++
			}
			require.Equal(t, 3, seen)
			_, err = s.Erase(g.ctx, nil)
			require.NoError(t, err)
		})
	}
}

// What is begun while Erase is at work does not hold it up: the receipt says so, and the
// next Erase catches up.
func TestEraseBesideAScanThatBegins(t *testing.T) {
	g := newRig(t)
	s := g.open()
	for i := range 50 {
		require.NoError(t, s.Put(g.ctx, fmt.Appendf(nil, "%03d", i), []byte("data")))
	}
	document := s.Document()
	require.NoError(t, s.Delete(g.ctx, []byte("000")))
	var next func() (block.Block, error, bool)
	var stop func()
	r, err := s.Erase(g.ctx, func(block.Step) {
		if next != nil {
			return
		}
		next, stop = iter.Pull2(s.Blocks(g.ctx, block.Range{}))
		_, err, ok := next()
		require.NoError(t, err)
		require.True(t, ok)
	})
	require.NoError(t, err)
	require.NotNil(t, next)
	require.True(t, r.Pinned)
	stop()
	r, err = s.Erase(g.ctx, nil)
	require.NoError(t, err)
	require.False(t, r.Pinned)
	require.Empty(t, holding(t, g.opts.Pebble.FS, g.dir, document))
}

// stopFS stops where a file is locked for the first time.
type stopFS struct {
	vfs.FS
	once        sync.Once
	lock        string
	at, proceed chan struct{}
}

func (f *stopFS) Lock(name string) (io.Closer, error) {
	if name == f.lock {
		f.once.Do(func() { close(f.at); <-f.proceed })
	}
	return f.FS.Lock(name)
}

// A copy whose files were taken before Erase had ended, and which is not registered yet,
// is waited for, and is in the receipt.
func TestEraseBesideACheckpoint(t *testing.T) {
	g := newRig(t)
	fs := &stopFS{FS: g.opts.Pebble.FS, lock: g.opts.Pebble.FS.PathJoin("copy", "LOCK"), at: make(chan struct{}), proceed: make(chan struct{})}
	g.opts.Pebble.FS = fs
	s := g.open()
	require.NoError(t, s.Put(g.ctx, []byte("victim"), bytes.Repeat([]byte("x"), 100)))
	copied := make(chan error, 1)
	go func() { copied <- s.Checkpoint(g.ctx, "copy") }()
	<-fs.at // its files are there
	require.NoError(t, s.Delete(g.ctx, []byte("victim")))
	type result struct {
		r   block.Receipt
		err error
	}
	done := make(chan result, 1)
	go func() {
		r, err := s.Erase(g.ctx, nil)
		done <- result{r, err}
	}()
	select {
	case got := <-done:
		t.Errorf("it did not wait: %v", got.err)
		done <- got
	case <-time.After(100 * time.Millisecond):
	}
	close(fs.proceed)
	require.NoError(t, <-copied)
	got := <-done
	require.NoError(t, got.err)
	require.Len(t, got.r.Copies, 1)
	require.Equal(t, "copy", got.r.Copies[0].Path)
}
