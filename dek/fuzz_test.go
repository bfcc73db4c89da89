package dek_test

import (
	"bytes"
	"encoding/hex"
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/blockseal/blockseal/dek"
)

// FuzzOpen holds that Open gives back what Seal was given, and that nothing else
// opens. The key is fixed, so that the corpus stays meaningful.
func FuzzOpen(f *testing.F) {
	k, err := dek.FromBytes(bytes.Repeat([]byte{1}, dek.Size))
	require.NoError(f, err)
	// Sealed once under that key: a fresh nonce would differ between the
	// processes that fuzzing runs.
	sealed, err := hex.DecodeString("05e899323bb8f26f14014fb03b6f04c0bd4e2f8741b9a5f90e33f711b857d4907e")
	require.NoError(f, err)
	f.Add(sealed, []byte("aad"))
	f.Add(sealed[:27], []byte("aad"))
	f.Add([]byte{}, []byte{})
	f.Add(make([]byte, 28), []byte{})
	f.Fuzz(func(t *testing.T, input, aad []byte) {
		got, err := k.Open(nil, input, aad)
		if err != nil {
			require.ErrorIs(t, err, dek.ErrCorrupt)
			require.Nil(t, got)
		} else {
			require.Equal(t, sealed, input, "only what was sealed opens")
			require.Equal(t, "block", string(got))
			require.Equal(t, "aad", string(aad))
		}
		back, err := k.Open(nil, k.Seal(nil, input, aad), aad)
		require.NoError(t, err)
		require.True(t, bytes.Equal(input, back))
	})
}
