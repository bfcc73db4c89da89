package vault_test

import (
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/blockseal/blockseal/vault"
)

func TestInDate(t *testing.T) {
	now := time.Date(2026, 3, 1, 12, 0, 0, 0, time.UTC)
	const day = 24 * time.Hour
	var unset time.Time
	for _, tt := range []struct {
		what               string
		notBefore, expires time.Time
		vaultTime          time.Time
		kind               error
		text               string
	}{
		{"no dates", unset, unset, unset, nil, ""},
		{"between its dates", now, now.Add(1), unset, nil, ""},
		{"expired", unset, now, unset, vault.ErrKeyExpired,
			"it expired at 2026-03-01T12:00:00Z; the time was taken to be 2026-03-01T12:00:00Z by this machine's clock, which may be wrong"},
		{"not yet valid", now.Add(time.Second), unset, unset, vault.ErrKeyNotYetValid,
			"it is valid from 2026-03-01T12:00:01Z; the time was taken to be 2026-03-01T12:00:00Z by this machine's clock, which may be wrong"},
		{"the clocks agree", unset, now.Add(-day), now.Add(-4 * time.Minute), vault.ErrKeyExpired,
			"it expired at 2026-02-28T12:00:00Z; the time was taken to be 2026-03-01T12:00:00Z by this machine's clock, which agrees with the vault's"},
		{"ahead", unset, now.Add(-day), now.Add(-730 * day), vault.ErrKeyExpired,
			"it expired at 2026-02-28T12:00:00Z; the time was taken to be 2026-03-01T12:00:00Z by this machine's clock, " +
				"which is 730 days ahead of the vault's: by that it is 2024-03-01T12:00:00Z; set the clock"},
		{"a little ahead", unset, now, now.Add(-5 * time.Minute), vault.ErrKeyExpired,
			"it expired at 2026-03-01T12:00:00Z; the time was taken to be 2026-03-01T12:00:00Z by this machine's clock, " +
				"which is 5m0s ahead of the vault's: by that it is 2026-03-01T11:55:00Z; set the clock"},
		{"behind", now.Add(day), unset, now.Add(2 * day), vault.ErrKeyNotYetValid,
			"it is valid from 2026-03-02T12:00:00Z; the time was taken to be 2026-03-01T12:00:00Z by this machine's clock, " +
				"which is 2 days behind the vault's: by that it is 2026-03-03T12:00:00Z; set the clock"},
		{"the vault's clock makes no key younger", unset, now, now.Add(-100 * day), vault.ErrKeyExpired, ""},
		{"nor older", unset, now.Add(day), now.Add(100 * day), nil, ""},
	} {
		t.Run(tt.what, func(t *testing.T) {
			k := vault.Key{ID: vault.KeyID{Vault: "v", Name: "k", Version: "1"}, NotBefore: tt.notBefore, Expires: tt.expires, VaultTime: tt.vaultTime}
			err := k.InDate(vault.OpGet, now)
			if tt.kind == nil {
				require.NoError(t, err)
				return
			}
			require.ErrorIs(t, err, tt.kind)
			require.Equal(t, tt.kind, vault.Kind(err))
			if tt.text != "" {
				require.EqualError(t, err, "vault: get v/keys/k/1: "+tt.kind.Error()+": "+tt.text)
			}
		})
	}
}

// Dates are compared by the wall clock, also between times of one process that have
// monotonic readings as well.
func TestInDateGoesByTheWallClock(t *testing.T) {
	now := time.Now()
	expires := now.Add(time.Hour) // with a reading
	later := time.Unix(0, expires.Add(time.Second).UnixNano())
	require.ErrorIs(t, vault.Key{Expires: expires}.InDate(vault.OpGet, later), vault.ErrKeyExpired)
	require.NoError(t, vault.Key{Expires: expires}.InDate(vault.OpGet, now))
}

func TestWhyRefused(t *testing.T) {
	now := time.Date(2026, 3, 1, 12, 0, 0, 0, time.UTC)
	k := vault.Key{ID: vault.KeyID{Vault: "v", Name: "k", Version: "1"}, Expires: now.Add(time.Hour)}
	require.NoError(t, k.WhyRefused(vault.OpWrapKey, now), "nothing is known")
	k.VaultTime = now
	require.NoError(t, k.WhyRefused(vault.OpWrapKey, now), "it is not the dates")
	k.VaultTime = now.Add(2 * time.Hour)
	require.EqualError(t, k.WhyRefused(vault.OpWrapKey, now), "vault: wrapKey v/keys/k/1: key expired: it expired at 2026-03-01T13:00:00Z by the vault's clock, "+
		"at 2026-03-01T14:00:00Z; by this machine's clock it is 2026-03-01T12:00:00Z, and the version is in date: that clock is wrong")
	require.ErrorIs(t, k.WhyRefused(vault.OpWrapKey, now.Add(time.Hour)), vault.ErrKeyExpired)
}
