package local

import (
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/blockseal/blockseal/internal/test/testkeys"
)

// A sealed private key opens in its own place alone: not under another name, version
// or vault, and not with another public key.
func TestSealedKeysCannotBeExchanged(t *testing.T) {
	keys, err := testkeys.Pairs()
	require.NoError(t, err)
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
