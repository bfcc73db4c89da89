package local_test

import (
	"bytes"
	"crypto/fips140"
	"crypto/rsa"
	"crypto/x509"
	"encoding/pem"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/blockseal/blockseal/vault"
	"github.com/blockseal/blockseal/vault/local"
)

func readImport(t testing.TB, name string) []byte {
	t.Helper()
	b, err := os.ReadFile(filepath.Join("..", "..", "internal", "keyfile", "testdata", "import", name))
	require.NoError(t, err)
	return b
}

func readKey(t testing.TB, name string) *rsa.PrivateKey {
	t.Helper()
	b, _ := pem.Decode(readImport(t, name))
	key, err := x509.ParsePKCS8PrivateKey(b.Bytes)
	require.NoError(t, err)
	return key.(*rsa.PrivateKey)
}

// unchanged returns a function that requires that the vault's file is as it is now.
func (r *rig) unchanged() func() {
	r.t.Helper()
	before, err := r.Info(r.t.Context())
	require.NoError(r.t, err)
	return func() {
		r.t.Helper()
		after, err := r.Info(r.t.Context())
		require.NoError(r.t, err)
		require.Equal(r.t, before, after)
	}
}

// importTransferKey puts the key that the .byok files of testdata are encrypted to
// into the vault, import-only unless opts say otherwise.
func (r *rig) importTransferKey(opts *local.KeyOptions) vault.KeyID {
	r.t.Helper()
	if opts == nil {
		opts = &local.KeyOptions{Operations: []vault.Operation{local.OpImport}}
	}
	k, err := r.ImportKey(r.t.Context(), "byok-kek", readKey(r.t, "byok-kek.pem"), opts)
	require.NoError(r.t, err)
	return k.ID
}

// addressed returns a .byok file of testdata with another kid. The kid is not
// part of what is encrypted.
func addressed(t testing.TB, file, kid string) []byte {
	t.Helper()
	const old = "https://example.vault.azure.net/keys/byok-kek/0123456789abcdef0123456789abcdef"
	data := readImport(t, file)
	require.Contains(t, string(data), old)
	return bytes.Replace(data, []byte(old), []byte(kid), 1)
}

// fips requires the refusal under GODEBUG=fips140=only, and says whether there was one.
func fips(t testing.TB, err error) bool {
	t.Helper()
	if !fips140.Enforced() {
		return false
	}
	require.ErrorIs(t, err, local.ErrFIPS)
	require.False(t, vault.Denied(err) || vault.Transient(err), "it says nothing of a key")
	return true
}

func TestImportFileTellsFormatsApart(t *testing.T) {
	r := newRig(t)
	password := readImport(t, "password.txt")
	want := readKey(t, "rsa2048.pem")
	kek := r.importTransferKey(nil)
	for _, tt := range []struct {
		file string
		data []byte
		fips bool // possible with GODEBUG=fips140=only
	}{
		{"rsa2048.pem", readImport(t, "rsa2048.pem"), true},
		{"rsa2048-pkcs1.pem", readImport(t, "rsa2048-pkcs1.pem"), true},
		{"rsa2048-from-pfx.pem", readImport(t, "rsa2048-from-pfx.pem"), true},
		{"rsa2048-encrypted-salt16.pem", readImport(t, "rsa2048-encrypted-salt16.pem"), true},
		{"rsa2048-encrypted.pem", readImport(t, "rsa2048-encrypted.pem"), false},
		{"modern.pfx", readImport(t, "modern.pfx"), false},
		{"legacy.pfx", readImport(t, "legacy.pfx"), false},
		{"rsa2048.byok", addressed(t, "rsa2048.byok", kek.String()), false},
	} {
		t.Run(tt.file, func(t *testing.T) {
			name := "from-" + strings.ReplaceAll(tt.file, ".", "-")
			key, err := r.ImportFile(t.Context(), name, tt.data, password, nil)
			if !tt.fips && fips(t, err) {
				return
			}
			require.NoError(t, err)
			require.True(t, key.Public.Equal(&want.PublicKey))
			require.Equal(t, name, key.ID.Name)
			require.Equal(t, r.ID(), key.ID.Vault)
			w, secret := r.wrap(r, key.ID)
			r.unwraps(r.another(), w, secret)
		})
	}
}

