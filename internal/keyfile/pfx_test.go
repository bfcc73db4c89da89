package keyfile

import (
	"bytes"
	"crypto/fips140"
	"encoding/asn1"
	"os"
	"path/filepath"
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/blockseal/blockseal/vault"
)

// pfxRefused is for what GODEBUG=fips140=only forbids: there, it requires the error
// that says so, and returns true.
func pfxRefused(t *testing.T) bool {
	t.Helper()
	if !fips140.Enforced() {
		return false
	}
	key, err := ParsePFX(importFile(t, "modern.pfx"), string(importPassword(t)))
	requireRefused(t, err, ErrFIPS, `convert it with "openssl pkcs12 -in FILE -nodes`)
	require.Nil(t, key)
	return true
}

func TestParsePFXAccepts(t *testing.T) {
	if pfxRefused(t) {
		return
	}
	want := importKey(t, "rsa2048.pem")
	for file, password := range map[string]string{
		"modern.pfx":         string(importPassword(t)),
		"legacy.pfx":         string(importPassword(t)), // certificates RC2, key 3DES
		"legacy-3des.pfx":    string(importPassword(t)),
		"chain.pfx":          string(importPassword(t)),
		"utf8-password.pfx":  string(importFile(t, "password-utf8.txt")),
		"empty-password.pfx": "",
		"key-only.pfx":       string(importPassword(t)),
		"key-only-plain.pfx": string(importPassword(t)),
		"key-only-empty.pfx": "",
		"ber.pfx":            string(importPassword(t)),
	} {
		t.Run(file, func(t *testing.T) {
			key, err := ParsePFX(importFile(t, file), password)
			require.NoError(t, err)
			require.True(t, key.Equal(want))
			requireAdmissible(t, key)
		})
	}
}

func TestParsePFXRefuses(t *testing.T) {
	if pfxRefused(t) {
		return
	}
	for _, tt := range []struct {
		file string
		kind error
		says string
	}{
		{"two-keys.pfx", ErrInvalid, "it holds several private keys"},
		{"rsa1024.pfx", vault.ErrUnsupportedKey, "its modulus has 1024 bits, want exactly 2048"},
		{"rsa3072.pfx", vault.ErrUnsupportedKey, "its modulus has 3072 bits"},
		{"rsa2048-e3.pfx", vault.ErrUnsupportedKey, "its public exponent is 3"},
		{"rsa2048-pss.pfx", vault.ErrUnsupportedKey, "its private key is of no known kind"},
		{"ed25519.pfx", vault.ErrUnsupportedKey, "it is an Ed25519 key"},
		{"sha384-mac.pfx", ErrInvalid, "MAC digest algorithm not supported: 2.16.840.1.101.3.4.2.2: make it again"},
		{"camellia.pfx", ErrInvalid, "its private key is encrypted with an algorithm that is not read"},
		{"ec-p256.pfx", vault.ErrUnsupportedKey, "it is an EC key, not an RSA key"},
		{"key-only-3des.pfx", ErrInvalid, `it holds no certificate, and its key is encrypted in a way that is read only together with one: convert it with "openssl pkcs12`},
		{"key-only-no-mac.pfx", ErrInvalid, "it has no MAC"},
		{"ber-inside.pfx", ErrInvalid, `its content is in BER and not in DER, such as with indefinite lengths: convert it with "openssl pkcs12 -in FILE`},
		{"certificate-only.pfx", ErrInvalid, "it holds no private key, only certificates"},
		{"no-mac.pfx", ErrInvalid, "it has no MAC"},
		{"rsa2048.der", ErrCorrupt, "its DER is not that of a PKCS#12 file"},
		{"rsa2048.pem", ErrInvalid, "it is not PKCS#12: its first byte is 0x2d, want 0x30"},
	} {
		t.Run(tt.file, func(t *testing.T) {
			key, err := ParsePFX(importFile(t, tt.file), string(importPassword(t)))
			requireRefused(t, err, tt.kind, tt.says)
			require.Nil(t, key)
		})
	}
}

