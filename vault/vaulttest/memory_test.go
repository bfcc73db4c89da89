package vaulttest_test

import (
	"crypto/rand"
	"crypto/rsa"
	"crypto/x509"
	"os"
	"path/filepath"
	"regexp"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/blockseal/blockseal/internal/test/testkeys"
	"github.com/blockseal/blockseal/kek"
	"github.com/blockseal/blockseal/vault"
	"github.com/blockseal/blockseal/vault/vaulttest"
)

func TestKeysAreDistinctAndAcceptable(t *testing.T) {
	v := vaulttest.New(nil)
	require.Equal(t, vaulttest.DefaultName, v.Name())
	seen := map[[32]byte]bool{}
	hexVersion := regexp.MustCompile(`^[0-9a-f]{32}$`)
	pairs, err := testkeys.Pairs()
	require.NoError(t, err)
	pooled := len(pairs)
	require.GreaterOrEqual(t, pooled, 16)
	// One more than the pool has, so that the last is generated.
	id := v.CreateKey("kek")
	for range pooled {
		require.Equal(t, "mem:test", id.Vault)
		require.Regexp(t, hexVersion, id.Version)
		key, err := v.GetKey(t.Context(), id)
		require.NoError(t, err)
		require.NoError(t, kek.Admit(key, time.Now()))
		require.Equal(t, 65537, key.Public.E)
		print, err := kek.Fingerprint(key.Public)
		require.NoError(t, err)
		require.False(t, seen[print], "two versions have one key pair")
		seen[print] = true
		id = v.Rotate("kek")
	}
	require.NoError(t, kek.New(v, vault.KeyID{Name: "kek"}).Check(t.Context()))
}

func TestImportKeyTakesUnacceptableKeys(t *testing.T) {
	small := readKey(t, "testdata/rsa1024.pem")
	e3 := readKey(t, "testdata/rsa2048-e3.pem")
	v := vaulttest.New(nil)
	for name, key := range map[string]*rsa.PrivateKey{"small": small, "e3": e3} {
		id := v.ImportKey(name, key)
		got, err := v.GetKey(t.Context(), id)
		require.NoError(t, err)
		require.True(t, got.Public.Equal(&key.PublicKey))
		require.ErrorIs(t, kek.New(v, id).Check(t.Context()), vault.ErrUnsupportedKey)
	}
	// 190 bytes do not fit into 1024 bits: the vault says so itself.
	_, err := v.WrapKey(t.Context(), vault.KeyID{Name: "small"}, make([]byte, 190))
	require.ErrorIs(t, err, vault.ErrUnsupportedKey)
}

func readKey(t *testing.T, file string) *rsa.PrivateKey {
	t.Helper()
	der, err := os.ReadFile(filepath.FromSlash(file))
	require.NoError(t, err)
	key, err := x509.ParsePKCS1PrivateKey(decodePEM(t, der))
	require.NoError(t, err)
	return key
}

