package block_test

import (
	"bytes"
	"log/slog"
	"sync"
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/blockseal/blockseal/block"
	"github.com/blockseal/blockseal/keyring"
)

// logged is what a DB has told its Logger.
type logged struct {
	mu  sync.Mutex
	buf bytes.Buffer
}

func (l *logged) Write(p []byte) (int, error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.buf.Write(p)
}

func (l *logged) String() string {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.buf.String()
}

// A store that can remember no more copies is copied with the others, open or not. It says from then on that
// there may be copies which it does not list, and the others remember theirs.
func TestCheckpointOfAStoreThatRemembersNoMoreCopies(t *testing.T) {
	g := newDBRig(t)
	var log logged
	g.opts.Logger = slog.New(slog.NewTextHandler(&log, nil))
	g.reopen()
	full, other := g.create("full"), g.create("other")
	for _, s := range []*block.Store{full, other} {
		require.NoError(t, s.Put(g.ctx, []byte("id"), []byte("1")))
	}
	full.FillRegister(t)
	_, err := full.KeyUsage(g.ctx)
	require.NoError(t, err)
	requireCopy := func(name string) {
		t.Helper()
		db, err := block.OpenDB(g.ctx, "copy", &g.opts)
		require.NoError(t, err)
		defer func() { require.NoError(t, db.Close()) }()
		s, release, err := db.Acquire(g.ctx, name)
		require.NoError(t, err)
		defer release()
		_, err = s.Get(g.ctx, []byte("id"), nil)
		require.ErrorIs(t, err, block.ErrInaccessible, "it is a copy")
		require.NoError(t, s.Revalidate(g.ctx))
		requireData(t, s, "id", "1")
	}
	requireLost := func() {
		t.Helper()
		copies, err := full.Copies(g.ctx)
		require.NoError(t, err)
		require.Len(t, copies, 4096)
		_, err = full.KeyUsage(g.ctx)
		require.ErrorIs(t, err, block.ErrIncomplete)
	}
	before, err := full.EpochIDs()
	require.NoError(t, err)
	require.NoError(t, g.db.Checkpoint(g.ctx, "copy"))
	require.Contains(t, log.String(), "a store does not remember its copy")
	require.Contains(t, log.String(), "name=full")
	require.Contains(t, log.String(), keyring.ErrLimit.Error())
	require.NotContains(t, log.String(), "name=other")
	requireLost()
	copies, err := other.Copies(g.ctx)
	require.NoError(t, err)
	require.Len(t, copies, 1)
	_, err = other.KeyUsage(g.ctx)
	require.NoError(t, err)
	require.NoError(t, full.Put(g.ctx, []byte("id"), []byte("1")))
	after, err := full.EpochIDs()
	require.NoError(t, err)
	require.Greater(t, len(after), len(before), "what it writes from now on the copy does not open")
	requireCopy("full")
	requireCopy("other")

	g.reopen() // and as long as it lives
	full, release := g.acquire("full")
	requireLost()
	release()

	// A store that is not open says so as well when it is opened next.
	g = newDBRig(t)
	full = g.create("full")
	require.NoError(t, full.Put(g.ctx, []byte("id"), []byte("1")))
	full.FillRegister(t)
	require.NoError(t, full.Close())
	require.NoError(t, g.db.Checkpoint(g.ctx, "copy"))
	full, release = g.acquire("full")
	defer release()
	requireLost()
	requireCopy("full")
}

// The only store of a directory refuses: nobody else needs that copy.
func TestCheckpointOfTheOnlyStoreThatRemembersNoMoreCopies(t *testing.T) {
	g := newRig(t)
	s := g.open()
	s.FillRegister(t)
	require.ErrorIs(t, s.Checkpoint(g.ctx, "copy"), keyring.ErrLimit)
	_, err := g.opts.Pebble.FS.Stat("copy")
	require.Error(t, err)
	_, err = s.KeyUsage(g.ctx)
	require.NoError(t, err)
}
