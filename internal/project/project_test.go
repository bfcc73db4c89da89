// Package project holds tests of the project as a whole: which package may import
// which, and that the README shows code that works.
package project

import (
	"bytes"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"strings"
	"testing"

	"github.com/stretchr/testify/require"
)

const module = "github.com/blockseal/blockseal/"

// imports says what a package may import of this module, in code that is not a
// test. Imports go one way: blockprom and blockhttp, block, keyring, kek, vault, with dek
// beneath keyring and block. A package under one that is listed may import what that one may, and
// that one itself.
func imports() map[string][]string {
	return map[string][]string{
		"vault":           {},
		"vault/local":     {"vault", "internal/secret", "internal/keyfile"},
		"vault/azure":     {"vault", "internal/keyfile", "internal/quota"},
		"vault/audit":     {"vault"},
		"vault/vaulttest": {"vault", "internal/test/testkeys"},
		"kek":             {"vault"},
		"dek":             {"internal/secret"},
		"keyring":         {"vault", "kek", "dek", "internal/secret", "internal/inner", "internal/spread"},
		"keyring/sealfs":  {"vault", "keyring", "dek", "internal/inner", "internal/secret"},
		"internal/secret": {},
		"internal/spread": {},
		"internal/inner":  {"kek", "internal/secret", "internal/spread"},

		// A suite makes what it tests with.
		"keyring/storagetest": {"internal/inner", "keyring", "kek", "vault", "vault/vaulttest"},

		"internal/keyfile":   {"vault"},
		"internal/storename": {},
		"internal/quota":     {},
		"internal/engine":    {},
		// Of the engines none knows another.
		"internal/engine/postgres": {"internal/engine"},

		"internal/engine/pebble": {"internal/engine"},
		"internal/engine/pause":  {"internal/engine"},
		"internal/tagged":        {"internal/inner", "keyring", "internal/engine"},
		"internal/register":      {"internal/inner", "vault", "keyring", "internal/engine", "internal/tagged", "internal/row"},
		"internal/catalogue":     {"internal/engine"},
		"internal/transfer":      {"internal/engine"},
		"internal/pool":          {},
		"internal/place":         {"internal/inner", "keyring", "keyring/sealfs", "internal/engine", "internal/engine/pebble", "internal/row"},
		"internal/row":           {"internal/inner", "keyring", "dek", "internal/engine"},
		"internal/progress":      {},
		"internal/rewrite":       {"internal/inner", "vault", "keyring", "internal/engine", "internal/tagged", "internal/row", "internal/progress"},
		"internal/tally":         {"vault", "keyring", "internal/row", "internal/spread"},
		"block": {"internal/inner", "vault", "kek", "dek", "keyring", "keyring/sealfs", "internal/engine", "internal/engine/pebble", "internal/engine/pause", "internal/tagged",
			"internal/row", "internal/progress", "internal/rewrite", "internal/tally", "internal/spread", "internal/place", "internal/register",
			"internal/catalogue", "internal/transfer", "internal/pool"},
		"block/blockprom": {"block", "keyring"},
		"block/postgres":  {"block", "internal/inner", "internal/engine/postgres", "internal/row"},
		"block/blockhttp": {"block", "keyring", "vault", "internal/storename"},
	}
}

func goList(t *testing.T, args ...string) []string {
	t.Helper()
	out, err := listed(args...)
	require.NoError(t, err)
	return out
}

func listed(args ...string) ([]string, error) {
	cmd := exec.Command("go", append([]string{"list"}, args...)...)
	cmd.Dir = "../.."
	var stderr bytes.Buffer
	cmd.Stderr = &stderr
	out, err := cmd.Output()
	if err != nil {
		return nil, fmt.Errorf("go list %s: %w: %s", strings.Join(args, " "), err, stderr.String())
	}
	return strings.Split(strings.TrimSpace(string(out)), "\n"), nil
}

func TestImportsGoOneWay(t *testing.T) {
	allowed := imports()
	seen := map[string]bool{}
	for _, line := range goList(t, "-f", `{{.ImportPath}}:{{join .Imports " "}}`, "./...") {
		path, list, _ := strings.Cut(strings.TrimPrefix(line, module), ":")
		rule := path
		for ; rule != "." && allowed[rule] == nil; rule = filepath.Dir(rule) {
		}
		if rule == "." {
			continue // examples, test helpers: nobody imports them
		}
		seen[rule] = true
		for _, imp := range strings.Fields(list) {
			own, ok := strings.CutPrefix(imp, module)
			if !ok || strings.HasPrefix(own, rule+"/") || own == rule {
				continue
			}
			require.Contains(t, allowed[rule], own, "%s may not import %s", path, own)
		}
	}
	for rule := range allowed {
		require.True(t, seen[rule], "there is no package %s any more; mend the table", rule)
	}
}

