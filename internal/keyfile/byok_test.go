package keyfile

import (
	"bytes"
	"crypto/fips140"
	"crypto/rsa"
	"encoding/base64"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/blockseal/blockseal/vault"
)

// openFile parses and opens a .byok file of testdata. Under GODEBUG=fips140=only it
// requires the refusal of that instead.
func openFile(t testing.TB, data []byte, kek *rsa.PrivateKey) (key *rsa.PrivateKey, err error, opened bool) {
	t.Helper()
	b, err := ParseBYOK(data)
	if err != nil {
		return nil, err, true
	}
	key, err = OpenBYOK(b, kek)
	if fips140.Enforced() {
		requireRefused(t, err, ErrFIPS, "RSA-OAEP and SHA-1, which FIPS 140 does not permit")
		return nil, err, false
	}
	return key, err, true
}

func TestParseBYOK(t *testing.T) {
	b, err := ParseBYOK(importFile(t, "rsa2048.byok"))
	require.NoError(t, err)
	require.Equal(t, vault.KeyID{Vault: "https://example.vault.azure.net", Name: "byok-kek", Version: "0123456789abcdef0123456789abcdef"}, b.KeyID)
	require.Equal(t, "openssl; for tests only", b.Generator)
}

func TestBYOKOpens(t *testing.T) {
	kek := importKey(t, "byok-kek.pem")
	data := importFile(t, "rsa2048.byok")
	extra := bytes.Replace(data, []byte(`"header"`), []byte(`"note": "x", "header"`), 1)
	for what, data := range map[string][]byte{"as it is": data, "with another member": extra,
		"with a byte order mark": importFile(t, "bom.byok"), "in UTF-16": importFile(t, "utf16le-bom.byok")} {
		key, err, opened := openFile(t, data, kek)
		if !opened {
			return
		}
		require.NoError(t, err, what)
		require.True(t, key.Equal(importKey(t, "rsa2048.pem")))
		requireAdmissible(t, key)
	}
}

func TestParseBYOKTakesBase64WithAndWithoutPadding(t *testing.T) {
	for n := byokMinimum; n < byokMinimum+24; n += 8 { // each length modulo 3
		want := bytes.Repeat([]byte{0xfb, 0xff}, n/2) // "-" and "_"
		for _, encoding := range []*base64.Encoding{base64.RawURLEncoding, base64.URLEncoding} {
			data := fmt.Sprintf(`{"schema_version":"1.0.0","header":{"kid":"v/keys/k","alg":"dir","enc":"CKM_RSA_AES_KEY_WRAP"},"ciphertext":%q}`,
				encoding.EncodeToString(want))
			b, err := ParseBYOK([]byte(data))
			require.NoError(t, err)
			require.Equal(t, want, b.ciphertext)
		}
	}
}

func TestParseBYOKRefuses(t *testing.T) {
	whole := string(importFile(t, "rsa2048.byok"))
	replace := func(old, new string) []byte {
		require.Contains(t, whole, old)
		return []byte(strings.Replace(whole, old, new, 1))
	}
	for _, tt := range []struct {
		what string
		data []byte
		kind error
		says string
	}{
		{"wrong alg", importFile(t, "wrong-alg.byok"), ErrInvalid, `its "alg" is "RSA-OAEP", want "dir"`},
		{"wrong enc", importFile(t, "wrong-enc.byok"), ErrInvalid, `its "enc" is "A256GCM", want "CKM_RSA_AES_KEY_WRAP"`},
		{"another schema", replace("1.0.0", "2.0.0"), ErrInvalid, `its "schema_version" is "2.0.0", want "1.0.0"`},
		{"a long alg", replace(`"dir"`, `"`+strings.Repeat("x", 10000)+`"`), ErrInvalid, `xxx..."`},
		{"malformed kid", importFile(t, "malformed-kid.byok"), ErrInvalid, `its "kid" is no id of a key`},
		{"short ciphertext", importFile(t, "short-ciphertext.byok"), ErrCorrupt, "it has 200 bytes, want at least 272"},
		{"truncated", importFile(t, "truncated.byok"), ErrCorrupt, "JSON is"},
		{"more after it", []byte(whole + "{}"), ErrCorrupt, "JSON is malformed"},
		{"a number for a string", replace(`"1.0.0"`, `1`), ErrCorrupt, "a value of the wrong type"},
		{"base64, not base64url", replace(`"ciphertext": "`, `"ciphertext": "++//`), ErrCorrupt, "is not base64url"},
		{"a byte more", replace(`"ciphertext": "`, `"ciphertext": "AAAA`), ErrCorrupt, "a multiple of 8"},
		{"empty object", []byte("{}"), ErrInvalid, `its "schema_version" is ""`},
		{"empty file", nil, ErrCorrupt, "the file is empty"},
		{"too long", make([]byte, maxSize+1), ErrInvalid, "a key file has at most"},
		{"PEM", importFile(t, "rsa2048.pem"), ErrInvalid, "it is no key transfer blob, which is a JSON object"},
	} {
		t.Run(tt.what, func(t *testing.T) {
			b, err := ParseBYOK(tt.data)
			requireRefused(t, err, tt.kind, tt.says)
			require.Zero(t, b)
		})
	}
	for n := range strings.TrimSpace(whole) {
		_, err := ParseBYOK([]byte(whole[:n]))
		require.ErrorIs(t, err, ErrCorrupt, n)
	}
}

