package project

import (
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"strings"
	"testing"

	"github.com/stretchr/testify/require"
)

// readmeBlocks returns the fenced blocks of the README's section "Start", as language and text.
func readmeBlocks(t *testing.T) (out [][2]string) {
	t.Helper()
	b, err := os.ReadFile("../../README.md")
	require.NoError(t, err)
	_, start, ok := strings.Cut(string(b), "\n## Start\n")
	require.True(t, ok)
	start, _, _ = strings.Cut(start, "\n## ")
	for _, m := range regexp.MustCompile("(?ms)^```([a-z]+)\n(.*?)^```$").FindAllStringSubmatch(start, -1) {
		out = append(out, [2]string{m[1], m[2]})
	}
	require.Len(t, out, 4)
	return out
}

// What the README begins with works for somebody who has Go and nothing else, pasted line by
// line into an empty directory: but for where the module comes from, which is this checkout.
// The text below the commands is what they print.
func TestNewcomersPath(t *testing.T) {
	blocks := readmeBlocks(t)
	require.Equal(t, []string{"sh", "go", "sh", "text"}, []string{blocks[0][0], blocks[1][0], blocks[2][0], blocks[3][0]})
	example, err := os.ReadFile("../../examples/hello/main.go")
	require.NoError(t, err)
	require.Equal(t, string(example), blocks[1][1], "the README shows another program than examples/hello")

	root, err := filepath.Abs("../..")
	require.NoError(t, err)
	dir := t.TempDir()
	// What is not in the cache yet is fetched now, so that the module proxy need not be asked
	// later: it has no blockseal of version v0.0.0.
	warm := exec.Command("go", "mod", "graph")
	warm.Dir = root
	require.NoError(t, warm.Run())
	require.NotEmpty(t, goList(t, "-deps", "./block", "./vault/local"))
	run := func(name string, args ...string) string {
		cmd := exec.Command(name, args...)
		cmd.Dir = dir
		// A workspace or flags of whoever runs this are not a newcomer's.
		cmd.Env = append(os.Environ(), "GOWORK=off", "GOFLAGS=", "GOPROXY=off")
		var stderr strings.Builder
		cmd.Stderr = &stderr
		out, err := cmd.Output()
		require.NoError(t, err, "%s %s: %s", name, strings.Join(args, " "), stderr.String())
		return string(out)
	}
	var printed strings.Builder
	lines := func(block string) {
		for line := range strings.Lines(block) {
			line = strings.TrimSpace(line)
			switch f := strings.Fields(line); {
			case line == "mkdir hello && cd hello":
				dir = filepath.Join(dir, "hello")
				require.NoError(t, os.Mkdir(dir, 0o700))
			case strings.HasPrefix(line, "go mod init "):
				run(f[0], f[1:]...)
				// From here on the module is the checkout, with its checksums.
				run("go", "mod", "edit", "-replace=github.com/blockseal/blockseal="+root)
				sums, err := os.ReadFile(filepath.Join(root, "go.sum"))
				require.NoError(t, err)
				require.NoError(t, os.WriteFile(filepath.Join(dir, "go.sum"), sums, 0o600))
			case strings.HasPrefix(line, "go get "):
				for i, arg := range f {
					if at, ok := strings.CutSuffix(arg, "@latest"); ok {
						f[i] = at + "@v0.0.0"
					}
				}
				run(f[0], f[1:]...)
			case line == "go run .":
				printed.WriteString(run(f[0], f[1:]...))
			default:
				t.Fatalf("the README has a line that this test does not know: %q", line)
			}
		}
	}
	lines(blocks[0][1])
	require.NoError(t, os.WriteFile(filepath.Join(dir, "main.go"), []byte(blocks[1][1]), 0o600))
	lines(blocks[2][1])
	require.Equal(t, blocks[3][1], printed.String())
}

// The program that newcomers copy ignores no error: nothing that returns one is called as a
// statement or deferred as it is, and none is assigned to the blank name.
func TestTheFirstProgramIgnoresNoError(t *testing.T) {
	code := readmeBlocks(t)[1][1]
	require.NotRegexp(t, `(?m)_ =|, _ :?=`, code)
	for line := range strings.Lines(code) {
		line = strings.TrimSpace(line)
		if strings.HasPrefix(line, "fmt.Print") || strings.HasPrefix(line, "log.Fatal(") ||
			strings.HasPrefix(line, "defer func() { err = errors.Join(err, ") {
			continue
		}
		require.NotRegexp(t, `^(defer )?[a-z]+(\.[A-Z]\w*)?\(.*\)( //.*)?$`, line, "an error is ignored")
	}
	require.Contains(t, code, "\nimport (\n")
	require.NotContains(t, code, "internal")
}

// Who reads which Go is needed reads what go.mod says.
func TestGoVersionIsThatOfGoMod(t *testing.T) {
	mod, err := os.ReadFile("../../go.mod")
	require.NoError(t, err)
	m := regexp.MustCompile(`(?m)^go (\d+\.\d+)(\.\d+)$`).FindStringSubmatch(string(mod))
	require.NotNil(t, m)
	bench, err := os.ReadFile("../../bench/go.mod")
	require.NoError(t, err)
	require.Contains(t, string(bench), "\ngo "+m[1]+m[2]+"\n")
	for _, page := range []string{"README.md", "CONTRIBUTING.md", "docs/dependencies.md"} {
		b, err := os.ReadFile("../../" + page)
		require.NoError(t, err)
		require.Contains(t, string(b), "Go "+m[1]+m[2], page)
	}
}