// What people import must not drag a cloud's client, a database's, or anything for tests, along.
func TestBlockNamesNoCloud(t *testing.T) {
	for _, dep := range goList(t, "-deps", "./block", "./keyring", "./vault/local") {
		for _, no := range []string{"azure", "Azure", "jackc", "testify", "vaulttest", "rapid"} {
			require.NotContains(t, dep, no)
		}
	}
}

// A program that imports block and a file vault links neither Prometheus nor an HTTP server
// nor templates for this project's sake: what observes a store is in packages of its own.
// Pebble itself imports Prometheus's client, which imports net/http; docs/dependencies.md
// says so.
func TestObservingIsApart(t *testing.T) {
	observing := regexp.MustCompile(`(?m)prometheus|^net/http|^expvar$|^(html|text)/template`)
	ours, pebbles := 0, map[string]bool{}
	for _, dep := range goList(t, "-deps", "github.com/cockroachdb/pebble/v2") {
		pebbles[dep] = true
	}
	for _, line := range goList(t, "-deps", "-f", `{{.ImportPath}} {{join .Imports " "}}`, "./block", "./vault/local") {
		path, imports, _ := strings.Cut(line, " ")
		require.True(t, pebbles[path] || !observing.MatchString(path), "a program on block and vault/local links %s", path)
		if !strings.HasPrefix(path, module) {
			continue
		}
		ours++
		for _, imp := range strings.Fields(imports) {
			require.False(t, observing.MatchString(imp), "%s imports %s", path, imp)
		}
	}
	require.Greater(t, ours, 6)
	// That the pattern would see them: these are the packages that may.
	for _, of := range []string{"./block/blockprom", "./block/blockhttp"} {
		require.Regexp(t, observing, strings.Join(goList(t, "-f", `{{join .Imports "\n"}}`, of), "\n"))
	}
}

// The seam names no engine: what implements it imports it, and not the other way round.
func TestEngineSeamNamesNoEngine(t *testing.T) {
	for _, dep := range goList(t, "-deps", "./internal/engine") {
		require.NotContains(t, dep, "cockroachdb")
		require.NotContains(t, dep, module+"internal/engine/")
	}
}

// The README's first code is the body of an example that go test compiles and runs.
func TestREADMEShowsTheExample(t *testing.T) {
	readme, err := os.ReadFile("../../README.md")
	require.NoError(t, err)
	example, err := os.ReadFile("../../block/example_test.go")
	require.NoError(t, err)
	_, after, ok := strings.Cut(string(readme), "```go\n")
	require.True(t, ok, "the README has no Go code")
	code, _, ok := strings.Cut(after, "```")
	require.True(t, ok)
	require.Greater(t, strings.Count(code, "\n"), 10)
	indented := "\t" + strings.ReplaceAll(strings.TrimRight(code, "\n"), "\n", "\n\t")
	require.Contains(t, string(example), strings.ReplaceAll(indented, "\n\t\n", "\n\n"),
		"the README shows code that block/example_test.go does not compile")
}

// A file that is longer than this holds more than one concept.
func TestFilesAreShort(t *testing.T) {
	const most = 450
	for _, dir := range []string{"vault", "kek", "dek", "keyring", "block", "internal", "examples", "bench"} {
		err := filepath.WalkDir("../../"+dir, func(path string, d os.DirEntry, err error) error {
			if err != nil || filepath.Ext(path) != ".go" {
				return err
			}
			b, err := os.ReadFile(path)
			require.LessOrEqual(t, bytes.Count(b, []byte("\n")), most, path)
			return err
		})
		require.NoError(t, err)
	}
}

// The shell reads each script to its end: one that it does not would run nothing of what must hold.
func TestScriptsParse(t *testing.T) {
	bash, err := exec.LookPath("bash")
	if err != nil {
		t.Skip("there is no bash here: the scripts were NOT looked at")
	}
	scripts := []string{"../../.ci/run"}
	for _, pattern := range []string{"../../examples/*/*.sh", "../../internal/keyfile/testdata/import/*.sh"} {
		some, err := filepath.Glob(pattern)
		require.NoError(t, err)
		require.NotEmpty(t, some, pattern)
		scripts = append(scripts, some...)
	}
	for _, script := range scripts {
		out, err := exec.Command(bash, "-n", script).CombinedOutput()
		require.NoError(t, err, "%s: %s", script, out)
	}
}
