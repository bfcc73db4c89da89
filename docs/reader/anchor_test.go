package reader_test

import (
	"encoding/json"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/blockseal/blockseal/keyring"
)

// The reader finds in an anchor's file what was put there, and refuses one that is damaged.
func TestAnchor(t *testing.T) {
	backends(t)
	path, p := filepath.Join(t.TempDir(), "anchor"), keyring.Point{Fingerprint: strings.Repeat("0123456789abcdef", 4), Generation: 7, Sequence: 1<<63 + 9}
	require.NoError(t, keyring.FileAnchor(path).Advance(t.Context(), p))
	var got keyring.Point
	require.NoError(t, json.Unmarshal(read(t, "anchor", path), &got))
	require.Equal(t, p, got)
	b, err := os.ReadFile(path)
	require.NoError(t, err)
	b[50] ^= 1
	require.NoError(t, os.WriteFile(path, b, 0o600))
	refused(t, "the anchor is damaged", "anchor", path)
}