func TestImportFileRefuses(t *testing.T) {
	r := newRig(t)
	r.create("there")
	same := r.unchanged()
	password := readImport(t, "password.txt")
	for _, tt := range []struct {
		file     string
		password string
		kind     error
		says     string
		fips     bool // the same with GODEBUG=fips140=only
	}{
		{"rsa1024.pem", "", vault.ErrUnsupportedKey, "its modulus has 1024 bits", true},
		{"rsa3072.pem", "", vault.ErrUnsupportedKey, "its modulus has 3072 bits", true},
		{"rsa2048-e3.pem", "", vault.ErrUnsupportedKey, "its public exponent is 3", true},
		{"ec-p256.pem", "", vault.ErrUnsupportedKey, "it is an EC key", true},
		{"two-keys.pem", "", local.ErrInvalid, "several private keys", true},
		{"certificate.pem", "", local.ErrInvalid, "no private key", true},
		{"rsa2048-legacy-encrypted.pem", string(password), local.ErrInvalid, "the old way of PEM", true},
		{"rsa2048-encrypted-salt16.pem", "wrong", local.ErrWrongPassword, "the password does not open it", true},
		{"rsa2048-encrypted-salt16.pem", "", local.ErrWrongPassword, "no password was given", true},
		{"rsa2048.der", "", local.ErrInvalid, `it looks like a key in DER: convert it with "openssl pkey`, true},
		{"rsa2048-pkcs1.der", "", local.ErrInvalid, "it looks like a key in DER", true},
		{"password.txt", "", local.ErrInvalid, "it is no file that can be imported: want PEM", true},
		{"modern.pfx", "wrong", local.ErrWrongPassword, "the password does not open it", false},
		{"two-keys.pfx", string(password), local.ErrInvalid, "several private keys", false},
		{"wrong-alg.byok", "", local.ErrInvalid, `its "alg" is`, false},
	} {
		t.Run(tt.file, func(t *testing.T) {
			key, err := r.ImportFile(t.Context(), "kek", readImport(t, tt.file), []byte(tt.password), nil)
			require.Zero(t, key)
			same()
			if !tt.fips && fips(t, err) {
				return
			}
			require.ErrorIs(t, err, tt.kind)
			require.ErrorContains(t, err, tt.says)
			require.ErrorContains(t, err, fmt.Sprintf("vault: import %s/keys/kek: %v: ", r.ID(), tt.kind))
			require.Equal(t, 1, strings.Count(err.Error(), tt.kind.Error()), "it says what it is once: %v", err)
			require.NotContains(t, err.Error(), string(password))
		})
	}
	for what, data := range map[string][]byte{"nothing": nil, "one byte": {0x30}, "too long": make([]byte, 2<<20)} {
		_, err := r.ImportFile(t.Context(), "kek", data, nil, nil)
		require.Error(t, err, what)
	}
	same()
}

func TestImportBYOK(t *testing.T) {
	r := newRig(t)
	kek := r.importTransferKey(nil)
	made := false
	for what, kid := range map[string]vault.KeyID{
		"the version":         kek,
		"the current version": kek.Versionless(),
		"no vault":            {Name: kek.Name, Version: kek.Version},
	} {
		expires := start.Add(24 * time.Hour)
		key, err := r.ImportBYOK(t.Context(), "kek", addressed(t, "rsa2048.byok", kid.String()), &local.KeyOptions{Expires: expires, NewVersion: made})
		if fips(t, err) {
			return
		}
		require.NoError(t, err, what)
		made = true
		require.True(t, key.Public.Equal(&readKey(t, "rsa2048.pem").PublicKey))
		require.Equal(t, expires, key.Expires)
		w, secret := r.wrap(r, key.ID)
		r.unwraps(r, w, secret)
	}
	versions, err := r.Versions(t.Context(), "kek")
	require.NoError(t, err)
	require.Len(t, versions, 3, "each import is a new version")
	same := r.unchanged()
	_, err = r.ImportBYOK(t.Context(), "kek", addressed(t, "rsa2048.byok", kek.String()), nil)
	require.ErrorIs(t, err, vault.ErrKeyExists)
	same()
}

func TestImportBYOKAfterTheTransferKeyWasRotated(t *testing.T) {
	r := newRig(t)
	kek := r.importTransferKey(nil)
	_, err := r.RotateKey(t.Context(), kek.Name)
	require.NoError(t, err)
	_, err = r.ImportBYOK(t.Context(), "kek", addressed(t, "rsa2048.byok", kek.String()), nil)
	if fips(t, err) {
		return
	}
	require.NoError(t, err, "the version that it names")
	_, err = r.ImportBYOK(t.Context(), "kek", addressed(t, "rsa2048.byok", kek.Versionless().String()), &local.KeyOptions{NewVersion: true})
	require.ErrorIs(t, err, vault.ErrBadCiphertext, "the current version is another key now")
}

