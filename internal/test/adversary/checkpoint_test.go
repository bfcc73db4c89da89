package adversary

import (
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/blockseal/blockseal/block"
	"github.com/blockseal/blockseal/kek"
	"github.com/blockseal/blockseal/keyring"
	"github.com/blockseal/blockseal/vault"
)

// An old checkpoint, after the store rotated everything: it waits for Revalidate, opens
// while the key version that wrapped it exists, and not once that is purged.
func TestOldCheckpointAfterRotation(t *testing.T) {
	forEachWrapping(t, func(t *testing.T, g *rig) {
		g.opts.ManualRewrap = true
		s, err := block.Open(g.ctx, g.dir, g.kek, &g.opts)
		require.NoError(t, err)
		for _, id := range []string{"a", "b", "c"} {
			require.NoError(t, s.Put(g.ctx, []byte(id), plain(id)))
		}
		require.NoError(t, s.Checkpoint(g.ctx, "copy"))
		require.NoError(t, g.opts.Pebble.FS.Rename("copy", "away")) // where the store does not reach it
		old := g.key
		g.vault.Rotate("customer")
		require.NoError(t, s.RotateKEK(g.ctx))
		require.NoError(t, s.RewrapDEKs(g.ctx, nil))
		require.NoError(t, s.RotateEpoch(g.ctx, nil))
		require.NoError(t, s.Rekey(g.ctx, block.Range{}, nil))
		require.NoError(t, s.Put(g.ctx, []byte("a"), []byte("newer")))
		require.NoError(t, s.Close())
		copied := *g
		copied.dir = "away"
		copied.opts.Keyring.PinVersion = true // stays with its version

		// The key is there: the copy opens, after it was told to, with what it had.
		c, err := block.Open(g.ctx, copied.dir, g.kek, &copied.opts)
		require.NoError(t, err)
		require.Equal(t, keyring.Inaccessible, c.State().Status)
		_, err = c.Get(g.ctx, []byte("a"), nil)
		require.ErrorIs(t, err, block.ErrInaccessible)
		require.NoError(t, c.Revalidate(g.ctx))
		got, err := c.Get(g.ctx, []byte("a"), nil)
		require.NoError(t, err)
		require.Equal(t, plain("a"), got)
		require.NoError(t, c.Close())

		// The version is disabled, then gone.
		g.vault.SetEnabled(old, false)
		copied.gone(vault.ErrKeyDisabled)
		g.vault.SetEnabled(old, true)
		g.vault.DestroyVersion(old)
		copied.gone(vault.ErrKeyNotFound)
		// No other version of the key helps.
		copied.kek = kek.New(g.vault, g.key.Versionless())
		copied.gone(vault.ErrKeyNotFound)

		// The store itself needs none of that.
		s = g.open()
		got, err = s.Get(g.ctx, []byte("a"), nil)
		require.NoError(t, err)
		require.Equal(t, "newer", string(got))
	})
}

// gone requires that a copy opens without access and stays so.
func (g *rig) gone(reason error) {
	g.t.Helper()
	c, err := block.Open(g.ctx, g.dir, g.kek, &g.opts)
	require.NoError(g.t, err)
	require.ErrorIs(g.t, c.Revalidate(g.ctx), reason)
	require.Equal(g.t, keyring.Inaccessible, c.State().Status)
	got, err := c.Get(g.ctx, []byte("a"), nil)
	require.ErrorIs(g.t, err, reason)
	require.Nil(g.t, got)
	require.ErrorIs(g.t, c.Put(g.ctx, []byte("a"), nil), block.ErrInaccessible)
	require.NoError(g.t, c.Close())
}

// The documents of an old checkpoint and the store's are not exchangeable: its epochs
// open nothing of what was rotated since.
func TestOldCheckpointsKeyringInTheStore(t *testing.T) {
	g := newRig(t)
	g.fill("a", "b", "c")
	s, err := block.Open(g.ctx, g.dir, g.kek, &g.opts)
	require.NoError(t, err)
	require.NoError(t, s.Checkpoint(g.ctx, "copy"))
	require.NoError(t, s.RotateEpoch(g.ctx, nil))
	require.NoError(t, s.Close())
	copied := *g
	copied.dir = "copy"
	g.set(map[string]string{documentKey: copied.records()[documentKey]})
	require.ErrorIs(t, g.tryOpen(), block.ErrCorrupt)
}

// Steps of the wall clock, in either direction, at any moment of a lease, give no more
// access than the vault's last yes did.
func TestClockSteps(t *testing.T) {
	for _, step := range []time.Duration{-1000 * time.Hour, -time.Hour, -time.Second, time.Second, time.Minute} {
		for minute := range 10 {
			g := newRig(t)
			g.vault.SetDates(g.key, time.Time{}, start.Add(24*365*10*time.Hour))
			s := g.open()
			require.NoError(t, s.Put(g.ctx, []byte("a"), plain("a")))
			g.vault.SetOutage(vault.ErrUnavailable)
			for m := range 10 {
				if m == minute {
					g.clock.Step(step)
				}
				if _, err := s.Get(g.ctx, []byte("a"), nil); step < 0 {
					// A step ahead looks like a suspended machine, and may end it early.
					require.NoError(t, err, "%v at minute %d", step, minute)
				}
				g.clock.Advance(time.Minute)
			}
			_, err := s.Get(g.ctx, []byte("a"), nil)
			require.ErrorIs(t, err, block.ErrInaccessible, "%v at minute %d", step, minute)
			g.clock.Step(-step)
			_, err = s.Get(g.ctx, []byte("a"), nil)
			require.ErrorIs(t, err, block.ErrInaccessible)
		}
	}
}

// The clock set back does not bring an expired key back while the store is open.
func TestClockSetBackBeforeAnExpiry(t *testing.T) {
	g := newRig(t)
	g.vault.SetDates(g.key, time.Time{}, start.Add(5*time.Minute))
	s := g.open()
	require.NoError(t, s.Put(g.ctx, []byte("a"), plain("a")))
	g.clock.Step(-48 * time.Hour)
	g.clock.Advance(4 * time.Minute)
	_, err := s.Get(g.ctx, []byte("a"), nil)
	require.NoError(t, err)
	g.clock.Advance(61 * time.Second)
	_, err = s.Get(g.ctx, []byte("a"), nil)
	require.ErrorIs(t, err, block.ErrInaccessible)
	require.ErrorIs(t, err, vault.ErrKeyExpired)
}
