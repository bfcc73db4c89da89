package project

import (
	"go/ast"
	"go/parser"
	"go/token"
	"os"
	"path/filepath"
	"regexp"
	"strings"
	"testing"

	"github.com/stretchr/testify/require"
)

// testsOf returns the tests, fuzz targets, benchmarks and examples of a package's
// directory, by name.
func testsOf(t *testing.T, dir string) map[string]bool {
	t.Helper()
	files, err := filepath.Glob(filepath.Join("../..", dir, "*_test.go"))
	require.NoError(t, err)
	out := map[string]bool{}
	for _, file := range files {
		f, err := parser.ParseFile(token.NewFileSet(), file, nil, parser.SkipObjectResolution)
		require.NoError(t, err)
		for _, d := range f.Decls {
			if fn, ok := d.(*ast.FuncDecl); ok && fn.Recv == nil {
				out[fn.Name.Name] = true
			}
		}
	}
	return out
}

var (
	row      = regexp.MustCompile("(?m)^\\| (.+?) \\| `([a-z/]+)` \\| (.+?) \\|$")
	testName = regexp.MustCompile("`((?:Test|Fuzz|Benchmark|Example)[A-Za-z0-9_]*)`")
)

// Each test that docs/testing.md names is there, in the package that it names.
func TestNamedTestsExist(t *testing.T) {
	b, err := os.ReadFile("../../docs/testing.md")
	require.NoError(t, err)
	text := string(b)
	tests := map[string]map[string]bool{}
	promises, named := 0, map[string]bool{}
	for _, m := range row.FindAllStringSubmatch(text, -1) {
		pkg := m[2]
		if tests[pkg] == nil {
			tests[pkg] = testsOf(t, pkg)
		}
		names := testName.FindAllStringSubmatch(m[3], -1)
		require.NotEmpty(t, names, "no test for %q", m[1])
		for _, n := range names {
			require.True(t, tests[pkg][n[1]], "docs/testing.md, %q: package %s has no %s", m[1], pkg, n[1])
			named[pkg+"."+n[1]] = true
		}
		promises++
	}
	require.Greater(t, promises, 50)
	// A row of another form, such as one of two packages, would be looked at by nobody.
	for line := range strings.Lines(text) {
		if strings.HasPrefix(line, "| ") && testName.MatchString(line) {
			require.Regexp(t, row, line)
		}
	}
	// A name outside of the tables must be one that is in them, or in a package that is.
	for _, n := range testName.FindAllStringSubmatch(text, -1) {
		found := false
		for _, of := range tests {
			found = found || of[n[1]]
		}
		require.True(t, found, "docs/testing.md names %s, which is nowhere", n[1])
	}
	t.Logf("%d promises, %d tests", promises, len(named))
}

// Each guarantee of the README, and each attacker of the threat model, has a part in
// docs/testing.md.
func TestEveryGuaranteeIsMapped(t *testing.T) {
	read := func(name string) string {
		b, err := os.ReadFile("../../" + name)
		require.NoError(t, err)
		return string(b)
	}
	doc := read("docs/testing.md")
	_, readme, ok := strings.Cut(read("README.md"), "## What it guarantees")
	require.True(t, ok)
	readme, _, _ = strings.Cut(readme, "\n## ")
	guarantees := regexp.MustCompile(`(?m)^- \*\*(\w+)\.\*\*`).FindAllStringSubmatch(readme, -1)
	require.Greater(t, len(guarantees), 4)
	for _, g := range guarantees {
		require.Contains(t, doc, "### "+g[1]+"\n", "a guarantee of the README")
	}
	_, model, ok := strings.Cut(read("docs/threat-model.md"), "## Attackers")
	require.True(t, ok)
	model, _, _ = strings.Cut(model, "\n## ")
	attackers := regexp.MustCompile(`(?m)^### (.+)$`).FindAllStringSubmatch(model, -1)
	require.Greater(t, len(attackers), 5)
	for _, a := range attackers {
		require.Contains(t, doc, "### "+a[1]+"\n", "an attacker of the threat model")
	}
}

// Each decoder that docs/testing.md lists has a fuzz target, and each target is listed.
func TestEveryFuzzTargetIsListed(t *testing.T) {
	b, err := os.ReadFile("../../docs/testing.md")
	require.NoError(t, err)
	listed := map[string]bool{}
	for _, m := range row.FindAllStringSubmatch(string(b), -1) {
		for _, n := range testName.FindAllStringSubmatch(m[3], -1) {
			if strings.HasPrefix(n[1], "Fuzz") {
				listed[m[2]+"."+n[1]] = true
			}
		}
	}
	there := 0
	require.NoError(t, filepath.WalkDir("../..", func(path string, d os.DirEntry, err error) error {
		if err != nil || !d.IsDir() {
			return err
		}
		if name := d.Name(); name == ".git" || name == "testdata" || name == "bench" {
			return filepath.SkipDir
		}
		rel, err := filepath.Rel("../..", path)
		require.NoError(t, err)
		for name := range testsOf(t, rel) {
			if strings.HasPrefix(name, "Fuzz") {
				require.True(t, listed[filepath.ToSlash(rel)+"."+name], "docs/testing.md does not list %s of %s", name, rel)
				there++
			}
		}
		return nil
	}))
	require.Len(t, listed, there)
}
