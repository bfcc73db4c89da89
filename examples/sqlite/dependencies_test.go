package main

import (
	"os"
	"os/exec"
	"regexp"
	"strings"
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/blockseal/blockseal/internal/test/licence"
)

// Whatever this module is built from has a licence that it can be used with, and each module that it asks
// for itself has a reason in docs/dependencies.md.
func TestDependencies(t *testing.T) {
	out, err := exec.Command("go", "list", "-test", "-deps", "-f", "{{with .Module}}{{.Path}}\t{{.Dir}}\t{{.Indirect}}{{end}}", "./...").Output()
	require.NoError(t, err)
	doc, err := os.ReadFile("../../docs/dependencies.md")
	require.NoError(t, err)
	rows := map[string]string{}
	for _, m := range regexp.MustCompile("(?m)^\\| `([^`]+)` \\| examples/sqlite \\| ([^|]+) \\| .{20,} \\|$").FindAllStringSubmatch(string(doc), -1) {
		rows[m[1]] = m[2]
	}
	seen := map[string]bool{}
	for line := range strings.Lines(string(out)) {
		f := strings.Split(strings.TrimSpace(line), "\t")
		if len(f) != 3 || seen[f[0]] || strings.HasPrefix(f[0], "github.com/blockseal/") {
			continue
		}
		seen[f[0]] = true
		got, err := licence.Of(f[1])
		require.NoError(t, err, f[0])
		if want, ok := rows[f[0]]; ok {
			require.Equal(t, want, got, f[0])
		} else if f[2] == "false" {
			require.True(t, strings.Contains(string(doc), "| `"+f[0]+"` |"), "docs/dependencies.md has no row for %s", f[0])
		}
	}
	for module := range rows {
		require.True(t, seen[module], "docs/dependencies.md has a row for %s, which nothing needs", module)
	}
	require.Greater(t, len(seen), 10)
}