func TestParsePFXWithAWrongPassword(t *testing.T) {
	if pfxRefused(t) {
		return
	}
	for _, file := range []string{"modern.pfx", "legacy.pfx", "two-keys.pfx", "key-only.pfx", "ber.pfx"} {
		for password, says := range map[string]string{
			"wrong":                            "the password does not open it",
			"":                                 "it is encrypted, and no password was given",
			string(importPassword(t)) + "\x00": "the password does not open it",
			"\U0001F511":                       "beyond U+FFFF",
			"\xff\xfe":                         "the password does not open it",
		} {
			_, err := ParsePFX(importFile(t, file), password)
			requireRefused(t, err, ErrWrongPassword, says)
		}
	}
}

func TestParsePFXTruncatedOrLengthened(t *testing.T) {
	if pfxRefused(t) {
		return
	}
	for _, file := range []string{"modern.pfx", "legacy.pfx", "ber.pfx"} {
		data := importFile(t, file)
		for n := range data {
			_, err := ParsePFX(data[:n], string(importPassword(t)))
			require.ErrorIs(t, err, ErrCorrupt, "%s, %d bytes", file, n)
		}
		_, err := ParsePFX(append(bytes.Clone(data), 0), string(importPassword(t)))
		requireRefused(t, err, ErrCorrupt, "there are 1 bytes after its end")
	}
}

func TestParsePFXChangedByABit(t *testing.T) {
	if pfxRefused(t) {
		return
	}
	want, data := importKey(t, "rsa2048.pem"), importFile(t, "modern.pfx")
	for i := 0; i < len(data); i += 11 {
		changed := bytes.Clone(data)
		changed[i] ^= 1 << (i % 8)
		key, err := ParsePFX(changed, string(importPassword(t)))
		if err == nil {
			require.True(t, key.Equal(want), "byte %d changed gives another key", i)
		}
	}
}

// A file may ask for years of work, before its MAC says that it is anyone's.
func TestParsePFXBoundsTheIterations(t *testing.T) {
	if pfxRefused(t) {
		return
	}
	var pfx struct {
		Version  int
		Contents asn1.RawValue
		MAC      struct {
			Digest     asn1.RawValue
			Salt       []byte
			Iterations int64
		}
	}
	require.NoError(t, unmarshalWhole(importFile(t, "modern.pfx"), &pfx))
	require.EqualValues(t, 2048, pfx.MAC.Iterations)
	for _, n := range []int64{-1, 0, maxIterations + 1, 1<<31 - 1, 1 << 40} {
		pfx.MAC.Iterations = n
		data, err := asn1.Marshal(pfx)
		require.NoError(t, err)
		_, err = ParsePFX(data, string(importPassword(t)))
		requireRefused(t, err, ErrInvalid, "a number of iterations that is not within 1 to 2000000")
	}
	pfx.MAC.Iterations = 2049
	data, err := asn1.Marshal(pfx)
	require.NoError(t, err)
	_, err = ParsePFX(data, string(importPassword(t)))
	requireRefused(t, err, ErrWrongPassword, "or it is damaged")
}

// The places of an iteration count that are deeper than MacData.
func TestCheckIterations(t *testing.T) {
	type params struct {
		Salt       []byte
		Iterations int
	}
	nested := func(n int) []byte {
		der, err := asn1.Marshal(params{[]byte("12345678"), n})
		require.NoError(t, err)
		for range 8 { // as content of an OCTET STRING, in a SEQUENCE
			der, err = asn1.Marshal(struct{ Content []byte }{der})
			require.NoError(t, err)
		}
		return der
	}
	require.NoError(t, checkIterations(nested(maxIterations), 0))
	require.ErrorIs(t, checkIterations(nested(maxIterations+1), 0), ErrInvalid)

	deep := []byte{}
	for range 100 {
		var err error
		deep, err = asn1.Marshal(asn1.RawValue{Tag: asn1.TagSequence, IsCompound: true, Bytes: deep})
		require.NoError(t, err)
	}
	require.ErrorIs(t, checkIterations(deep, 0), ErrCorrupt)
}

func FuzzParsePFX(f *testing.F) {
	files, err := filepath.Glob("testdata/import/*.pfx")
	require.NoError(f, err)
	require.Greater(f, len(files), 10)
	for _, file := range files {
		data, err := os.ReadFile(file)
		require.NoError(f, err)
		f.Add(data, string(importPassword(f)))
		f.Add(data, "")
	}
	f.Fuzz(func(t *testing.T, data []byte, password string) {
		key, err := ParsePFX(data, password)
		if err != nil {
			require.Nil(t, key)
			require.ErrorIs(t, err, Kind(err))
			return
		}
		requireAdmissible(t, key)
	})
}
