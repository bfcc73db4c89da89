package azure_test

import (
	"bytes"
	"crypto/fips140"
	"crypto/rsa"
	"math/big"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/blockseal/blockseal/internal/keyvaulttest"
	"github.com/blockseal/blockseal/vault"
	"github.com/blockseal/blockseal/vault/azure"
	"github.com/blockseal/blockseal/vault/local"
)

func importable(t testing.TB, name string) []byte {
	t.Helper()
	b, err := os.ReadFile(filepath.Join("..", "..", "internal", "keyfile", "testdata", "import", name))
	require.NoError(t, err)
	return b
}

func TestAdminImportsFiles(t *testing.T) {
	t.Parallel()
	r := newRig(t, nil)
	a, ctx := r.admin(), t.Context()
	password := importable(t, "password.txt")
	want, err := local.ParsePEM(importable(t, "rsa2048.pem"), nil)
	require.NoError(t, err)
	for i, file := range []string{"rsa2048.pem", "rsa2048-pkcs1.pem", "rsa2048-encrypted-salt16.pem", "modern.pfx", "legacy.pfx"} {
		t.Run(file, func(t *testing.T) {
			k, err := a.ImportFile(ctx, "imported", importable(t, file), password, &azure.KeyOptions{HSM: file == "modern.pfx", NewVersion: i > 0})
			if fips140.Enforced() && strings.HasSuffix(file, ".pfx") {
				require.ErrorIs(t, err, azure.ErrFIPS)
				return
			}
			require.NoError(t, err)
			require.True(t, want.PublicKey.Equal(k.Public))
			w, err := r.client().WrapKey(ctx, k.ID, []byte("secret"))
			require.NoError(t, err)
			got, err := r.client().UnwrapKey(ctx, w)
			require.NoError(t, err)
			require.Equal(t, "secret", string(got))
		})
	}
	before := r.Requests("")
	for _, tt := range []struct {
		file string
		kind error
		says string
	}{
		{"rsa3072.pem", vault.ErrUnsupportedKey, "its modulus has 3072 bits"},
		{"rsa2048-e3.pem", vault.ErrUnsupportedKey, "its public exponent is 3"},
		{"ec-p256.pem", vault.ErrUnsupportedKey, "it is an EC key"},
		{"two-keys.pem", azure.ErrInvalid, "several private keys"},
		{"rsa2048.der", azure.ErrInvalid, "a key in DER"},
		{"password.txt", azure.ErrInvalid, "no file that can be imported"},
		{"truncated.byok", azure.ErrCorrupt, "JSON is"},
		{"rsa2048.byok", azure.ErrInvalid, "is not of this vault"},
	} {
		t.Run(tt.file, func(t *testing.T) {
			_, err := a.ImportFile(ctx, "refused", importable(t, tt.file), password, nil)
			require.ErrorIs(t, err, tt.kind)
			require.ErrorContains(t, err, tt.says)
			require.ErrorContains(t, err, "vault: import "+r.URL()+"/keys/refused")
		})
	}
	_, err = a.ImportFile(ctx, "refused", importable(t, "rsa2048-encrypted-salt16.pem"), []byte("wrong"), nil)
	require.ErrorIs(t, err, azure.ErrWrongPassword)
	_, err = a.ImportKey(ctx, "refused", nil, nil)
	require.ErrorIs(t, err, vault.ErrUnsupportedKey)
	require.NoError(t, composite(want).Validate(), "crypto/rsa takes it")
	_, err = a.ImportKey(ctx, "refused", composite(want), nil)
	require.ErrorIs(t, err, vault.ErrUnsupportedKey)
	require.ErrorContains(t, err, "a factor that is not prime")
	require.Equal(t, before, r.Requests(""), "what is refused here is not sent")
}

// composite returns a key that passes what crypto/rsa checks, though its second factor is
// not prime.
func composite(good *rsa.PrivateKey) *rsa.PrivateKey {
	one, two, e := big.NewInt(1), big.NewInt(2), big.NewInt(int64(good.E))
	p := good.Primes[0]
	for q := new(big.Int).Add(good.Primes[1], two); ; q.Add(q, two) {
		k := &rsa.PrivateKey{PublicKey: rsa.PublicKey{N: new(big.Int).Mul(p, q), E: good.E}, Primes: []*big.Int{p, q}}
		k.D = new(big.Int).ModInverse(e, new(big.Int).Mul(new(big.Int).Sub(p, one), new(big.Int).Sub(q, one)))
		if k.D != nil && k.N.BitLen() == 2048 && !q.ProbablyPrime(20) {
			return k
		}
	}
}

// A key transfer blob made by OpenSSL, through to a wrap and an unwrap.
func TestAdminImportsTransferBlob(t *testing.T) {
	t.Parallel()
	r := newRig(t, &keyvaulttest.Options{URL: "https://example.vault.azure.net"})
	a, ctx := r.admin(), t.Context()
	k, err := a.ImportFile(ctx, "byok-kek", importable(t, "byok-kek.pem"), nil, &azure.KeyOptions{HSM: true, Operations: []vault.Operation{azure.OpImport}})
	require.NoError(t, err)
	require.Equal(t, []vault.Operation{vault.OpGet, azure.OpImport}, k.Operations)
	blob := bytes.Replace(importable(t, "rsa2048.byok"), []byte("0123456789abcdef0123456789abcdef"), []byte(k.ID.Version), 1)
	imported, err := a.ImportFile(ctx, "moved", blob, nil, &azure.KeyOptions{Tags: map[string]string{"from": "hsm"}})
	if fips140.Enforced() { // in the server
		require.ErrorIs(t, err, azure.ErrInvalid)
		return
	}
	require.NoError(t, err)
	want, err := local.ParsePEM(importable(t, "rsa2048.pem"), nil)
	require.NoError(t, err)
	require.True(t, want.PublicKey.Equal(imported.Public))
	w, err := r.client().WrapKey(ctx, imported.ID, []byte("secret"))
	require.NoError(t, err)
	got, err := r.client().UnwrapKey(ctx, w)
	require.NoError(t, err)
	require.Equal(t, "secret", string(got))

	_, err = a.ImportFile(ctx, "altered", bytes.Replace(blob, []byte(`"ciphertext": "eC4e`), []byte(`"ciphertext": "eC4f`), 1), nil, nil)
	require.ErrorIs(t, err, azure.ErrInvalid)
	require.ErrorContains(t, err, "was altered")
}
