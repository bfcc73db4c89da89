package main

import (
	"bytes"
	"context"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/stretchr/testify/require"
)

const stub = `package stub

import (
	"os"
	"testing"
)

func BenchmarkSeal(b *testing.B) {
	for _, impl := range []string{"floor", "blockseal"} {
		b.Run("size=512/impl="+impl, func(b *testing.B) {
			for b.Loop() {
			}
		})
	}
}

func BenchmarkBroken(b *testing.B) {
	if testing.Short() {
		b.Skip("short")
	}
	b.Fatal("it broke in", os.TempDir())
}

func BenchmarkOther(b *testing.B) {
	for b.Loop() {
	}
}
`

// module makes a module with a few benchmarks, one of which fails unless -short is given.
func module(t *testing.T) string {
	t.Helper()
	dir := t.TempDir()
	require.NoError(t, os.WriteFile(filepath.Join(dir, "go.mod"), []byte("module example.com/stub\n\ngo 1.26\n"), 0o644))
	require.NoError(t, os.WriteFile(filepath.Join(dir, "stub_test.go"), []byte(stub), 0o644))
	return dir
}

func read(t *testing.T, parts ...string) string {
	t.Helper()
	b, err := os.ReadFile(filepath.Join(parts...))
	require.NoError(t, err)
	return string(b)
}

func TestRun(t *testing.T) {
	out := filepath.Join(t.TempDir(), "new", "dir")
	var stdout, progress bytes.Buffer
	require.NoError(t, run(context.Background(), []string{"-quick", "-rounds", "2", "-benchtime", "2x", "-out", out}, module(t), &stdout, &progress))

	raw := read(t, out, "raw.txt")
	for _, want := range []string{markQuick, "goos: ", "pkg: example.com/stub", "cpu: "} {
		require.Contains(t, raw, want)
	}
	require.Less(t, strings.Index(raw, "BenchmarkOther"), strings.Index(raw, markRound+"2"), "a round has them all")
	r := load(t, filepath.Join(out, "raw.txt"))
	require.Empty(t, r.failed)
	require.Len(t, r.get("Seal/size=512", ours, seconds), 2)
	require.Len(t, r.get("Other", "", seconds), 2)

	require.Contains(t, progress.String(), "5 of 6, round 2: BenchmarkBroken\n")
	machine := read(t, out, "machine.txt")
	for _, want := range []string{"cores", "go ", "date", "-quick -rounds 2 -benchtime 2x"} {
		require.Contains(t, machine, want)
	}
	require.Contains(t, read(t, out, "index.html"), "A quick run")
}

func TestRunWithAFailure(t *testing.T) {
	out := t.TempDir()
	var stdout, progress bytes.Buffer
	err := run(context.Background(), []string{"-rounds", "1", "-benchtime", "2x", "-out", out}, module(t), &stdout, &progress)
	require.ErrorContains(t, err, "Broken")
	raw := read(t, out, "raw.txt")
	require.Contains(t, raw, "it broke in")
	require.Contains(t, raw, markFailed+"BenchmarkBroken: exit status 1\n")
	require.Contains(t, raw, "BenchmarkOther", "the others still run")
	scratch := raw[strings.Index(raw, "it broke in ")+len("it broke in "):]
	scratch, _, _ = strings.Cut(scratch, "\n")
	require.Contains(t, scratch, "blockseal-report-")
	require.NoDirExists(t, scratch, "what benchmarks leave is removed")
	require.Contains(t, read(t, out, "index.html"), "in the raw results: Broken.")
}

func TestRunSome(t *testing.T) {
	out := t.TempDir()
	var stdout, progress bytes.Buffer
	require.NoError(t, run(context.Background(), []string{"-rounds", "1", "-benchtime", "2x", "-bench", "Seal/size=512/impl=floor", "-out", out}, module(t), &stdout, &progress))
	r := load(t, filepath.Join(out, "raw.txt"))
	require.Len(t, r.rows, 1)
	require.Equal(t, "floor", r.rows[0].impl)

	err := run(context.Background(), []string{"-bench", "None", "-out", out}, module(t), &stdout, &progress)
	require.ErrorContains(t, err, `no benchmark matches "None"`)
}

// watch cancels when something is said.
type watch struct {
	bytes.Buffer
	word   string
	cancel context.CancelFunc
}

func (w *watch) Write(p []byte) (int, error) {
	if strings.Contains(string(p), w.word) {
		w.cancel()
	}
	return w.Buffer.Write(p)
}

func TestRunInterrupted(t *testing.T) {
	ctx, cancel := context.WithCancel(context.Background())
	defer cancel()
	out := t.TempDir()
	var stdout bytes.Buffer
	err := run(ctx, []string{"-quick", "-rounds", "3", "-benchtime", "2x", "-out", out}, module(t), &stdout, &watch{word: "round 2: BenchmarkSeal", cancel: cancel})
	require.ErrorContains(t, err, "interrupted")
	raw := read(t, out, "raw.txt")
	require.Contains(t, raw, markInterrupted+" after 3 of 9\n")
	require.NotContains(t, raw, markFailed, "to be stopped is no failure")
	require.Len(t, load(t, filepath.Join(out, "raw.txt")).get("Other", "", seconds), 1)
	require.Contains(t, read(t, out, "index.html"), "was interrupted")
}

func TestRunDoesNotBuild(t *testing.T) {
	dir := module(t)
	require.NoError(t, os.WriteFile(filepath.Join(dir, "bad_test.go"), []byte("package stub\n\nvar x int = \"\"\n"), 0o644))
	var out bytes.Buffer
	err := run(context.Background(), []string{"-out", t.TempDir()}, dir, &out, &out)
	require.ErrorContains(t, err, "build the benchmarks")
	require.ErrorContains(t, err, "bad_test.go:3")
}

func TestWhatWaitsForTheDiskTakesLonger(t *testing.T) {
	for _, c := range []struct {
		options    options
		name, want string
	}{
		{options{benchtime: "300ms"}, "BenchmarkPutSync", "1.5s"},
		{options{benchtime: "300ms"}, "BenchmarkPutNoSync", "300ms"},
		{options{benchtime: "100x"}, "BenchmarkPutSync", "100x"},
		{options{benchtime: "50ms", quick: true}, "BenchmarkPutSync", "50ms"},
	} {
		require.Equal(t, c.want, (&runner{options: c.options}).timeFor(c.name))
	}
}
