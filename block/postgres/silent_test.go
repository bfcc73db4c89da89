package postgres_test

import (
	"sync/atomic"
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/blockseal/blockseal/block"
	"github.com/blockseal/blockseal/block/postgres"
	"github.com/blockseal/blockseal/internal/test/pgserver"
	"github.com/blockseal/blockseal/keyring"
)

// A server that does not answer any more keeps no store from locking: what waits for it ends when the
// key is taken away, and says so.
func TestServerThatIsSilentKeepsNoLockWaiting(t *testing.T) {
	for name, do := range map[string]func(g *rig, s *block.Store) error{
		"get": func(g *rig, s *block.Store) error { _, err := s.Get(g.ctx, []byte("id"), nil); return err },
		"put": func(g *rig, s *block.Store) error { return s.Put(g.ctx, []byte("id"), []byte("more")) },
		"put if": func(g *rig, s *block.Store) error {
			return s.PutIf(g.ctx, []byte("id"), []byte("data"), []byte("more"))
		},
		"delete": func(g *rig, s *block.Store) error { return s.Delete(g.ctx, []byte("id")) },
		"has":    func(g *rig, s *block.Store) error { _, err := s.Has(g.ctx, []byte("id")); return err },
		"commit": func(g *rig, s *block.Store) error {
			b := s.NewBatch()
			if err := b.Put(g.ctx, []byte("id"), []byte("more")); err != nil {
				return err
			}
			return b.Commit(g.ctx)
		},
		"snapshot":     func(g *rig, s *block.Store) error { return s.Snapshot().Close() },
		"anchor point": func(g *rig, s *block.Store) error { _, err := s.AnchorPoint(g.ctx); return err },
		"rotate":       func(g *rig, s *block.Store) error { return s.RotateEpoch(g.ctx, nil) },
		"rekey":        func(g *rig, s *block.Store) error { return s.Rekey(g.ctx, block.Range{}, nil) },
	} {
		t.Run(name, func(t *testing.T) {
			g := newRig(t)
			proxy, err := pgserver.NewProxy(g.server)
			require.NoError(t, err)
			t.Cleanup(func() { require.NoError(t, proxy.Close()) })
			pool := newPool(t, proxy.Conn("program", "pool_max_conns=8"))
			db, err := postgres.Open(g.ctx, pool, g.options())
			require.NoError(t, err)
			s := g.create(db, "store")
			put(t, s, "id", "data")
			var asked atomic.Bool
			defer func() { // a failure must not hang
				proxy.Judge(nil)
				proxy.CutAll()
			}()
			proxy.Judge(func(toServer bool, _ []byte) pgserver.Verdict {
				asked.Store(true)
				return pgserver.Drop
			})
			ended := make(chan error, 1)
			go func() { ended <- do(g, s) }()
			require.Eventually(t, asked.Load, long, short)
			g.vault.SetEnabled(g.key, false)
			require.Eventually(t, func() bool {
				g.clock.Advance(keyring.DefaultCheckEvery)
				return status(s) == keyring.Inaccessible
			}, long, short)
			switch name {
			case "snapshot":
				require.NoError(t, <-ended, "it is closed, and says to who reads it why")
			case "rotate", "rekey": // what they save is waited for, outside of any hold, until the connection ends
				proxy.Judge(nil)
				proxy.CutAll()
				require.Error(t, <-ended)
			default:
				require.ErrorIs(t, <-ended, block.ErrInaccessible)
			}
			proxy.Judge(nil)
			proxy.CutAll()
			_ = s.Close()
			require.NoError(t, db.Close())
		})
	}
}

// Nor does Close wait for it, of a store that is available and has something to save.
func TestCloseWaitsForNoServerThatIsSilent(t *testing.T) {
	g := newRig(t)
	proxy, err := pgserver.NewProxy(g.server)
	require.NoError(t, err)
	t.Cleanup(func() { require.NoError(t, proxy.Close()) })
	db, err := postgres.Open(g.ctx, newPool(t, proxy.Conn("program", "pool_max_conns=8")), g.options())
	require.NoError(t, err)
	s := g.create(db, "store")
	put(t, s, "id", "data")
	proxy.Judge(func(bool, []byte) pgserver.Verdict { return pgserver.Drop })
	defer func() { // a failure must not hang
		proxy.Judge(nil)
		proxy.CutAll()
	}()
	closed := make(chan error, 1)
	go func() { closed <- s.Close() }()
	require.Eventually(t, func() bool {
		g.clock.Advance(keyring.DefaultVaultTimeout)
		return len(closed) > 0
	}, long, short)
	require.Error(t, <-closed, "what it had to save was perhaps not saved")
	require.Equal(t, keyring.Closed, status(s))
	proxy.Judge(nil)
	proxy.CutAll()
	require.NoError(t, db.Close())
	requireData(t, g.open(g.db(), "store"), "id", "data")
}
