package keyring_test

import (
	"context"
	"crypto/rand"
	"crypto/rsa"
	"crypto/sha256"
	"testing"
	"testing/synctest"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/blockseal/blockseal/kek"
	"github.com/blockseal/blockseal/keyring"
	"github.com/blockseal/blockseal/vault"
)

// forge puts a document in the place of the one in storage that names a version and is later by so
// many generations, made with nothing but the public key: plain is what its wrap holds, and nil says
// that it is noise.
func (g *rig) forge(later uint64, id vault.KeyID, plain []byte) {
	g.t.Helper()
	ctx := context.WithoutCancel(g.t.Context())
	document, err := keyring.Document(ctx, g.storage)
	require.NoError(g.t, err)
	wrap, fingerprint := make([]byte, vault.WrappedSize), [32]byte{}
	if key, err := g.vault.GetKey(ctx, id); err == nil {
		fingerprint, err = kek.Fingerprint(key.Public)
		require.NoError(g.t, err)
		if plain != nil {
			wrap, err = rsa.EncryptOAEP(sha256.New(), rand.Reader, key.Public, plain, nil)
			require.NoError(g.t, err)
		}
	}
	forged, err := keyring.Forge(document, later, id.Version, fingerprint, wrap)
	require.NoError(g.t, err)
	require.NoError(g.t, keyring.Replace(ctx, &g.storage.MemStorage, forged))
}

// What somebody can put into storage who has no key does not lock a keyring, whatever the vault
// says of what it names: the keyring goes on with what it has, for as long as its lease lasts.
func TestForgedDocumentLocksNothing(t *testing.T) {
	for name, forge := range map[string]func(g *rig){
		"a wrap of nothing": func(g *rig) { g.forge(10, g.key, nil) },
		"a version that there is not": func(g *rig) {
			g.forge(10, vault.KeyID{Vault: g.key.Vault, Name: g.key.Name, Version: "00000000000000000000000000000000"}, nil)
		},
		"a version that was disabled": func(g *rig) {
			id := g.vault.Rotate("customer")
			g.forge(10, id, make([]byte, 32))
			g.vault.SetEnabled(id, false)
		},
		"a version that has expired": func(g *rig) {
			id := g.vault.Rotate("customer")
			g.forge(10, id, make([]byte, 32))
			g.vault.SetDates(id, time.Time{}, g.clock.Now())
		},
		"a wrap of 31 bytes": func(g *rig) { g.forge(10, g.key, make([]byte, 31)) },
		"a wrap of 32 bytes": func(g *rig) { g.forge(10, g.key, make([]byte, 32)) },
	} {
		t.Run(name, func(t *testing.T) {
			bubble(t, func(t *testing.T, g *rig) {
				g.opts.PinVersion = true // so that it is not moved to the version that was made
				r := g.create()
				record := newDEK(t, r)
				good, err := keyring.Document(t.Context(), g.storage)
				require.NoError(t, err)
				end := r.State().LeaseEnd
				forge(g)
				require.ErrorContains(t, r.Revalidate(t.Context()), "the document in storage")
				require.Equal(t, keyring.Degraded, r.State().Status)
				require.Equal(t, end, r.State().LeaseEnd)
				opensAll(t, r, record)
				require.NoError(t, keyring.Replace(t.Context(), &g.storage.MemStorage, good))
				require.NoError(t, r.Revalidate(t.Context()))
				require.Equal(t, keyring.Available, r.State().Status)
			})
		})
	}
}

// Nor does it keep a keyring from hearing that the customer has taken the version in use away, which
// locks it at once, or from saying so for as long as that is the case.
func TestForgedDocumentHidesNoRefusal(t *testing.T) {
	bubble(t, func(t *testing.T, g *rig) {
		first := g.key
		second := g.vault.Rotate("customer")
		r := g.create()
		require.Equal(t, second, r.State().KEK)
		g.forge(10, first, make([]byte, 32))
		require.ErrorIs(t, r.Revalidate(t.Context()), keyring.ErrCorrupt)
		require.Equal(t, keyring.Degraded, r.State().Status)

		g.vault.SetEnabled(second, false)
		for range 2 {
			require.ErrorIs(t, r.Revalidate(t.Context()), vault.ErrKeyDisabled)
			require.Equal(t, keyring.Inaccessible, r.State().Status)
			require.ErrorIs(t, r.State().Cause, vault.ErrKeyDisabled)
			require.NotErrorIs(t, r.State().Cause, keyring.ErrCorrupt)
			g.forge(10, first, nil)
		}
		// When the vault permits it again, the document is why it stays locked.
		g.vault.SetEnabled(second, true)
		require.Error(t, r.Revalidate(t.Context()))
		require.Equal(t, keyring.Inaccessible, r.State().Status)
		require.ErrorContains(t, r.State().Cause, "the document in storage")
	})
}

// Records that name epochs which there are not, beside a forged document, cost the vault no call
// each.
func TestForgedRecordsCostNoCalls(t *testing.T) {
	bubble(t, func(t *testing.T, g *rig) {
		r := g.create()
		record := newDEK(t, r)
		good, err := keyring.Document(t.Context(), g.storage)
		require.NoError(t, err)
		g.forge(10, g.key, make([]byte, 32))
		before := r.VaultCalls()
		bad := append([]byte(nil), record...)
		bad[1]++ // the epoch's highest byte
		look := func() {
			for range 100 {
				_, err := r.OpenDEK(t.Context(), bad, []byte("id"))
				require.ErrorContains(t, err, "the document in storage")
				synctest.Wait()
			}
		}
		look()
		first := r.VaultCalls().Unwrap - before.Unwrap
		require.LessOrEqual(t, first, uint64(3), "the document's, and those of the check that follows")
		look()
		require.Equal(t, first, r.VaultCalls().Unwrap-before.Unwrap)

		// The next check asks again, and so does a record of the good one that is put back.
		require.NoError(t, keyring.Replace(t.Context(), &g.storage.MemStorage, good))
		_, err = r.OpenDEK(t.Context(), bad, []byte("id"))
		require.ErrorIs(t, err, keyring.ErrCorrupt)
		require.NoError(t, r.Revalidate(t.Context()))
		opensAll(t, r, record)
	})
}
