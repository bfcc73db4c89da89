package block_test

import (
	"fmt"
	"iter"
	"strings"
	"sync"
	"testing"

	"github.com/cockroachdb/pebble/v2/vfs"
	"github.com/stretchr/testify/require"

	"github.com/blockseal/blockseal/block"
	"github.com/blockseal/blockseal/keyring"
)

// lockAndUnlock ends the store's stretch of access and begins another.
func lockAndUnlock(g *rig, s *block.Store) {
	g.t.Helper()
	key := s.State().KEK
	g.vault.SetEnabled(key, false)
	require.Error(g.t, s.Revalidate(g.ctx))
	require.Equal(g.t, keyring.Inaccessible, s.State().Status)
	g.vault.SetEnabled(key, true)
	require.NoError(g.t, s.Revalidate(g.ctx))
}

// What was begun before the store went Inaccessible, and is still open, can be read no
// more; the engine keeps what it sees all the same, and Erase says that it is open.
func TestEraseWithSomethingOpenFromBeforeALock(t *testing.T) {
	for name, open := range map[string]func(*rig, *block.Store) (end func()){
		"snapshot": func(g *rig, s *block.Store) func() {
			snap := s.Snapshot()
			return func() { require.NoError(g.t, snap.Close()) }
		},
		"scan": func(g *rig, s *block.Store) func() {
			next, stop := iter.Pull2(s.Blocks(g.ctx, block.Range{}))
			_, err, ok := next()
			require.NoError(g.t, err)
			require.True(g.t, ok)
			return stop
		},
		"scan that reads ahead": func(g *rig, s *block.Store) func() {
			next, stop := iter.Pull2(s.Blocks(g.ctx, block.Range{}))
			for range 40 {
				_, err, ok := next()
				require.NoError(g.t, err)
				require.True(g.t, ok)
			}
			return stop
		},
		"batch": func(g *rig, s *block.Store) func() {
			b := s.NewBatch()
			require.NoError(g.t, b.Put(g.ctx, []byte("victim"), []byte("in the batch")))
			return func() { require.NoError(g.t, b.Close()) }
		},
	} {
		t.Run(name, func(t *testing.T) {
			g := newRig(t)
			s := g.open()
			require.NoError(t, s.Put(g.ctx, []byte("victim"), []byte("to be forgotten")))
			for i := range 100 {
				require.NoError(t, s.Put(g.ctx, fmt.Appendf(nil, "%03d", i), []byte("x")))
			}
			record, document := []byte(s.Records()["victim"]), s.Document()
			end := open(g, s)
			lockAndUnlock(g, s)
			require.NoError(t, s.Delete(g.ctx, []byte("victim")))
			_, err := s.Erase(g.ctx, nil)
			require.ErrorIs(t, err, block.ErrPinned)
			require.ErrorContains(t, err, "1 of them")
			require.Equal(t, 1, s.State().Epochs, "it has done nothing")
			require.NotEmpty(t, holding(t, g.opts.Pebble.FS, g.dir, record), "the search must be able to find it")
			end()
			r, err := s.Erase(g.ctx, nil)
			require.NoError(t, err)
			require.False(t, r.Pinned)
			require.Empty(t, holding(t, g.opts.Pebble.FS, g.dir, record))
			require.Empty(t, holding(t, g.opts.Pebble.FS, g.dir, document))
		})
	}
}

// tablesFS calls back before each table that is created once it is armed.
type tablesFS struct {
	vfs.FS
	mu      sync.Mutex
	created int
	before  func(nth int) // nil: it is not armed
}

func (f *tablesFS) Create(name string, c vfs.DiskWriteCategory) (vfs.File, error) {
	if strings.HasSuffix(name, ".sst") {
		f.mu.Lock()
		if f.before != nil {
			f.created++
			f.before(f.created)
		}
		f.mu.Unlock()
	}
	return f.FS.Create(name, c)
}

func (f *tablesFS) arm(before func(nth int)) {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.created, f.before = 0, before
}

// A snapshot that is taken while Erase is at work sees what is erased. Whenever it is
// closed, the receipt is true: either it says that something was open, or nothing is left
// in the files.
func TestEraseBesideASnapshotThatIsClosed(t *testing.T) {
	inTime := 0
	for closed := range 16 { // before the nth table that Erase makes; 0: after Erase
		g := newRig(t)
		fs := &tablesFS{FS: g.opts.Pebble.FS}
		g.opts.Pebble.FS = fs
		s := g.open()
		for i := range 40 {
			require.NoError(t, s.Put(g.ctx, fmt.Appendf(nil, "%03d", i), []byte("x")))
		}
		require.NoError(t, s.Put(g.ctx, []byte("victim"), []byte("to be forgotten")))
		victim, old, document := []byte(s.Records()["victim"]), []byte(s.Records()["020"]), s.Document()
		require.NoError(t, s.Delete(g.ctx, []byte("victim")))
		erased := func(what string) {
			for _, needle := range [][]byte{victim, old, document} {
				require.Empty(t, holding(t, g.opts.Pebble.FS, g.dir, needle), what)
			}
		}
		what := fmt.Sprintf("closed before table %d", closed)
		var snap *block.Snapshot
		open := true
		fs.arm(func(nth int) {
			if nth == closed {
				open = false
				require.NoError(t, snap.Close())
			}
		})
		r, err := s.Erase(&endsAt{g.ctx, func() { snap, document = s.Snapshot(), s.Document() }}, nil)
		fs.arm(nil)
		require.NoError(t, err)
		require.NotNil(t, snap, "it was taken")
		require.Equal(t, open, r.Pinned, what)
		if !r.Pinned {
			inTime++
			erased(what)
			continue
		}
		require.NotEmpty(t, holding(t, g.opts.Pebble.FS, g.dir, old), "the search must be able to find it")
		require.NoError(t, snap.Close())
		r, err = s.Erase(g.ctx, nil)
		require.NoError(t, err)
		require.False(t, r.Pinned, what)
		erased(what)
	}
	require.NotZero(t, inTime)
}
