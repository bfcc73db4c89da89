package adversary

import (
	"crypto/rsa"
	"crypto/x509"
	"encoding/hex"
	"encoding/json"
	"path/filepath"
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/blockseal/blockseal/dek"
	"github.com/blockseal/blockseal/internal/test/wycheproof"
	"github.com/blockseal/blockseal/kek"
	"github.com/blockseal/blockseal/vault"
	"github.com/blockseal/blockseal/vault/local"
)

type hexBytes []byte

func (h *hexBytes) UnmarshalText(b []byte) (err error) {
	*h, err = hex.DecodeString(string(b))
	return err
}

type group struct {
	PrivateKeyPkcs8          hexBytes
	KeySize, IVSize, TagSize int
	Tests                    []struct {
		TcID                              int
		Comment, Result                   string
		Key, IV, AAD, Msg, Ct, Tag, Label hexBytes
	}
}

func vectors(t *testing.T, name string) []group {
	b, err := wycheproof.Read(name)
	require.NoError(t, err)
	var file struct {
		NumberOfTests int
		TestGroups    []group
	}
	require.NoError(t, json.Unmarshal(b, &file))
	n := 0
	for _, g := range file.TestGroups {
		n += len(g.Tests)
	}
	require.Equal(t, file.NumberOfTests, n)
	return file.TestGroups
}

// The vectors for AES-GCM of the sizes that a DEK has, through dek.Key.Open.
func TestVectorsOfAESGCM(t *testing.T) {
	ran, opened := 0, 0
	for _, g := range vectors(t, "aes_gcm_test.json") {
		if g.KeySize != 256 || g.IVSize != 96 || g.TagSize != 128 {
			continue
		}
		for _, v := range g.Tests {
			ran++
			k, err := dek.FromBytes(v.Key)
			require.NoError(t, err)
			sealed := append(append(append([]byte{}, v.IV...), v.Ct...), v.Tag...)
			got, err := k.Open(nil, sealed, v.AAD)
			if v.Result == "valid" {
				require.NoError(t, err, v.Comment)
				require.Equal(t, string(v.Msg), string(got))
				opened++
				continue
			}
			require.ErrorIs(t, err, dek.ErrCorrupt, v.Comment)
			require.Nil(t, got)
		}
	}
	require.Equal(t, 66, ran)
	require.Equal(t, 39, opened)
	t.Logf("AES-256-GCM: %d vectors, %d open, %d refused", ran, opened, ran-opened)
}

// The vectors for RSA-OAEP with 2048 bits, through a file vault that their keys were
// imported into and the KEK on top of it: with SHA-256 in both places and no label they
// unwrap, and with SHA-1 in either place or a label they do not.
func TestVectorsOfRSAOAEP(t *testing.T) {
	for _, tt := range []struct {
		name        string
		ran, opened int
	}{
		{"rsa_oaep_2048_sha256_mgf1sha256_test.json", 37, 9},
		{"rsa_oaep_2048_sha256_mgf1sha1_test.json", 31, 0},
		{"rsa_oaep_2048_sha1_mgf1sha1_test.json", 36, 0},
	} {
		t.Run(tt.name, func(t *testing.T) {
			v, err := local.Create(filepath.Join(t.TempDir(), "v"), passphrase, &local.Options{InsecureKDF: true, KDF: local.KDF{Algorithm: local.PBKDF2, Passes: 10}})
			require.NoError(t, err)
			defer v.Close()
			ran, opened := 0, 0
			for _, g := range vectors(t, tt.name) {
				parsed, err := x509.ParsePKCS8PrivateKey(g.PrivateKeyPkcs8)
				require.NoError(t, err)
				key, err := v.ImportKey(t.Context(), "vectors", parsed.(*rsa.PrivateKey), nil)
				require.NoError(t, err)
				k := kek.New(v, key.ID)
				for _, test := range g.Tests {
					ran++
					got, err := k.Unwrap(t.Context(), vault.Wrapped{KeyID: key.ID, Ciphertext: test.Ct})
					if err == nil {
						require.Equal(t, "valid", test.Result, test.Comment)
						require.Equal(t, string(test.Msg), string(got), test.Comment)
						require.Empty(t, test.Label)
						opened++
						continue
					}
					require.ErrorIs(t, err, vault.ErrBadCiphertext, test.Comment)
					require.Nil(t, got)
					// What is valid and refused has a label, or no bytes, or SHA-1.
					require.True(t, test.Result != "valid" || len(test.Label) > 0 || len(test.Msg) == 0 || tt.opened == 0, test.Comment)
				}
			}
			require.Equal(t, tt.ran, ran)
			require.Equal(t, tt.opened, opened)
			t.Logf("%d vectors, %d unwrap, %d refused", ran, opened, ran-opened)
		})
	}
}
