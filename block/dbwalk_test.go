package block_test

import (
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/blockseal/blockseal/block"
)

// A scan of one store that is open for long keeps the erasure of another one from its end, which says so
// and does not wait for it.
func TestEraseBesideAScanOfAnotherStore(t *testing.T) {
	g := newDBRig(t)
	for _, name := range []string{"a", "b"} {
		require.NoError(t, g.create(name).Put(g.ctx, []byte("id"), []byte("data")))
	}
	g.reopen() // what the scan reads is in files
	a, releaseA := g.acquire("a")
	defer releaseA()
	b, releaseB := g.acquire("b")
	defer releaseB()
	for _, err := range b.Blocks(g.ctx, block.Range{}) {
		require.NoError(t, err)
		r, err := a.Erase(g.ctx, nil)
		require.NoError(t, err)
		require.True(t, r.Pinned)
	}
	r, err := a.Erase(g.ctx, nil)
	require.NoError(t, err)
	require.False(t, r.Pinned)
}

// Whoever goes through the stores, or the receipts, may drop what is found.
func TestDropOfWhatIsWalked(t *testing.T) {
	g := newDBRig(t)
	for _, name := range []string{"a", "b", "c"} {
		require.NoError(t, g.create(name).Put(g.ctx, []byte("id"), nil))
	}
	g.reopen()   // what the walk reads is in files
	ctx := g.ctx // which does not end: a Drop that waits for the walk would do so for ever
	for in, err := range g.db.Stores(ctx) {
		require.NoError(t, err)
		if in.Name != "a" {
			_, err = g.db.Drop(ctx, in.Name)
			require.NoError(t, err)
		}
	}
	require.Equal(t, []string{"a"}, g.names())
	dropped := 0
	for _, err := range g.db.Dropped(ctx) {
		require.NoError(t, err)
		if dropped++; dropped == 1 {
			_, err = g.db.Drop(ctx, "a")
			require.NoError(t, err)
		}
	}
	require.Equal(t, 2, dropped)
	require.Empty(t, g.names())
}
