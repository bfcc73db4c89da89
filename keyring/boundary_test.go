package keyring_test

import (
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/blockseal/blockseal/kek"
	"github.com/blockseal/blockseal/keyring"
	"github.com/blockseal/blockseal/vault"
)

// An answer that took as long as the lease that it gives begins none: the lease would end
// at the instant at which it begins.
func TestNothingBeginsAtTheEndOfItsLease(t *testing.T) {
	for took, begins := range map[time.Duration]bool{
		keyring.DefaultLease - 1: true, keyring.DefaultLease: false, keyring.DefaultLease + 1: false,
	} {
		t.Run(took.String(), func(t *testing.T) {
			g := newRig(t)
			g.opts.Clock = silent{g.clock} // no timer ends the call
			wait := func() {}
			g.kek = kek.New(slowly{g.vault, func() { wait() }}, g.key.Versionless())
			r := g.create()
			g.vault.SetEnabled(g.key, false)
			require.ErrorIs(t, r.Revalidate(t.Context()), vault.ErrKeyDisabled)
			g.vault.SetEnabled(g.key, true)
			wait = func() { g.clock.Advance(took) }
			err := r.Revalidate(t.Context())
			if begins {
				require.NoError(t, err)
				require.Equal(t, keyring.Available, r.State().Status)
				return
			}
			require.ErrorContains(t, err, "the lease ended while the vault was being asked")
			require.Equal(t, keyring.Inaccessible, r.State().Status)
		})
	}
}
