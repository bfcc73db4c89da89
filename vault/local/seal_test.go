package local

import (
	"crypto/rsa"
	"crypto/x509"
	"encoding/pem"
	"os"
	"testing"

	"github.com/stretchr/testify/require"
)

// A sealed private key opens in its own place alone: not under another name, version
// or vault, and not with another public key.
func TestSealedKeysCannotBeExchanged(t *testing.T) {
	rest, err := os.ReadFile("../vaulttest/testkeys.pem")
	require.NoError(t, err)
	var keys [2]*rsa.PrivateKey
	for i := range keys {
		var b *pem.Block
		b, rest = pem.Decode(rest)
		keys[i], err = x509.ParsePKCS1PrivateKey(b.Bytes)
		require.NoError(t, err)
	}
	master, id := make([]byte, keySize), [idSize]byte{1}
	v := version{ID: newVersion(), public: &keys[0].PublicKey}
	v.Private, err = sealPrivate(master, id, "kek", v.ID, keys[0])
	require.NoError(t, err)
	got, err := openPrivate(master, id, "kek", &v)
	require.NoError(t, err)
	require.True(t, got.Equal(keys[0]))

	refuses := func(master []byte, id [idSize]byte, name string, v version) {
		t.Helper()
		_, err := openPrivate(master, id, name, &v)
		require.ErrorIs(t, err, ErrCorrupt)
	}
	refuses(master, id, "keks", v)
	refuses(master, [idSize]byte{2}, "kek", v)
	refuses([]byte("another key, of thirty-two bytes"), id, "kek", v)
	moved := v
	moved.ID = newVersion()
	refuses(master, id, "kek", moved)
	moved = v
	moved.public = &keys[1].PublicKey
	refuses(master, id, "kek", moved)
	_, err = open(master, v.Private, backupSecretAAD(id))
	require.Error(t, err)
}