func TestImportBYOKRefuses(t *testing.T) {
	for _, tt := range []struct {
		what    string
		prepare func(r *rig) (blob []byte)
		kind    error
		says    string
	}{
		{"a key of another vault", func(r *rig) []byte {
			r.importTransferKey(nil)
			return readImport(t, "rsa2048.byok")
		}, vault.ErrKeyNotFound, "it is a key of another vault than this one"},
		{"no such key", func(r *rig) []byte {
			r.importTransferKey(nil)
			return bytes.Replace(readImport(t, "wrong-kid.byok"), []byte("https://example.vault.azure.net"), []byte(r.ID()), 1)
		}, vault.ErrKeyNotFound, "there is no such key"},
		{"no such version", func(r *rig) []byte {
			return addressed(t, "rsa2048.byok", r.importTransferKey(nil).Versionless().String()+"/0123456789abcdef0123456789abcdef")
		}, vault.ErrKeyNotFound, "no such version"},
		{"made for another key", func(r *rig) []byte {
			return addressed(t, "another-kek.byok", r.importTransferKey(nil).String())
		}, vault.ErrBadCiphertext, "was not made for the key local:"},
		{"a truncated ciphertext", func(r *rig) []byte {
			return addressed(t, "truncated-ciphertext.byok", r.importTransferKey(nil).String())
		}, vault.ErrBadCiphertext, "or was altered"},
		{"a 3072-bit key", func(r *rig) []byte {
			return addressed(t, "rsa3072.byok", r.importTransferKey(nil).String())
		}, vault.ErrUnsupportedKey, "its modulus has 3072 bits"},
		{"a key for wrapping", func(r *rig) []byte {
			id := r.importTransferKey(&local.KeyOptions{})
			return addressed(t, "rsa2048.byok", id.String())
		}, vault.ErrAccessDenied, "only by a key whose one operation is import, this one has [get wrapKey unwrapKey]"},
		{"a key for nothing", func(r *rig) []byte {
			id := r.importTransferKey(&local.KeyOptions{Operations: []vault.Operation{}})
			return addressed(t, "rsa2048.byok", id.String())
		}, vault.ErrAccessDenied, "only by a key whose one operation is import"},
		{"a disabled key", func(r *rig) []byte {
			id := r.importTransferKey(&local.KeyOptions{Operations: []vault.Operation{local.OpImport}, Disabled: true})
			return addressed(t, "rsa2048.byok", id.String())
		}, vault.ErrKeyDisabled, "enable the key version"},
		{"an expired key", func(r *rig) []byte {
			id := r.importTransferKey(&local.KeyOptions{Operations: []vault.Operation{local.OpImport}, Expires: start.Add(time.Hour)})
			r.clock.Advance(time.Hour)
			return addressed(t, "rsa2048.byok", id.String())
		}, vault.ErrKeyExpired, "it expired at"},
		{"a deleted key", func(r *rig) []byte {
			id := r.importTransferKey(nil)
			_, err := r.DeleteKey(t.Context(), id.Name)
			require.NoError(t, err)
			return addressed(t, "rsa2048.byok", id.String())
		}, vault.ErrKeyDeleted, "it can be recovered"},
	} {
		t.Run(tt.what, func(t *testing.T) {
			r := newRig(t)
			blob := tt.prepare(r)
			same := r.unchanged()
			key, err := r.ImportBYOK(t.Context(), "kek", blob, nil)
			same()
			require.Zero(t, key)
			if fips(t, err) {
				return
			}
			require.ErrorIs(t, err, tt.kind)
			require.ErrorContains(t, err, tt.says)
		})
	}
}

// A key that unwraps transported keys does nothing else, and nothing else unwraps them.
func TestATransferKeyIsForNothingElse(t *testing.T) {
	r := newRig(t)
	kek := r.importTransferKey(nil)
	_, err := r.WrapKey(t.Context(), kek, []byte("secret"))
	require.ErrorIs(t, err, vault.ErrAccessDenied)
	_, err = r.UnwrapKey(t.Context(), vault.Wrapped{KeyID: kek, Ciphertext: make([]byte, vault.WrappedSize)})
	require.ErrorIs(t, err, vault.ErrAccessDenied)
	_, err = r.CreateKey(t.Context(), "both", &local.KeyOptions{Operations: []vault.Operation{local.OpImport, vault.OpUnwrapKey}})
	require.ErrorContains(t, err, "a key that permits import must permit nothing else")
}

func TestImportNeedsTheGrant(t *testing.T) {
	r := newRig(t)
	kek := r.importTransferKey(nil)
	blob := addressed(t, "rsa2048.byok", kek.String())
	operator := r.Administer("operator")
	same := r.unchanged()
	_, err := operator.ImportFile(t.Context(), "kek", readImport(t, "rsa2048.pem"), nil, nil)
	require.ErrorIs(t, err, vault.ErrAccessDenied)
	_, err = operator.ImportBYOK(t.Context(), "kek", blob, nil)
	if !fips(t, err) {
		require.ErrorIs(t, err, vault.ErrAccessDenied)
		require.ErrorContains(t, err, `identity "operator" has no grant for import`)
	}
	same()
	require.NoError(t, r.Grant(t.Context(), "operator", local.OpImport))
	_, err = operator.ImportFile(t.Context(), "kek", readImport(t, "rsa2048.pem"), nil, nil)
	require.NoError(t, err)
	_, err = operator.ImportBYOK(t.Context(), "kek", blob, &local.KeyOptions{NewVersion: true})
	if !fips(t, err) {
		require.NoError(t, err)
	}
}

func TestImportIntoAClosedVault(t *testing.T) {
	r := newRig(t)
	kek := r.importTransferKey(nil)
	v := r.another()
	require.NoError(t, v.Close())
	_, err := v.ImportFile(t.Context(), "kek", readImport(t, "rsa2048.pem"), nil, nil)
	require.ErrorIs(t, err, local.ErrClosed)
	_, err = v.ImportBYOK(t.Context(), "kek", addressed(t, "rsa2048.byok", kek.String()), nil)
	if !fips(t, err) {
		require.ErrorIs(t, err, local.ErrClosed)
	}
}
