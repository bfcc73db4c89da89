package local_test

import (
	"crypto/rsa"
	"crypto/x509"
	"encoding/hex"
	"encoding/json"
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/blockseal/blockseal/internal/test/wycheproof"
	"github.com/blockseal/blockseal/vault"
)

// oaepVectors runs a file of Wycheproof's vectors through a vault that has their key
// imported. With ours, a valid vector unwraps; every other is refused alike.
func oaepVectors(t *testing.T, name string, ours bool) {
	b, err := wycheproof.Read(name)
	require.NoError(t, err)
	var file struct {
		NumberOfTests int
		TestGroups    []struct {
			PrivateKeyPkcs8 string
			Tests           []struct {
				TcID           int
				Msg, Ct, Label string
				Result         string
			}
		}
	}
	require.NoError(t, json.Unmarshal(b, &file))
	unhex := func(s string) []byte {
		b, err := hex.DecodeString(s)
		require.NoError(t, err)
		return b
	}
	r := newRig(t)
	ran, unwrapped := 0, 0
	for _, g := range file.TestGroups {
		key, err := x509.ParsePKCS8PrivateKey(unhex(g.PrivateKeyPkcs8))
		require.NoError(t, err)
		imported, err := r.ImportKey(t.Context(), "kek", key.(*rsa.PrivateKey), nil)
		require.NoError(t, err)
		for _, v := range g.Tests {
			ran++
			got, err := r.UnwrapKey(t.Context(), vault.Wrapped{KeyID: imported.ID, Ciphertext: unhex(v.Ct)})
			// A vault has no labels, and wraps no empty secret.
			if ours && v.Result == "valid" && v.Label == "" && v.Msg != "" {
				require.NoError(t, err, v.TcID)
				require.Equal(t, unhex(v.Msg), got, v.TcID)
				unwrapped++
				continue
			}
			require.ErrorIs(t, err, vault.ErrBadCiphertext, v.TcID)
			require.ErrorContains(t, err, "it was wrapped by another key version, or altered", v.TcID)
			require.Nil(t, got, v.TcID)
		}
	}
	require.Equal(t, file.NumberOfTests, ran)
	require.Equal(t, ours, unwrapped > 0)
}

func TestWycheproofOAEP(t *testing.T) {
	oaepVectors(t, "rsa_oaep_2048_sha256_mgf1sha256_test.json", true)
}

func TestWycheproofOAEPWithOtherHashesIsRefused(t *testing.T) {
	oaepVectors(t, "rsa_oaep_2048_sha1_mgf1sha1_test.json", false)
	oaepVectors(t, "rsa_oaep_2048_sha256_mgf1sha1_test.json", false)
}
