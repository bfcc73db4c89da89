// Package vaultkinds is a vault of each kind, in the hands of whoever administers it: for
// tests of what must hold whichever kind it is. Memory is vault/vaulttest, a file is
// vault/local, and Key Vault is the real client (vault/azure) against internal/keyvaulttest.
package vaultkinds

import (
	"bytes"
	"context"
	"crypto/rand"
	"crypto/rsa"
	"path/filepath"
	"testing"
	"time"

	"github.com/Azure/azure-sdk-for-go/sdk/azcore/policy"
	"github.com/stretchr/testify/require"

	"github.com/blockseal/blockseal/internal/keyvaulttest"
	"github.com/blockseal/blockseal/internal/test/testkeys"
	"github.com/blockseal/blockseal/vault"
	"github.com/blockseal/blockseal/vault/azure"
	"github.com/blockseal/blockseal/vault/local"
	"github.com/blockseal/blockseal/vault/vaulttest"
)

// Vault is a vault whose administrator the test is. Its methods end the test on an error.
type Vault struct {
	vault.Vault        // what a store calls
	Name        string // KeyID.Vault of its keys

	t      testing.TB
	site   *Site
	clock  *vaulttest.Clock
	memory *vaulttest.Vault // nil: a file vault, or Key Vault on one
	file   *local.Vault
	server *keyvaulttest.Server // nil unless Key Vault
}

// Site is a place with any number of vaults of one kind between which keys can be moved by
// backup and restore: they share a backup secret, and no two keys are alike in them unless
// one was restored or imported.
type Site struct {
	Kind   string
	t      testing.TB
	clock  *vaulttest.Clock
	secret [local.BackupSecretSize]byte
	next   int // key pair
}

// Each runs f with a site of each kind.
func Each(t *testing.T, f func(t *testing.T, s *Site, clock *vaulttest.Clock)) {
	for _, kind := range []string{"memory", "file", "Key Vault"} {
		t.Run(kind, func(t *testing.T) {
			s, clock := newSite(t, kind)
			f(t, s, clock)
		})
	}
}

// Memory returns a site of vaults in memory.
func Memory(t testing.TB) (*Site, *vaulttest.Clock) { return newSite(t, "memory") }

func newSite(t testing.TB, kind string) (*Site, *vaulttest.Clock) {
	clock := vaulttest.NewClock(time.Date(2026, 3, 1, 12, 0, 0, 0, time.UTC))
	s := &Site{Kind: kind, t: t, clock: clock}
	rand.Read(s.secret[:])
	return s, clock
}

const caller = "store" // the identity that a store calls with

// New returns an empty vault, which is closed with the test. It goes by the clock given, or
// the site's if that is nil.
func (s *Site) New(name string, clock *vaulttest.Clock) *Vault {
	t := s.t
	if clock == nil {
		clock = s.clock
	}
	v := &Vault{t: t, site: s, clock: clock}
	switch s.Kind {
	case "memory":
		v.memory = vaulttest.New(&vaulttest.Options{Name: "mem:" + name, Clock: clock})
		v.Vault, v.Name = v.memory, v.memory.Name()
		return v
	case "file":
		var err error
		v.file, err = local.Create(filepath.Join(t.TempDir(), name), []byte("a passphrase of a test"), &local.Options{
			KDF: local.KDF{Algorithm: local.PBKDF2, Passes: 1000}, InsecureKDF: true, Clock: clock, BackupSecret: s.secret[:]})
		require.NoError(t, err)
		t.Cleanup(func() { require.NoError(t, v.file.Close()) })
		v.Vault, v.Name = v.file, v.file.ID()
		return v
	}
	var err error
	v.server, err = keyvaulttest.New(&keyvaulttest.Options{Clock: clock, BackupSecret: s.secret[:]})
	require.NoError(t, err)
	t.Cleanup(func() { require.NoError(t, v.server.Close()) })
	_, err = v.server.AddIdentity(caller, append(local.DataPlane(), local.OpList)...)
	require.NoError(t, err)
	o := &azure.Options{Budget: 1_000_000, Timeout: time.Minute, Clock: clock}
	o.ClientOptions.Transport = v.server.Client()
	o.ClientOptions.Retry = policy.RetryOptions{MaxRetries: -1}
	o.ClientOptions.DisableChallengeResourceVerification = true
	client, err := azure.New(v.server.URL(), v.server.Credential(caller), o)
	require.NoError(t, err)
	v.Vault, v.Name, v.file = client, client.URL(), v.server.Vault()
	return v
}

