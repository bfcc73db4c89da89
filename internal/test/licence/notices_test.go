package licence

import (
	"os"
	"path/filepath"
	"testing"

	"github.com/stretchr/testify/require"
)

func TestIsNotice(t *testing.T) {
	for name, want := range map[string]bool{
		"LICENSE": true, "License": true, "LICENSE.txt": true, "ZSTD_LICENSE": true, "licenses": true,
		"COPYING": true, "NOTICE": true, "LICENCE.md": true,
		"license.go": false, "notice.h": false, "README.md": false, "AUTHORS": false,
	} {
		require.Equal(t, want, isNotice(name), name)
	}
}

// What is beside a linked package and above it belongs to it; what is beside another does not.
func TestTextsAreThoseOfWhatIsLinked(t *testing.T) {
	dir := t.TempDir()
	for name, text := range map[string]string{
		"LICENSE":                  "of the module\r\n  line\t\r\n\r\n",
		"NOTICE":                   "a notice",
		"licenses/BSD.txt":         "of a part",
		"linked/deep/LICENSE":      "of what is linked",
		"linked/deep/license.go":   "package deep",
		"linked/LICENSE":           "above it",
		"elsewhere/LICENSE":        "of what is not",
		"linked/elsewhere/LICENSE": "nor this",
	} {
		path := filepath.Join(dir, filepath.FromSlash(name))
		require.NoError(t, os.MkdirAll(filepath.Dir(path), 0o700))
		require.NoError(t, os.WriteFile(path, []byte(text), 0o600))
	}
	m := &linked{dir: dir, dirs: map[string]bool{filepath.Join(dir, "linked", "deep"): true, dir: true}}
	got, err := m.texts()
	require.NoError(t, err)
	require.Equal(t, map[string]string{
		"LICENSE":             "of the module\n  line",
		"NOTICE":              "a notice",
		"licenses/BSD.txt":    "of a part",
		"linked/deep/LICENSE": "of what is linked",
		"linked/LICENSE":      "above it",
	}, got)
}

func TestProgramsHaveWhatTheySay(t *testing.T) {
	p := program{"x", []string{"block", "examples/"}}
	require.True(t, p.has("block"))
	require.True(t, p.has("examples/pages"))
	require.False(t, p.has("block/blockprom"))
	require.False(t, p.has("blocks"))
}
