package keyring_test

import (
	"context"
	"sync/atomic"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/blockseal/blockseal/kek"
	"github.com/blockseal/blockseal/keyring"
	"github.com/blockseal/blockseal/vault"
	"github.com/blockseal/blockseal/vault/vaulttest"
)

// behind is a vault that, while stale is set, answers with that when it is asked for a
// key's current version, as one does that shows the state of a while ago.
type behind struct {
	vault.Vault
	stale atomic.Pointer[vault.Key]
}

func (b *behind) GetKey(ctx context.Context, id vault.KeyID) (vault.Key, error) {
	if k := b.stale.Load(); k != nil && id.Version == "" {
		return *k, nil
	}
	return b.Vault.GetKey(ctx, id)
}

// A vault that calls an older version the current one moves no keyring back: not a
// check, not Open, not RotateKEK. An event says so, once.
func TestAKeyringIsNotMovedBack(t *testing.T) {
	for name, tt := range map[string]struct {
		between time.Duration // the making of the two versions
		noDates bool          // the vault gives no dates of creation
		reopen  bool
	}{
		"by the dates":                      {between: time.Hour},
		"by the dates, at Open":             {between: time.Hour, reopen: true},
		"made in the same second":           {},
		"by a vault that gives no dates":    {between: time.Hour, noDates: true},
		"by a vault that is a second apart": {between: time.Second, reopen: true},
	} {
		t.Run(name, func(t *testing.T) {
			bubble(t, func(t *testing.T, g *rig) {
				if tt.noDates {
					g.vault.Inject(vaulttest.Fault{Op: vault.OpGet, MutateKey: func(k *vault.Key) { k.Created = time.Time{} }})
				}
				e := g.listen()
				b := &behind{Vault: g.vault}
				g.kek = kek.New(b, g.key.Versionless())
				r := g.create()
				older, err := g.vault.GetKey(t.Context(), g.key)
				require.NoError(t, err)
				g.pass(tt.between)
				newest := g.vault.Rotate(g.key.Name)
				require.NoError(t, r.Revalidate(t.Context()))
				require.Equal(t, newest, r.State().KEK)
				if tt.reopen {
					require.NoError(t, r.Close())
				}
				e.take()

				b.stale.Store(&older)
				if tt.reopen {
					r = g.open()
				}
				for range 3 {
					require.NoError(t, r.Revalidate(t.Context()))
				}
				require.Equal(t, keyring.Available, r.State().Status)
				require.Equal(t, newest, r.State().KEK)
				news := e.take(keyring.KEKChanged, keyring.KEKNotChanged)
				require.Len(t, news, 1, "once, and not at each check")
				require.Equal(t, keyring.KEKNotChanged, news[0].Kind)
				require.Equal(t, g.key, news[0].Key)
				require.ErrorContains(t, news[0].Err, "it is older than the one in use, "+newest.Version)
				err = r.RotateKEK(t.Context())
				require.ErrorContains(t, err, "it is older than the one in use, "+newest.Version)
				require.False(t, vault.Denied(err))
				require.Equal(t, newest, r.State().KEK)
				require.Equal(t, keyring.Available, r.State().Status)

				// It goes on with what comes next, and who names the older version means it.
				b.stale.Store(nil)
				g.pass(time.Second)
				last := g.vault.Rotate(g.key.Name)
				require.NoError(t, r.Revalidate(t.Context()))
				require.Equal(t, last, r.State().KEK)
				require.NoError(t, r.ChangeKEK(t.Context(), kek.New(b, g.key)))
				require.Equal(t, g.key, r.State().KEK)
				require.NoError(t, r.RotateKEK(t.Context()))
				require.Equal(t, last, r.State().KEK)
			})
		})
	}
}

// The version in use is disabled right after a rotation, and the store was closed: the
// error names both, and what to do brings it back.
func TestDisabledBeforeTheNewVersionWasTakenUp(t *testing.T) {
	for name, take := range map[string]func(g *rig){
		"disabled":           func(g *rig) { g.vault.SetEnabled(g.key, false) },
		"no unwrap any more": func(g *rig) { g.vault.SetOperations(g.key, vault.OpGet, vault.OpWrapKey) },
		"destroyed":          func(g *rig) { g.vault.DestroyVersion(g.key) },
	} {
		t.Run(name, func(t *testing.T) {
			bubble(t, func(t *testing.T, g *rig) {
				require.NoError(t, g.create().Close())
				newest := g.vault.Rotate(g.key.Name)
				take(g)
				r := g.open()
				require.Equal(t, keyring.Inaccessible, r.State().Status)
				cause := r.State().Cause
				require.True(t, vault.Denied(cause))
				require.ErrorContains(t, cause, g.key.String())
				require.ErrorContains(t, cause, "the key's current version is "+newest.Version+", and the keyring was not moved to it: make version "+g.key.Version+" usable until it is")
				if name == "destroyed" {
					return
				}
				g.vault.SetEnabled(g.key, true)
				g.vault.SetDates(g.key, time.Time{}, time.Time{})
				g.vault.SetOperations(g.key, vault.OpGet, vault.OpWrapKey, vault.OpUnwrapKey)
				require.NoError(t, r.Revalidate(t.Context()))
				require.Equal(t, newest, r.State().KEK)
			})
		})
	}
	bubble(t, func(t *testing.T, g *rig) { // there is no other version to name
		r := g.create()
		g.vault.SetEnabled(g.key, false)
		require.NotContains(t, r.Revalidate(t.Context()).Error(), "current version")
	})
}

// However a vault's URL is spelt, it is the same vault.
func TestOneSpellingOfAVault(t *testing.T) {
	const url = "https://contoso.vault.azure.net"
	for _, spelt := range []string{url, url + "/", "https://Contoso.Vault.Azure.NET", "HTTPS://contoso.vault.azure.net", url + ":443", url + ":443/"} {
		t.Run(spelt, func(t *testing.T) {
			clock := vaulttest.NewClock(start)
			v := vaulttest.New(&vaulttest.Options{Clock: clock, Name: url})
			id := v.CreateKey("customer")
			g := &rig{t: t, clock: clock, vault: v, key: id, kek: kek.New(v, vault.KeyID{Vault: spelt, Name: id.Name}),
				storage: &storage{}, opts: keyring.Options{Clock: clock}}
			r := g.create()
			require.Equal(t, id, r.State().KEK)
			require.NoError(t, r.Close())
			for _, again := range []string{url, url + ":443", spelt} {
				g.kek = kek.New(v, vault.KeyID{Vault: again, Name: id.Name})
				r = g.open()
				require.NoError(t, r.Revalidate(t.Context()))
				require.Equal(t, id, r.State().KEK)
				require.NoError(t, r.Close())
			}
		})
	}
}
