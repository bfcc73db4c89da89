package keyring

import (
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/blockseal/blockseal/vault"
	"github.com/blockseal/blockseal/vault/vaulttest"
)

// A vault's refusal for a date is said to be at odds with this machine's clock if it is, and
// only then; what this machine's clock says is what it said before it was set back.
func TestWhichRefusalIsAtOddsWithTheClock(t *testing.T) {
	start := time.Date(2026, 3, 1, 12, 0, 0, 0, time.UTC)
	const odds = "one of the two clocks is wrong"
	for _, c := range []struct {
		name         string
		back, passes time.Duration
		isAtOdds     bool
	}{
		{"in date", 0, 5*time.Minute - 1, true},
		{"in date, and set back", time.Hour, 5*time.Minute - 1, true},
		{"expired", 0, 5 * time.Minute, false},
		{"expired, and set back", time.Hour, 5 * time.Minute, false},
	} {
		t.Run(c.name, func(t *testing.T) {
			clock := vaulttest.NewClock(start)
			r := &Keyring{clock: clock, cold: new(cold)}
			r.anchor()
			clock.Advance(c.passes)
			clock.Step(-c.back)
			err := r.byTheVaultsClock(vault.Key{Expires: start.Add(5 * time.Minute)}, vault.ErrKeyExpired)
			require.ErrorIs(t, err, vault.ErrKeyExpired)
			if c.isAtOdds {
				require.ErrorContains(t, err, odds)
			} else {
				require.NotContains(t, err.Error(), odds)
			}
			require.ErrorIs(t, r.byTheVaultsClock(vault.Key{}, vault.ErrAccessDenied), vault.ErrAccessDenied, "no date")
		})
	}
}