func TestBYOKRefusesToOpen(t *testing.T) {
	kek := importKey(t, "byok-kek.pem")
	for _, tt := range []struct {
		file string
		kind error
		says string
	}{
		{"truncated-ciphertext.byok", vault.ErrBadCiphertext, "was not made for the key https://example.vault.azure.net/keys/byok-kek/"},
		{"another-kek.byok", vault.ErrBadCiphertext, "make it again with that key's public half"},
		{"oaep-sha256.byok", vault.ErrBadCiphertext, "with SHA-1 in RSA-OAEP, or was altered"},
		{"aes128.byok", ErrInvalid, "its wrapping key has 16 bytes, want AES-256"},
		{"pkcs1.byok", ErrCorrupt, "what it carries is no PKCS#8 private key"},
		{"trailing.byok", ErrCorrupt, "there are 8 bytes after its end"},
		{"rsa1024.byok", vault.ErrUnsupportedKey, "its modulus has 1024 bits"},
		{"rsa3072.byok", vault.ErrUnsupportedKey, "its modulus has 3072 bits"},
		{"rsa2048-e3.byok", vault.ErrUnsupportedKey, "its public exponent is 3"},
		{"ec-p256.byok", vault.ErrUnsupportedKey, "it is an EC key"},
	} {
		t.Run(tt.file, func(t *testing.T) {
			key, err, opened := openFile(t, importFile(t, tt.file), kek)
			require.Nil(t, key)
			if opened {
				requireRefused(t, err, tt.kind, tt.says)
			}
		})
	}
}

// Whichever bit of the ciphertext is changed, it gets one and the same answer.
func TestBYOKChangedByABit(t *testing.T) {
	kek := importKey(t, "byok-kek.pem")
	b, err := ParseBYOK(importFile(t, "rsa2048.byok"))
	require.NoError(t, err)
	whole := b.ciphertext
	answers := map[string]bool{}
	for i := 0; i < len(whole); i += 17 {
		b.ciphertext = bytes.Clone(whole)
		b.ciphertext[i] ^= 1 << (i % 8)
		key, err := OpenBYOK(b, kek)
		require.Nil(t, key)
		if !fips140.Enforced() {
			require.ErrorIs(t, err, vault.ErrBadCiphertext)
		}
		answers[err.Error()] = true
	}
	require.Len(t, answers, 1)
}

func TestBYOKOpensWithARSA2048KeyOnly(t *testing.T) {
	_, err, opened := openFile(t, importFile(t, "rsa2048.byok"), importKey(t, "rsa3072.pem"))
	if opened {
		require.ErrorIs(t, err, vault.ErrBadCiphertext)
	}
}

func FuzzParseBYOK(f *testing.F) {
	files, err := filepath.Glob("testdata/import/*.byok")
	require.NoError(f, err)
	require.Greater(f, len(files), 15)
	for _, file := range files {
		data, err := os.ReadFile(file)
		require.NoError(f, err)
		f.Add(data)
	}
	kek := importKey(f, "byok-kek.pem")
	f.Fuzz(func(t *testing.T, data []byte) {
		b, err := ParseBYOK(data)
		if err != nil {
			require.Zero(t, b)
			require.ErrorIs(t, err, Kind(err))
			return
		}
		require.NoError(t, b.KeyID.Validate())
		if key, err := OpenBYOK(b, kek); err == nil {
			requireAdmissible(t, key)
		} else {
			require.Nil(t, key)
		}
	})
}
