package project

import (
	"os"
	"regexp"
	"slices"
	"strings"
	"sync"
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/blockseal/blockseal/internal/test/licence"
)

// pkg is what go list says of a package that something of the module is built from.
type pkg struct {
	path           string
	imports, tests []string
}

// everything is what go list says of all that the module's packages and their tests need,
// asked once.
var everything = sync.OnceValues(func() ([]string, error) {
	return listed("-test", "-deps", "-f", `{{.ImportPath}}	{{with .Module}}{{.Path}}	{{.Dir}}	{{.Main}}{{else}}			{{end}}	{{.DepOnly}}	{{join .Imports " "}}	{{join .TestImports " "}} {{join .XTestImports " "}}`, "./...")
})

// packages returns the module's packages, and the modules of all that they and their
// tests need, by the path of the package.
func packages(t *testing.T) (own []pkg, module map[string]string, dirs map[string]string) {
	t.Helper()
	module, dirs = map[string]string{}, map[string]string{}
	lines, err := everything()
	require.NoError(t, err)
	for _, line := range lines {
		f := strings.Split(line, "\t")
		path, test, _ := strings.Cut(f[0], " ") // "p [p.test]" is p as its test sees it
		switch {
		case f[3] == "false":
			module[path], dirs[f[1]] = f[1], f[2]
		case f[3] == "true" && f[4] == "false" && test == "" && !strings.HasSuffix(path, ".test"):
			own = append(own, pkg{path: path, imports: strings.Fields(f[5]), tests: strings.Fields(f[6])})
		}
	}
	require.Greater(t, len(own), 40)
	return own, module, dirs
}

// dependency is a row of docs/dependencies.md.
type dependency struct{ module, part, licence, reason string }

func dependencies(t *testing.T) map[string]dependency {
	b, err := os.ReadFile("../../docs/dependencies.md")
	require.NoError(t, err)
	out := map[string]dependency{}
	for _, m := range regexp.MustCompile("(?m)^\\| `([^`]+)` \\| ([^|]+) \\| ([^|]+) \\| (.+) \\|$").FindAllStringSubmatch(string(b), -1) {
		if m[2] == "bench" || m[2] == "examples/sqlite" {
			continue // of another module, which has a test of its own
		}
		require.NotContains(t, out, m[1], "two rows")
		out[m[1]] = dependency{m[1], m[2], m[3], m[4]}
	}
	require.NotEmpty(t, out)
	return out
}

// Each module that something here imports has a row in docs/dependencies.md, with the
// part that needs it and its licence, and there is a row for none that go.mod lacks.
func TestDependenciesHaveReasons(t *testing.T) {
	own, module, dirs := packages(t)
	// library is the packages that programs import, and what those import here.
	library := map[string]bool{}
	for _, p := range goList(t, "-deps", "./vault/...", "./kek", "./dek", "./keyring", "./block/...") {
		library[p] = true
	}
	part := map[string]string{}
	put := func(imp, where string) {
		order := []string{"", "tests", "examples", "library"}
		m := module[imp]
		if m != "" && slices.Index(order, part[m]) < slices.Index(order, where) {
			part[m] = where
		}
	}
	for _, p := range own {
		where := "tests"
		switch path := strings.TrimPrefix(p.path, "github.com/blockseal/blockseal/"); {
		case strings.HasPrefix(path, "examples/"):
			where = "examples"
		case library[p.path] && !strings.HasPrefix(path, "vault/vaulttest"):
			where = "library"
		}
		for _, imp := range p.imports {
			put(imp, where)
		}
		for _, imp := range p.tests {
			put(imp, "tests")
		}
	}
	rows := dependencies(t)
	for m, where := range part {
		row, ok := rows[m]
		require.True(t, ok, "docs/dependencies.md has no row for %s, which the %s import", m, where)
		require.Equal(t, where, row.part, "docs/dependencies.md: the part that needs %s", m)
		got, err := licence.Of(dirs[m])
		require.NoError(t, err)
		require.Equal(t, got, row.licence, "docs/dependencies.md: the licence of %s", m)
		require.Greater(t, len(row.reason), 20, "a reason for %s", m)
	}
	// CI runs go mod tidy -diff, so that go.mod requires what is imported.
	mod, err := os.ReadFile("../../go.mod")
	require.NoError(t, err)
	for m := range rows {
		require.Contains(t, string(mod), "\t"+m+" v", "docs/dependencies.md has a row for a module that go.mod does not require")
	}
	require.Greater(t, len(part), 5)
}

// Everything that is compiled into the packages, examples and tests has a licence that
// this project can be used with.
func TestLicencesAreKnown(t *testing.T) {
	_, _, dirs := packages(t)
	count := map[string]int{}
	for module, dir := range dirs {
		got, err := licence.Of(dir)
		require.NoError(t, err, module)
		count[got]++
	}
	require.Greater(t, len(dirs), 20)
	t.Logf("%d modules: %v", len(dirs), count)
	own, err := licence.Of("../..")
	require.NoError(t, err)
	require.Equal(t, "Apache-2.0", own)
}

// The notices that are handed out with a program are those of what programs link now: a
// module that is added, dropped or changed, or a package of one that brings a licence of its
// own, makes them others.
func TestNoticesAreComplete(t *testing.T) {
	want, err := licence.Notices("../..")
	require.NoError(t, err)
	got, err := os.ReadFile("../../" + licence.NoticesFile)
	require.NoError(t, err)
	require.Equal(t, string(want), string(got), "run: go run ./internal/test/licence/notices")

	// And no module that is in a binary which go builds here is missing from them.
	for _, line := range goList(t, "-deps", "-f", "{{with .Module}}{{if not .Main}}{{.Path}} {{.Version}}{{end}}{{end}}", "./block/...", "./vault/azure", "./examples/...") {
		if line != "" {
			require.Contains(t, string(got), "\n"+line+"\n")
		}
	}
}
