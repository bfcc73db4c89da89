package block_test

import (
	"bytes"
	"context"
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/blockseal/blockseal/block"
)

// Who makes or imports a store of a name that there is hears that there is one, whatever that one is doing,
// and leaves it as it is.
func TestCreateAndImportOfAStoreThatThereIs(t *testing.T) {
	from := newDBRig(t)
	require.NoError(t, from.create("a").Put(from.ctx, []byte("id"), []byte("another")))
	var stream bytes.Buffer
	_, err := from.db.Export(from.ctx, "a", &stream)
	require.NoError(t, err)
	for name, have := range map[string]func(g *dbRig) (s *block.Store, release func()){
		"open": func(g *dbRig) (*block.Store, func()) { return g.create("a"), func() {} },
		"used": func(g *dbRig) (*block.Store, func()) {
			require.NoError(g.t, g.create("a").Close())
			return g.acquire("a")
		},
		"idle": func(g *dbRig) (*block.Store, func()) {
			require.NoError(g.t, g.create("a").Close())
			s, release := g.acquire("a")
			release()
			return s, func() {}
		},
		"closed": func(g *dbRig) (*block.Store, func()) {
			require.NoError(g.t, g.create("a").Close())
			return nil, func() {}
		},
	} {
		t.Run(name, func(t *testing.T) {
			g := newDBRig(t)
			s, release := have(g)
			defer release()
			if s != nil {
				require.NoError(t, s.Put(g.ctx, []byte("id"), []byte("1")))
			}
			_, err := g.db.Create(g.ctx, "a", g.kek("b"), nil)
			require.ErrorIs(t, err, block.ErrExists)
			require.NotErrorIs(t, err, block.ErrLocked)
			_, err = g.db.Import(g.ctx, bytes.NewReader(stream.Bytes()))
			require.ErrorIs(t, err, block.ErrExists)
			require.NotErrorIs(t, err, block.ErrLocked)
			if s != nil {
				requireData(t, s, "id", "1") // it is open all the time
			}
			require.Equal(t, []string{"a"}, g.names())
		})
	}
}

// A name whose drop is not finished is not free, and who asks for it hears what to do.
func TestCreateOfANameWhoseDropIsUnfinished(t *testing.T) {
	from := newDBRig(t)
	from.create("a")
	var stream bytes.Buffer
	_, err := from.db.Export(from.ctx, "a", &stream)
	require.NoError(t, err)

	g := newDBRig(t)
	clock := &stopping{Clock: g.clock}
	g.opts.Clock = clock
	g.reopen()
	require.NoError(t, g.create("a").Put(g.ctx, []byte("id"), make([]byte, 100)))
	ctx, cancel := context.WithCancel(g.ctx)
	clock.asked, clock.stop = 2, cancel // when the engine is to forget what was deleted
	_, err = g.db.Drop(ctx, "a")
	require.ErrorIs(t, err, context.Canceled)
	requireTold := func(err error) {
		t.Helper()
		require.ErrorIs(t, err, block.ErrExists)
		require.ErrorContains(t, err, "its drop is not finished")
		require.ErrorContains(t, err, "drop it again")
	}
	_, err = g.db.Create(g.ctx, "a", g.kek("a"), &g.store)
	requireTold(err)
	_, err = g.db.Import(g.ctx, bytes.NewReader(stream.Bytes()))
	requireTold(err)
	_, err = g.db.Drop(g.ctx, "a") // as it says
	require.NoError(t, err)
	g.create("a")
}

// What a creation has left that failed, and could not be taken back, goes with the next OpenDB, or with
// whoever makes a store of that name.
func TestWhatAFailedCreationLeftIsRemoved(t *testing.T) {
	for name, next := range map[string]func(g *dbRig){
		"by OpenDB": (*dbRig).reopen,
		"by Create": func(g *dbRig) { g.create("a") },
		"by Import": func(g *dbRig) {
			from := newDBRig(g.t)
			from.create("a")
			var stream bytes.Buffer
			_, err := from.db.Export(from.ctx, "a", &stream)
			require.NoError(g.t, err)
			_, err = g.db.Import(g.ctx, &stream)
			require.NoError(g.t, err)
		},
	} {
		t.Run(name, func(t *testing.T) {
			g := newDBRig(t)
			g.create("other")
			number := g.db.LeaveUnfinished(t, "a")
			require.True(t, g.db.HoldsAnything(t, number))
			next(g)
			require.False(t, g.db.HoldsAnything(t, number))
		})
	}
}
