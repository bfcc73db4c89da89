package kek_test

import (
	"crypto/rsa"
	"encoding/hex"
	"math/big"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/blockseal/blockseal/kek"
	"github.com/blockseal/blockseal/vault"
)

var now = time.Date(2026, 1, 1, 0, 0, 0, 0, time.UTC)

// modulus returns an odd number of the given size. Nothing here computes with
// it, so that it need not be the product of two primes.
func modulus(bits int) *big.Int {
	n := new(big.Int).Lsh(big.NewInt(1), uint(bits-1))
	return n.Add(n, big.NewInt(12345))
}

func acceptable() vault.Key {
	return vault.Key{
		ID:         vault.KeyID{Vault: "v", Name: "kek", Version: "1"},
		Public:     &rsa.PublicKey{N: modulus(2048), E: 65537},
		Enabled:    true,
		Operations: []vault.Operation{vault.OpWrapKey, vault.OpUnwrapKey},
	}
}

func TestAdmit(t *testing.T) {
	type change = func(*vault.Key)
	n := func(n *big.Int) change { return func(k *vault.Key) { k.Public.N = n } }
	e := func(e int) change { return func(k *vault.Key) { k.Public.E = e } }
	ops := func(ops ...vault.Operation) change { return func(k *vault.Key) { k.Operations = ops } }
	dates := func(notBefore, expires time.Time) change {
		return func(k *vault.Key) { k.NotBefore, k.Expires = notBefore, expires }
	}
	var unset time.Time
	for _, tt := range []struct {
		what   string
		change change
		kind   error // nil: admitted
		says   string
	}{
		{"acceptable", func(*vault.Key) {}, nil, ""},
		{"no public key", func(k *vault.Key) { k.Public = nil }, vault.ErrUnsupportedKey, "no RSA public key"},
		{"no modulus", n(nil), vault.ErrUnsupportedKey, "no RSA public key"},
		{"modulus 0", n(new(big.Int)), vault.ErrUnsupportedKey, "not positive"},
		{"negative modulus", n(new(big.Int).Neg(modulus(2048))), vault.ErrUnsupportedKey, "not positive"},
		{"1024 bits", n(modulus(1024)), vault.ErrUnsupportedKey, "its modulus has 1024 bits, want 2048"},
		{"2047 bits", n(modulus(2047)), vault.ErrUnsupportedKey, "2047 bits"},
		{"2049 bits", n(modulus(2049)), vault.ErrUnsupportedKey, "2049 bits"},
		{"3072 bits", n(modulus(3072)), vault.ErrUnsupportedKey, "3072 bits"},
		{"4096 bits", n(modulus(4096)), vault.ErrUnsupportedKey, "4096 bits"},
		{"even modulus", n(new(big.Int).Add(modulus(2048), big.NewInt(1))), vault.ErrUnsupportedKey, "modulus is even"},
		{"exponent 0", e(0), vault.ErrUnsupportedKey, "exponent is 0, want at least 65537"},
		{"exponent 1", e(1), vault.ErrUnsupportedKey, "exponent is 1,"},
		{"exponent 3", e(3), vault.ErrUnsupportedKey, "exponent is 3,"},
		{"exponent 4", e(4), vault.ErrUnsupportedKey, "exponent is 4,"},
		{"exponent 65535", e(65535), vault.ErrUnsupportedKey, "exponent is 65535,"},
		{"exponent 65536", e(65536), vault.ErrUnsupportedKey, "exponent is 65536,"},
		{"exponent 65537", e(65537), nil, ""},
		{"exponent 65538", e(65538), vault.ErrUnsupportedKey, "exponent 65538 is even"},
		{"exponent 65539", e(65539), nil, ""},
		{"negative exponent", e(-65537), vault.ErrUnsupportedKey, "exponent is -65537,"},

		{"no operations", ops(), vault.ErrUnsupportedKey, "do not include wrapKey"},
		{"wrapKey alone", ops(vault.OpWrapKey), vault.ErrUnsupportedKey, "do not include unwrapKey"},
		{"unwrapKey alone", ops(vault.OpUnwrapKey), vault.ErrUnsupportedKey, "do not include wrapKey"},
		{"get alone", ops(vault.OpGet), vault.ErrUnsupportedKey, "do not include wrapKey"},
		{"more operations", ops("sign", vault.OpUnwrapKey, vault.OpGet, vault.OpWrapKey), nil, ""},

		{"disabled", func(k *vault.Key) { k.Enabled = false }, vault.ErrKeyDisabled, "enable the key version"},

		{"valid from now on", dates(now, unset), nil, ""},
		{"valid in a nanosecond", dates(now.Add(1), unset), vault.ErrKeyNotYetValid, "valid from 2026-01-01T00:00:00Z"},
		{"valid since long", dates(now.Add(-time.Hour), unset), nil, ""},
		{"expires now", dates(unset, now), vault.ErrKeyExpired, "expired at 2026-01-01T00:00:00Z"},
		{"expires in a nanosecond", dates(unset, now.Add(1)), nil, ""},
		{"expired long ago", dates(unset, now.Add(-time.Hour)), vault.ErrKeyExpired, "expired at 2025-12-31T23:00:00Z"},
		{"between its dates", dates(now.Add(-1), now.Add(1)), nil, ""},
		{"another zone's clock", dates(unset, now.In(time.FixedZone("east", 3600))), vault.ErrKeyExpired, "2026-01-01T00:00:00Z"},
	} {
		t.Run(tt.what, func(t *testing.T) {
			key := acceptable()
			tt.change(&key)
			err := kek.Admit(key, now)
			if tt.kind == nil {
				require.NoError(t, err)
				return
			}
			require.ErrorIs(t, err, tt.kind)
			require.Equal(t, tt.kind, vault.Kind(err))
			require.True(t, vault.Denied(err))
			require.ErrorContains(t, err, tt.says)
			require.ErrorContains(t, err, "v/keys/kek/1", "it names the key and its version")
		})
	}
}

