package inner_test

import (
	"bytes"
	"crypto/rand"
	"os"
	"path/filepath"
	"runtime/debug"
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/blockseal/blockseal/internal/inner"
)

// What tags leaves nothing of the store secret on the heap, as the pads of an HMAC.
func TestTaggingLeavesNoPadsOnTheHeap(t *testing.T) {
	defer debug.SetGCPercent(debug.SetGCPercent(-1)) // what is not overwritten stays
	secret := make([]byte, 32)
	rand.Read(secret)
	tagger := inner.NewTagger(secret, "purpose")
	tag := tagger.Tag([]byte("data"))
	require.Equal(t, tag, tagger.Tag([]byte("data")))
	tagger.Destroy()
	name := filepath.Join(t.TempDir(), "heap")
	out, err := os.Create(name)
	require.NoError(t, err)
	debug.WriteHeapDump(out.Fd())
	require.NoError(t, out.Close())
	dump, err := os.ReadFile(name)
	require.NoError(t, err)
	require.Positive(t, bytes.Count(dump, secret), "the test looks in the wrong place")
	for _, pad := range []byte{0x36, 0x5c} {
		want := make([]byte, len(secret))
		for i, c := range secret {
			want[i] = c ^ pad
		}
		require.Zero(t, bytes.Count(dump, want), "the store secret xor %#x", pad)
	}
}
