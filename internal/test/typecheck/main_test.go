package main

import (
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/stretchr/testify/require"
)

// What a compiler for the system would refuse is found, in the code and in tests, and
// nothing else is.
func TestCheck(t *testing.T) {
	for name, c := range map[string]struct {
		files  map[string]string
		target string
		finds  string
	}{
		"all is right": {map[string]string{"a_windows.go": "package a\n\nvar A = 1\n", "a_test.go": "package a_test\n\nimport (\n\"example.com/a\"\n\"os\"\n\"testing\"\n)\n\nfunc Test(t *testing.T) { os.Exit(a.A) }\n"},
			"windows/amd64", ""},
		"a function's body":                  {map[string]string{"a.go": "package a\n\nfunc A() int { return \"\" }\n"}, "linux/arm64", "cannot use"},
		"a file of that system":              {map[string]string{"a.go": "package a\n", "a_windows.go": "package a\n\nvar _ = nothing\n"}, "windows/amd64", "a_windows.go:3:9: undefined: nothing"},
		"a file of another system":           {map[string]string{"a.go": "package a\n", "a_windows.go": "package a\n\nvar _ = nothing\n"}, "linux/amd64", ""},
		"what a system does not have":        {map[string]string{"a.go": "package a\n\nimport \"syscall\"\n\nvar _ = syscall.Flock\n"}, "windows/amd64", "undefined: syscall.Flock"},
		"what others have":                   {map[string]string{"a.go": "package a\n\nimport \"syscall\"\n\nvar _ = syscall.Flock\n"}, "darwin/arm64", ""},
		"a number that is too large for int": {map[string]string{"a.go": "package a\n\nvar _ int = 1 << 40\n"}, "linux/386", "overflows"},
		"a test":                             {map[string]string{"a.go": "package a\n", "a_test.go": "package a\n\nvar _ = nothing\n"}, "freebsd/amd64", "a_test.go:3:9: undefined: nothing"},
		"a test in a package of its own":     {map[string]string{"a.go": "package a\n", "a_test.go": "package a_test\n\nimport \"example.com/a\"\n\nvar _ = a.Nothing\n"}, "freebsd/amd64", "undefined: a.Nothing"},
		"no code for the system":             {map[string]string{"a_windows.go": "package a\n"}, "linux/amd64", "no package of the module was found"},
		"no such system":                     {map[string]string{"a.go": "package a\n\nimport _ \"os\"\n"}, "plan10/amd64", "undefined: "},
		"half a target":                      {map[string]string{"a.go": "package a\n"}, "linux", "no system and processor"},
	} {
		t.Run(name, func(t *testing.T) {
			dir := t.TempDir()
			require.NoError(t, os.WriteFile(filepath.Join(dir, "go.mod"), []byte("module example.com/a\n\ngo 1.26\n"), 0o600))
			for file, text := range c.files {
				require.NoError(t, os.WriteFile(filepath.Join(dir, file), []byte(text), 0o600))
			}
			n, err := check(c.target, dir, "./...")
			if c.finds == "" {
				require.NoError(t, err)
				require.Positive(t, n)
				return
			}
			require.Error(t, err)
			require.Contains(t, strings.ReplaceAll(err.Error(), dir+string(filepath.Separator), ""), c.finds)
		})
	}
	require.ErrorContains(t, run(os.Stdout, nil), "linux/arm64")
}
