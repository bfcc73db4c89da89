package keyring_test

import (
	"strings"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/blockseal/blockseal/internal/test/vaultkinds"
	"github.com/blockseal/blockseal/kek"
	"github.com/blockseal/blockseal/keyring"
	"github.com/blockseal/blockseal/vault"
	"github.com/blockseal/blockseal/vault/vaulttest"
)

const year = 365 * 24 * time.Hour

// A clock that is years off makes a version expired, or not yet valid, that is neither. The
// keyring stays shut, for nobody can tell a wrong clock from a key that was taken away, and
// says which time it assumed: with a vault that says what time it is, which clock is off.
func TestWrongClock(t *testing.T) {
	t.Parallel()
	const may = "by this machine's clock, which may be wrong"
	for name, tt := range map[string]struct {
		off     time.Duration
		kind    error
		date    string
		vaults  string // what is said if the vault has a clock of its own
		assumed string
	}{
		"two years ahead": {2 * year, vault.ErrKeyExpired, "it expired at 2027-03-01T12:00:00Z",
			"which is 730 days ahead of the vault's: by that it is 2026-03-01T12:", "the time was taken to be 2028-02-29T12:"},
		"two years behind": {-2 * year, vault.ErrKeyNotYetValid, "it is valid from 2026-01-01T00:00:00Z",
			"which is 730 days behind the vault's: by that it is 2026-03-01T12:", "the time was taken to be 2024-03-01T12:"},
	} {
		t.Run(name, func(t *testing.T) {
			vaultkinds.Each(t, func(t *testing.T, site *vaultkinds.Site, clock *vaulttest.Clock) {
				v := site.New("v", nil)
				id := v.Import("customer", site.Pair())
				v.SetDates(id, time.Date(2026, 1, 1, 0, 0, 0, 0, time.UTC), time.Date(2027, 3, 1, 12, 0, 0, 0, time.UTC))
				k := kek.New(v, id.Versionless())
				mine := vaulttest.NewClock(clock.Now())
				opts := &keyring.Options{Clock: mine}
				var store keyring.MemStorage
				r, err := keyring.Create(t.Context(), &store, k, opts)
				require.NoError(t, err)

				requireSays := func(r *keyring.Keyring, err error) {
					t.Helper()
					require.ErrorIs(t, err, tt.kind)
					require.ErrorContains(t, err, tt.date)
					require.ErrorContains(t, err, tt.assumed)
					if site.Kind == "file" {
						require.ErrorContains(t, err, may) // it has no clock but this machine's
					} else {
						require.ErrorContains(t, err, tt.vaults)
					}
					st := r.State()
					require.Equal(t, keyring.Inaccessible, st.Status)
					require.Equal(t, err.Error(), st.Cause.Error(), "the state has the same text")
					_, _, err = r.NewDEK(t.Context(), nil)
					require.ErrorIs(t, err, keyring.ErrInaccessible)
					require.ErrorContains(t, err, tt.assumed)
				}
				// At a check. Revalidate trusts the clock anew, also one that was set back.
				mine.Step(tt.off)
				requireSays(r, r.Revalidate(t.Context()))
				require.NoError(t, r.Close())
				// At Open.
				r, err = keyring.Open(t.Context(), &store, k, opts)
				require.NoError(t, err)
				requireSays(r, r.State().LastCheckErr)
				// The clock is set: the way back is what it always is.
				mine.Step(-tt.off)
				require.NoError(t, r.Revalidate(t.Context()))
				require.Equal(t, keyring.Available, r.State().Status)
				require.NoError(t, r.Close())
			})
		})
	}
}

// While a keyring is open, a clock that jumps past the expiry closes it within a second, with
// what the last answer of the vault said of the time; an event has the same text.
func TestWrongClockWhileOpen(t *testing.T) {
	bubble(t, func(t *testing.T, g *rig) {
		e := g.listen()
		theirs := vaulttest.NewClock(start)
		g.vault = vaulttest.New(&vaulttest.Options{Clock: theirs})
		g.key = g.vault.CreateKey("customer")
		g.kek = kek.New(g.vault, g.key.Versionless())
		g.vault.SetDates(g.key, time.Time{}, start.Add(year))
		r := g.create()
		e.take()
		g.clock.Step(2 * year)
		g.vault.SetOutage(vaulttest.NetworkGone()) // no more is learned
		g.pass(time.Second)
		require.Equal(t, keyring.Inaccessible, r.State().Status)
		const says = "it expired at 2027-03-01T12:00:00Z; the time was taken to be 2028-02-29T12:00:01Z by this machine's clock, " +
			"which is 730 days ahead of the vault's: by that it is 2026-03-01T12:00:01Z; set the clock"
		require.ErrorContains(t, r.State().Cause, says)
		var told string
		for _, ev := range e.take(keyring.StateChanged) {
			told += ev.Err.Error()
		}
		require.Contains(t, told, says)
	})
}

// The vault's clock alone says that a version has expired: what it refuses is refused, and
// the text says that the two disagree.
func TestTheVaultsClockSaysExpired(t *testing.T) {
	vaultkinds.Each(t, func(t *testing.T, site *vaultkinds.Site, clock *vaulttest.Clock) {
		if site.Kind == "file" {
			return // it goes by this machine's
		}
		v := site.New("v", nil)
		id := v.Import("customer", site.Pair())
		v.SetDates(id, time.Time{}, clock.Now().Add(time.Hour).Truncate(time.Second))
		mine := vaulttest.NewClock(clock.Now())
		r, err := keyring.Create(t.Context(), &keyring.MemStorage{}, kek.New(v, id.Versionless()), &keyring.Options{Clock: mine})
		require.NoError(t, err)
		defer r.Close()
		clock.Step(2 * time.Hour)
		err = r.Revalidate(t.Context())
		require.ErrorIs(t, err, vault.ErrKeyExpired)
		require.Equal(t, keyring.Inaccessible, r.State().Status)
		require.True(t, strings.Contains(err.Error(), "by the vault's clock") && strings.Contains(err.Error(), "clock is wrong"), err)
	})
}