func TestAdministration(t *testing.T) {
	v := vaulttest.New(&vaulttest.Options{Name: "mem:a"})
	ctx := t.Context()
	first := v.CreateKey("kek")
	secret := make([]byte, 32)
	rand.Read(secret)
	w, err := v.WrapKey(ctx, first, secret)
	require.NoError(t, err)

	second := v.Rotate("kek")
	require.NotEqual(t, first.Version, second.Version)
	got, err := v.GetKey(ctx, vault.KeyID{Name: "kek"})
	require.NoError(t, err)
	require.Equal(t, second, got.ID)

	t.Run("operations of the key", func(t *testing.T) {
		v.SetOperations(first, vault.OpGet, vault.OpWrapKey)
		_, err := v.UnwrapKey(ctx, w)
		require.ErrorIs(t, err, vault.ErrAccessDenied)
		require.ErrorContains(t, err, "KeyOperationForbidden")
		_, err = v.WrapKey(ctx, first, secret)
		require.NoError(t, err)
		v.SetOperations(first, vault.OpGet, vault.OpWrapKey, vault.OpUnwrapKey)
		_, err = v.UnwrapKey(ctx, w)
		require.NoError(t, err)
	})
	t.Run("replaced material", func(t *testing.T) {
		before, err := v.GetKey(ctx, first)
		require.NoError(t, err)
		v.ReplaceMaterial(first)
		after, err := v.GetKey(ctx, first)
		require.NoError(t, err)
		require.Equal(t, before.ID, after.ID)
		require.False(t, before.Public.Equal(after.Public))
		_, err = v.UnwrapKey(ctx, w)
		require.ErrorIs(t, err, vault.ErrBadCiphertext)
	})
	t.Run("a destroyed version", func(t *testing.T) {
		v.DestroyVersion(second)
		_, err := v.GetKey(ctx, second)
		require.ErrorIs(t, err, vault.ErrKeyNotFound)
		got, err := v.GetKey(ctx, vault.KeyID{Name: "kek"})
		require.NoError(t, err)
		require.Equal(t, first, got.ID, "the newest version that is left is current")
		v.DestroyVersion(first)
		_, err = v.GetKey(ctx, vault.KeyID{Name: "kek"})
		require.ErrorIs(t, err, vault.ErrKeyNotFound)
	})
	t.Run("purge and create again", func(t *testing.T) {
		v.Delete("kek")
		require.Panics(t, func() { v.CreateKey("kek") }, "a deleted name cannot be created again")
		v.Purge("kek")
		third := v.CreateKey("kek")
		require.NotEqual(t, first.Version, third.Version)
		_, err := v.UnwrapKey(ctx, w)
		require.ErrorIs(t, err, vault.ErrKeyNotFound)
	})
	t.Run("mistakes in a test panic", func(t *testing.T) {
		require.Panics(t, func() { v.Rotate("nope") })
		require.Panics(t, func() { v.Purge("nope") })
		require.Panics(t, func() { v.SetEnabled(first, false) })
		require.Panics(t, func() { v.SetEnabled(vault.KeyID{Vault: "mem:b", Name: "kek"}, false) })
		require.Panics(t, func() { v.CreateKey("no spaces") })
		require.PanicsWithValue(t, `vaulttest: there is a key "kek" already: Rotate and ImportVersion make a new version of it`, func() { v.CreateKey("kek") })
		require.Panics(t, func() { v.ImportKey("kek", readKey(t, "testdata/rsa1024.pem")) })
		require.Panics(t, func() { v.ImportVersion("nope", readKey(t, "testdata/rsa1024.pem")) })
		require.Panics(t, func() { v.ImportKey("kek", nil) })
	})
}

func TestDatesAtTheExactInstants(t *testing.T) {
	clock := vaulttest.NewClock(start)
	v := vaulttest.New(&vaulttest.Options{Clock: clock})
	id := v.CreateKey("kek")
	w, err := v.WrapKey(t.Context(), id, []byte("secret"))
	require.NoError(t, err)
	v.SetDates(id, start.Add(time.Hour), start.Add(2*time.Hour))
	for _, tt := range []struct {
		advance time.Duration
		want    error
	}{
		{0, vault.ErrKeyNotYetValid},
		{time.Hour - 1, vault.ErrKeyNotYetValid},
		{1, nil},
		{time.Hour - 1, nil},
		{1, vault.ErrKeyExpired},
		{time.Hour, vault.ErrKeyExpired},
	} {
		clock.Advance(tt.advance)
		_, err := v.WrapKey(t.Context(), id, []byte("secret"))
		if tt.want == nil {
			require.NoError(t, err, clock.Now())
		} else {
			require.ErrorIs(t, err, tt.want, clock.Now())
		}
		got, err := v.UnwrapKey(t.Context(), w)
		require.NoError(t, err, "a key outside its dates still unwraps, as at Key Vault")
		require.Equal(t, "secret", string(got))
	}
}

func TestCalls(t *testing.T) {
	v := vaulttest.New(nil)
	id := v.CreateKey("kek")
	require.NoError(t, kek.New(v, id).Check(t.Context()))
	require.Equal(t, vaulttest.Calls{Get: 1, Wrap: 1, Unwrap: 1}, v.Calls())
	v.Revoke()
	require.ErrorIs(t, kek.New(v, id).Check(t.Context()), vault.ErrAccessDenied)
	require.Equal(t, vaulttest.Calls{Get: 2, Wrap: 1, Unwrap: 1}, v.Calls(), "refused calls count")
	require.Equal(t, 4, v.Calls().Total())
	v.ResetCalls()
	require.Zero(t, v.Calls())
}
