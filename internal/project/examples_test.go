package project

import (
	"go/parser"
	"go/token"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"testing"

	"github.com/stretchr/testify/require"
)

// What a reader copies out of an example compiles elsewhere: it imports nothing that is
// internal to this repository. examples/README.md says which files may, and why.
func TestExamplesCanBeCopied(t *testing.T) {
	readme, err := os.ReadFile("../../examples/README.md")
	require.NoError(t, err)
	dirs, err := os.ReadDir("../../examples")
	require.NoError(t, err)
	seen := 0
	for _, dir := range dirs {
		name := dir.Name()
		if !dir.IsDir() || name == "internal" {
			continue
		}
		require.Contains(t, string(readme), "\n| ["+name+"](", "examples/README.md has no row for it")
		if name == "operator" {
			continue // a program to build, and not to copy from
		}
		files, err := filepath.Glob("../../examples/" + name + "/*.go")
		require.NoError(t, err)
		require.NotEmpty(t, files)
		for _, file := range files {
			if strings.HasSuffix(file, "_test.go") {
				continue
			}
			f, err := parser.ParseFile(token.NewFileSet(), file, nil, parser.ImportsOnly)
			require.NoError(t, err)
			for _, spec := range f.Imports {
				path, err := strconv.Unquote(spec.Path.Value)
				require.NoError(t, err)
				own, ok := strings.CutPrefix(path, module)
				if !ok || !strings.Contains("/"+own+"/", "/internal/") {
					continue
				}
				base := filepath.Base(file)
				shared := own == "examples/internal/cli" && (base == "main.go" || base == "report.go" || base == "emulate.go")
				stands := own == "internal/keyvaulttest" && base == "emulate.go" || own == "internal/test/pgserver" && base == "server.go"
				require.True(t, shared || stands, "%s imports %s, so that it cannot be copied", file, own)
				require.NotContains(t, []string{"hello", "pages"}, name, "which stand alone")
			}
			seen++
		}
	}
	require.Greater(t, seen, 20)
}