// KeyVersions implements [vault.VersionLister].
func (v *Vault) KeyVersions(ctx context.Context, id vault.KeyID) ([]vault.KeyID, error) {
	return v.Vault.(vault.VersionLister).KeyVersions(ctx, id)
}

// Pair returns a key pair that no other call on the site has returned.
func (s *Site) Pair() *rsa.PrivateKey {
	keys, err := testkeys.Pairs()
	require.NoError(s.t, err)
	require.Less(s.t, s.next, len(keys), "the pool is used up")
	s.next++
	return keys[s.next-1]
}

// Last returns the key pair that was returned last.
func (s *Site) Last() *rsa.PrivateKey {
	keys, err := testkeys.Pairs()
	require.NoError(s.t, err)
	return keys[s.next-1]
}

// Pair is the site's.
func (v *Vault) Pair() *rsa.PrivateKey { return v.site.Pair() }

// Import makes a key, or a new version of it, from a key pair, a minute after the one before.
func (v *Vault) Import(name string, pair *rsa.PrivateKey) vault.KeyID {
	v.t.Helper()
	v.clock.Step(time.Minute) // so that dates of creation tell which is newer
	if v.memory != nil {
		if _, err := v.memory.KeyVersions(v.t.Context(), vault.KeyID{Name: name}); err == nil {
			return v.memory.ImportVersion(name, pair)
		}
		return v.memory.ImportKey(name, pair)
	}
	_, err := v.file.Versions(v.t.Context(), name)
	k, err := v.file.ImportKey(v.t.Context(), name, pair, &local.KeyOptions{NewVersion: err == nil})
	require.NoError(v.t, err)
	return v.outside(k.ID)
}

// outside is an id as the vault's callers know it, and inside as its administrator does.
func (v *Vault) outside(id vault.KeyID) vault.KeyID { id.Vault = v.Name; return id }

func (v *Vault) inside(id vault.KeyID) vault.KeyID {
	if v.memory == nil {
		id.Vault = v.file.ID()
	}
	return id
}

// SetEnabled enables or disables a version.
func (v *Vault) SetEnabled(id vault.KeyID, enabled bool) {
	v.t.Helper()
	if v.memory != nil {
		v.memory.SetEnabled(id, enabled)
		return
	}
	_, err := v.file.UpdateKey(v.t.Context(), v.inside(id), local.Update{Enabled: &enabled})
	require.NoError(v.t, err)
}

// SetDates sets a version's dates; a zero time unsets.
func (v *Vault) SetDates(id vault.KeyID, notBefore, expires time.Time) {
	v.t.Helper()
	if v.memory != nil {
		v.memory.SetDates(id, notBefore, expires)
		return
	}
	_, err := v.file.UpdateKey(v.t.Context(), v.inside(id), local.Update{NotBefore: &notBefore, Expires: &expires})
	require.NoError(v.t, err)
}

// Delete deletes a key with all its versions; it can be recovered.
func (v *Vault) Delete(name string) {
	v.t.Helper()
	if v.memory != nil {
		v.memory.Delete(name)
		return
	}
	_, err := v.file.DeleteKey(v.t.Context(), name)
	require.NoError(v.t, err)
}

// Restore takes a key with all its versions from a backup that another vault of the site
// makes of it now.
func (v *Vault) Restore(from *Vault, name string) {
	v.t.Helper()
	if v.memory != nil {
		v.memory.RestoreKey(from.memory, name)
		return
	}
	b, err := from.file.BackupKey(v.t.Context(), name)
	require.NoError(v.t, err)
	require.False(v.t, bytes.Contains(b, []byte("PRIVATE KEY")))
	_, err = v.file.RestoreKey(v.t.Context(), b)
	require.NoError(v.t, err)
}

// Gone makes the vault answer nobody any more.
func (v *Vault) Gone() {
	switch {
	case v.memory != nil:
		v.memory.SetOutage(vaulttest.VaultDeleted())
	case v.server != nil:
		v.server.NoSuchHost()
	default:
		require.NoError(v.t, v.file.Close())
	}
}
