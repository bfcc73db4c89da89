package block_test

import (
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/blockseal/blockseal/block"
	"github.com/blockseal/blockseal/kek"
	"github.com/blockseal/blockseal/keyring"
	"github.com/blockseal/blockseal/vault"
)

// expire makes a version expire now, and gives the key a newer one a minute later.
func (g *rig) expire(id vault.KeyID) (newest vault.KeyID) {
	g.clock.Step(time.Minute)
	g.vault.SetDates(id, time.Time{}, g.clock.Now())
	return g.vault.Rotate(id.Name)
}

// A store whose KEK expired before it was rotated goes on where it was: its blocks, those
// whose DEKs the expired version wraps too, and its copies.
func TestStoreFollowsTheSuccessor(t *testing.T) {
	for _, w := range []keyring.Wrapping{keyring.ByKeyring, keyring.ByKEK} {
		for name, notice := range map[string]func(g *rig, s *block.Store) *block.Store{
			"at a check": func(g *rig, s *block.Store) *block.Store {
				require.NoError(g.t, s.Revalidate(g.ctx))
				return s
			},
			"at Open": func(g *rig, s *block.Store) *block.Store {
				require.NoError(g.t, s.Close())
				return g.open()
			},
			"by RotateKEK": func(g *rig, s *block.Store) *block.Store {
				require.NoError(g.t, s.Close())
				g.opts.Keyring.PinVersion = true
				s = g.open()
				require.ErrorIs(g.t, s.State().Cause, vault.ErrKeyExpired)
				require.ErrorContains(g.t, s.State().Cause, "RotateKEK moves it there")
				require.NoError(g.t, s.RotateKEK(g.ctx))
				return s
			},
		} {
			t.Run(w.String()+", "+name, func(t *testing.T) {
				g := newRig(t)
				g.opts.Keyring.Wrapping, g.opts.ManualRewrap = w, true
				g.opts.Keyring.DEKCache = -1
				s := g.open()
				require.NoError(t, s.Put(g.ctx, []byte("a"), []byte("1")))
				require.NoError(t, s.Checkpoint(g.ctx, "copy"))
				newest := g.expire(g.key)
				s = notice(g, s)
				require.Equal(t, newest, s.State().KEK)
				requireBlock(t, s, "a", "1") // of ByKEK, by an unwrap with the expired version
				require.NoError(t, s.Put(g.ctx, []byte("b"), []byte("2")))
				require.NoError(t, s.RewrapDEKs(g.ctx, nil))
				require.NoError(t, s.RotateKEK(g.ctx)) // moves the copies
				eventually(t, func() bool { return copyNeeds(t, s) == newest }, "the copy follows")
				g.vault.DestroyVersion(g.key)
				requireBlock(t, s, "a", "1")
				require.NoError(t, s.Close())
				opensCopy(g, "copy", "1")
			})
		}
	}
}

func requireBlock(t testing.TB, s *block.Store, id, want string) {
	t.Helper()
	got, err := s.Get(t.Context(), []byte(id), nil)
	require.NoError(t, err)
	require.Equal(t, want, string(got))
}

// A copy that is left on an expired version is moved by ChangeCheckpointKEK, if the key has a
// newer one; without, the expiry has shut the copy too.
func TestCopyOnAnExpiredVersion(t *testing.T) {
	g := withCopy(t)
	other := kek.New(g.vault, g.vault.CreateKey("other").Versionless())
	g.clock.Step(time.Minute)
	g.vault.SetDates(g.key, time.Time{}, g.clock.Now())
	for _, to := range []*kek.KEK{g.kek, other} {
		err := block.ChangeCheckpointKEK(g.ctx, "copy", g.kek, to, &g.opts)
		require.ErrorIs(t, err, vault.ErrKeyExpired)
	}
	c := openAt(t, g, "copy")
	require.ErrorIs(t, c.Revalidate(g.ctx), vault.ErrKeyExpired)
	newest := g.vault.Rotate("customer")
	// A copy does not become a store by a change of its KEK.
	require.ErrorIs(t, c.RotateKEK(g.ctx), block.ErrInaccessible)
	require.ErrorIs(t, c.ChangeKEK(g.ctx, other), block.ErrInaccessible)
	require.NoError(t, c.Close())
	require.NoError(t, block.ChangeCheckpointKEK(g.ctx, "copy", g.kek, other, &g.opts))
	in, err := block.InspectKeyring("copy", &g.opts)
	require.NoError(t, err)
	require.Equal(t, "other", in.KEK.Name)
	g.vault.DestroyVersion(g.key)
	g.vault.DestroyVersion(newest)
	g.kek = other
	opensCopy(g, "copy", "1")
}

func openAt(t testing.TB, g *rig, dir string) *block.Store {
	s, err := block.Open(g.ctx, dir, g.kek, &g.opts)
	require.NoError(t, err)
	return s
}