// The public key has no zero value that is acceptable by accident.
func TestAdmitRefusesTheZeroKey(t *testing.T) {
	require.ErrorIs(t, kek.Admit(vault.Key{}, now), vault.ErrUnsupportedKey)
	require.Error(t, kek.AdmitPublic(nil))
	require.Error(t, kek.AdmitPublic(&rsa.PublicKey{}))
}

func TestFingerprint(t *testing.T) {
	a, err := kek.Fingerprint(&rsa.PublicKey{N: modulus(2048), E: 65537})
	require.NoError(t, err)
	again, err := kek.Fingerprint(&rsa.PublicKey{N: modulus(2048), E: 65537})
	require.NoError(t, err)
	require.Equal(t, a, again)
	otherN, err := kek.Fingerprint(&rsa.PublicKey{N: new(big.Int).Add(modulus(2048), big.NewInt(2)), E: 65537})
	require.NoError(t, err)
	require.NotEqual(t, a, otherN)
	otherE, err := kek.Fingerprint(&rsa.PublicKey{N: modulus(2048), E: 65539})
	require.NoError(t, err)
	require.NotEqual(t, a, otherE)
}

// The SHA-256 of the SubjectPublicKeyInfo, as another program makes it:
//
//	openssl rsa -RSAPublicKey_in -in key.pem -pubout -outform DER | sha256sum
func TestFingerprintIsThatOfOthers(t *testing.T) {
	fp, err := kek.Fingerprint(&rsa.PublicKey{N: modulus(2048), E: 65537})
	require.NoError(t, err)
	require.Equal(t, "fae12bda810f8289263d942e181910f951691095cefd61f427c979f676f38f7e", hex.EncodeToString(fp[:]))
}

// Of several things that are wrong the one is named that the owner of the key can mend last:
// what the key is, what it may do, whether it is enabled, its dates. Each refusal is one of
// reading the key, and names it.
func TestAdmitNamesTheFirst(t *testing.T) {
	key := acceptable()
	key.Public, key.Operations, key.Enabled, key.Expires = nil, nil, false, now
	for _, mend := range []struct {
		kind error
		says string
		mend func()
	}{
		{vault.ErrUnsupportedKey, "no RSA public key", func() { key.Public = acceptable().Public }},
		{vault.ErrUnsupportedKey, "do not include wrapKey", func() { key.Operations = acceptable().Operations }},
		{vault.ErrKeyDisabled, "enable the key version", func() { key.Enabled = true }},
		{vault.ErrKeyExpired, "expired at", func() { key.Expires = time.Time{} }},
	} {
		err := kek.Admit(key, now)
		require.ErrorIs(t, err, mend.kind)
		require.ErrorContains(t, err, mend.says)
		var refusal *vault.Error
		require.ErrorAs(t, err, &refusal)
		require.Equal(t, vault.OpGet, refusal.Op, mend.says)
		require.Equal(t, key.ID, refusal.Key, mend.says)
		mend.mend()
	}
	require.NoError(t, kek.Admit(key, now))
}
