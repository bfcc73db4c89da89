package postgres_test

import (
	"bytes"
	"sync/atomic"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/blockseal/blockseal/block"
	"github.com/blockseal/blockseal/block/postgres"
	"github.com/blockseal/blockseal/internal/test/pgserver"
	"github.com/blockseal/blockseal/kek"
)

// requireFollows waits until a process has what another one has: epochs, and the KEK. meanwhile is called
// before each look.
func requireFollows(t *testing.T, from, to *block.Store, meanwhile ...func()) {
	t.Helper()
	require.Eventually(t, func() bool {
		for _, f := range meanwhile {
			f()
		}
		is, want := to.State(), from.State()
		return is.Epoch == want.Epoch && is.Epochs == want.Epochs && is.KEK == want.KEK && is.Generation == want.Generation
	}, long, short)
}

// second lets a second go by: a check that is due then has some of them for its calls, which the clock bounds.
func (g *rig) second() { g.clock.Advance(time.Second) }

// What one process does to the keys another one takes up when it hears of it, long before its next
// check, which does not come: the clock stands still.
func TestRotationsAreHeardOf(t *testing.T) {
	g := newRig(t)
	second := kek.New(g.vault, g.vault.CreateKey("second").Versionless())
	g.store.Keyring.OtherKEKs = []*kek.KEK{second, g.kek}
	a, b := g.two()
	put(t, a, "id", "data")
	put(t, b, "id", "data")
	was := a.State()
	for range 2 {
		require.NoError(t, a.RotateEpoch(g.ctx, nil))
		requireFollows(t, a, b)
		require.Equal(t, 1, b.State().Epochs, "the destroyed one is gone")
	}
	require.NoError(t, b.RotateEpoch(g.ctx, nil))
	requireFollows(t, b, a)
	require.Equal(t, was.Epoch+3, a.State().Epoch)
	g.vault.Rotate("customer")
	require.NoError(t, b.RotateKEK(g.ctx))
	requireFollows(t, b, a)
	require.NotEqual(t, was.KEK, a.State().KEK)
	require.NoError(t, a.ChangeKEK(g.ctx, second))
	requireFollows(t, a, b)
	require.Equal(t, second.ID(), b.State().KEK.Versionless())
	requireData(t, b, "id", "data")
}

// Without notices, because there are none to be had or the connection for them is cut again and again,
// the next check finds the same.
func TestPollingAloneFollows(t *testing.T) {
	for name, cut := range map[string]bool{"it does not listen": false, "its listening is cut": true} {
		t.Run(name, func(t *testing.T) {
			g := newRig(t)
			a := g.create(g.db(), "store")
			proxy, err := pgserver.NewProxy(g.server)
			require.NoError(t, err)
			t.Cleanup(func() { require.NoError(t, proxy.Close()) })
			var cuts atomic.Int64
			g.deaf = !cut
			if cut {
				proxy.Judge(func(toServer bool, chunk []byte) pgserver.Verdict {
					if toServer && bytes.Contains(chunk, []byte("LISTEN blockseal_")) {
						cuts.Add(1)
						return pgserver.Cut
					}
					return pgserver.Forward
				})
			}
			b := g.open(g.dbOf(newPool(t, proxy.Conn("program", "pool_max_conns=8"))), "store")
			put(t, b, "id", "data")
			was := b.State().Epoch
			require.NoError(t, a.RotateEpoch(g.ctx, nil))
			require.Equal(t, was, b.State().Epoch, "it has heard of nothing")
			requireFollows(t, a, b, g.second)
			requireData(t, b, "id", "data")
			if cut {
				require.Eventually(t, func() bool { return cuts.Load() >= 2 }, long, short, "it tries again")
			}
		})
	}
}

// A DB has one connection for notices, beside its pool, once a store of it was opened, and none after Close.
func TestListeningEndsWithTheDB(t *testing.T) {
	g := newRig(t)
	// By a name that nobody else has: sessions of other tests may still be ending, and begin after that, where a
	// client has given up meanwhile.
	listening := func() int {
		return ask[int](g, `select count(*) from pg_stat_activity where query like 'LISTEN blockseal_%' and application_name = 'listens'`)
	}
	pool := g.pool("program", "pool_max_conns=3", "pool_min_conns=0", "application_name=listens")
	db, err := postgres.Open(g.ctx, pool, g.options())
	require.NoError(t, err)
	require.Zero(t, listening())
	g.create(db, "store")
	g.create(db, "another")
	require.Eventually(t, func() bool { return listening() == 1 }, long, short)
	require.NoError(t, db.Close())
	require.Eventually(t, func() bool { return listening() == 0 }, long, short)
	require.Zero(t, pool.Stat().AcquiredConns())
}
