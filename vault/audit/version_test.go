package audit

import (
	"bytes"
	"crypto/sha256"
	"encoding/hex"
	"fmt"
	"os"
	"path/filepath"
	"testing"

	"github.com/stretchr/testify/require"
)

// A log of another format version is not called altered, of which nothing is known. One that goes
// on in another version is.
func TestALogOfAnotherVersion(t *testing.T) {
	lines, _ := chainLines(origin, numbered(3)...)
	// another is a line in another version, with the hash that it has to have.
	another := func(line []byte, version string) []byte {
		body := bytes.Replace(line[:len(line)-tailSize], []byte(`{"v":3`), []byte(`{"v":`+version), 1)
		sum := sha256.Sum256(body)
		return fmt.Appendf(body, `,"hash":"%s"}`+"\n", hex.EncodeToString(sum[:]))
	}
	const earlier, later = "2", `4,"operation":{"of":"another kind"}`
	for _, tt := range []struct {
		what string
		log  [][]byte
		is   error
		not  error
		says string
	}{
		{"an earlier one", [][]byte{another(lines[0], earlier), lines[1]}, ErrVersion, ErrCorrupt,
			"audit: the log's first record: its format version is 2, this release reads 3: unknown format version; verify it with the release that wrote it"},
		{"a later one, with members of other types", [][]byte{another(lines[0], later)}, ErrVersion, ErrCorrupt, "its format version is 4, this release reads 3"},
		{"no version", [][]byte{another(lines[0], "0")}, ErrCorrupt, ErrVersion, "line 1 (at byte 0, after record 0): it has no format version"},
		{"in the middle", [][]byte{lines[0], another(lines[1], earlier), lines[2]}, ErrCorrupt, ErrVersion, "after record 1): its format version is 2, this release reads 3"},
		{"its hash is another", [][]byte{bytes.Replace(lines[0], []byte(`{"v":3`), []byte(`{"v":2`), 1)}, ErrCorrupt, ErrVersion, "its hash is not that of its content"},
	} {
		t.Run(tt.what, func(t *testing.T) {
			_, err := Verify(bytes.NewReader(bytes.Join(tt.log, nil)), nil)
			require.ErrorIs(t, err, tt.is)
			require.NotErrorIs(t, err, tt.not)
			require.ErrorContains(t, err, tt.says)
		})
	}

	dir := t.TempDir()
	path := filepath.Join(dir, fmt.Sprintf(fileFormat, 1))
	log := another(lines[0], earlier)
	require.NoError(t, os.WriteFile(path, log, 0o600))
	_, err := OpenDir(dir, nil)
	require.ErrorIs(t, err, ErrVersion)
	require.NotErrorIs(t, err, ErrCorrupt)
	require.EqualError(t, err, "audit: "+path+": its last record: its format version is 2, this release reads 3: unknown format version; "+
		"verify the log with the release that wrote it, and move its directory away to begin a new one")
	after, err := os.ReadFile(path)
	require.NoError(t, err)
	require.Equal(t, log, after)
}
