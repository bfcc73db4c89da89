package keyring_test

import (
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/blockseal/blockseal/internal/inner"
	"github.com/blockseal/blockseal/keyring"
	"github.com/blockseal/blockseal/vault"
	"github.com/blockseal/blockseal/vault/vaulttest"
)

// State.NextCheck is kept: no check starts by itself later, also not when the vault asked for
// time, and then none starts before that.
func TestNextCheckIsKept(t *testing.T) {
	for _, tt := range []struct {
		name  string
		fault error
		least time.Duration // from one answer to the next check
	}{
		{"a vault that agrees", nil, 54 * time.Second},
		{"a vault that refuses", vault.ErrKeyDisabled, 54 * time.Second},
		{"a vault that does not answer", vaulttest.Unavailable(), 54 * time.Second},
		{"a vault that asks for time", vaulttest.Throttled(90 * time.Second), 90 * time.Second},
	} {
		t.Run(tt.name, func(t *testing.T) {
			bubble(t, func(t *testing.T, g *rig) {
				r := g.create()
				if tt.fault != nil {
					g.vault.SetOutage(tt.fault)
				}
				g.pass(time.Minute) // to the first check that comes by itself
				for range 4 {
					st := r.State()
					require.False(t, st.NextCheck.IsZero())
					require.GreaterOrEqual(t, st.NextCheck.Sub(st.LastCheck), tt.least)
					require.LessOrEqual(t, st.NextCheck.Sub(st.LastCheck), tt.least+time.Minute)
					g.pass(st.NextCheck.Sub(g.clock.Now()) + time.Second)
					require.True(t, r.State().LastCheck.After(st.LastCheck), "it came")
					require.False(t, r.State().LastCheck.After(st.NextCheck), "by then")
				}
				require.NoError(t, r.Close())
				require.Zero(t, r.State().NextCheck, "of a keyring that is closed")
			})
		})
	}
}

// A keyring that waits for Revalidate says that no check comes by itself, until it succeeds.
func TestNoNextCheckWhileRevalidateIsAwaited(t *testing.T) {
	bubble(t, func(t *testing.T, g *rig) {
		g.opts.ManualRevalidation = true
		r := g.create()
		require.NotZero(t, r.State().NextCheck)
		g.vault.SetEnabled(g.key, false)
		require.ErrorIs(t, r.Revalidate(t.Context()), vault.ErrKeyDisabled)
		require.Equal(t, keyring.Inaccessible, r.State().Status)
		require.Zero(t, r.State().NextCheck)
		g.vault.SetEnabled(g.key, true)
		require.NoError(t, r.Revalidate(t.Context()))
		require.NotZero(t, r.State().NextCheck)
		require.NoError(t, r.Close())

		g.opts.ManualRevalidation, g.opts.For(inner.Block{}).AwaitRevalidate = false, true
		r = g.open()
		require.Zero(t, r.State().NextCheck)
		require.NoError(t, r.Revalidate(t.Context()))
		require.NotZero(t, r.State().NextCheck)
	})
}

// The end of a lease is found under ErrLeaseEnded, in the state and in what operations return,
// with what the vault said last.
func TestErrLeaseEnded(t *testing.T) {
	bubble(t, func(t *testing.T, g *rig) {
		r := g.create()
		g.vault.SetOutage(vaulttest.Unavailable())
		g.pass(keyring.DefaultLease)
		_, err := r.Acquire()
		for _, err := range []error{err, r.State().Cause} {
			require.ErrorIs(t, err, keyring.ErrLeaseEnded)
			require.ErrorIs(t, err, vault.ErrUnavailable)
		}
		g.vault.SetOutage(vault.ErrAccessDenied)
		g.pass(time.Minute)
		require.NotErrorIs(t, r.State().Cause, keyring.ErrLeaseEnded, "it is another cause now")
	})
}
