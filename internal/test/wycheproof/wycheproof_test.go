package wycheproof

import (
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"strings"
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/blockseal/blockseal/internal/test/licence"
)

// Each file is as it was when it was copied: SHA256SUMS has all of them and no other.
func TestFilesAreAsTheyWereCopied(t *testing.T) {
	sums, err := Read("SHA256SUMS")
	require.NoError(t, err)
	listed := map[string]string{}
	for line := range strings.Lines(string(sums)) {
		sum, name, ok := strings.Cut(strings.TrimSpace(line), "  ")
		require.True(t, ok, line)
		listed[name] = sum
	}
	entries, err := files.ReadDir("testdata")
	require.NoError(t, err)
	require.Len(t, entries, len(listed)+1)
	vectors := 0
	for _, e := range entries {
		if e.Name() == "SHA256SUMS" {
			continue
		}
		b, err := Read(e.Name())
		require.NoError(t, err)
		sum := sha256.Sum256(b)
		require.Equal(t, listed[e.Name()], hex.EncodeToString(sum[:]), e.Name())
		if strings.HasSuffix(e.Name(), ".json") {
			require.True(t, json.Valid(b), e.Name())
			vectors++
		}
	}
	require.Equal(t, 5, vectors)
}

func TestLicenceIsBesideThem(t *testing.T) {
	got, err := licence.Of("testdata")
	require.NoError(t, err)
	require.Equal(t, "Apache-2.0", got)
}
