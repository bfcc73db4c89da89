package main

import (
	"bytes"
	"context"
	"flag"
	"html"
	"io"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/stretchr/testify/require"
)

func TestFlags(t *testing.T) {
	o, err := parseFlags(nil, nil)
	require.NoError(t, err)
	require.Equal(t, options{rounds: 5, benchtime: "300ms", bench: ".", out: filepath.Join("results", "latest")}, o)

	o, err = parseFlags([]string{"-quick", "-in", "a", "-in", "b"}, nil)
	require.NoError(t, err)
	require.Equal(t, 1, o.rounds)
	require.Equal(t, "50ms", o.benchtime)
	require.Equal(t, []string{"a", "b"}, o.in)

	o, err = parseFlags([]string{"-quick", "-rounds", "2", "-benchtime", "10x"}, nil)
	require.NoError(t, err)
	require.Equal(t, 2, o.rounds, "what is given is not overruled")
	require.Equal(t, "10x", o.benchtime)

	for _, args := range [][]string{{"-rounds", "0"}, {"-benchtime", "0s"}, {"-benchtime", "0x"}, {"-benchtime", "soon"}, {"-bench", "("}, {"x"}, {"-none"}} {
		_, err := parseFlags(args, nil)
		require.ErrorIs(t, err, errUsage, args)
	}
	var help bytes.Buffer
	_, err = parseFlags([]string{"-h"}, &help)
	require.ErrorIs(t, err, flag.ErrHelp)
	require.Contains(t, help.String(), "-benchtime")
}

// report runs the program on raw output and returns its page.
func report(t *testing.T, files ...string) (page, stdout string, err error) {
	t.Helper()
	dir := t.TempDir()
	args := []string{"-out", dir}
	for _, f := range files {
		args = append(args, "-in", f)
	}
	var out, progress bytes.Buffer
	err = run(context.Background(), args, ".", &out, &progress)
	require.Empty(t, progress.String(), "nothing runs")
	b, readErr := os.ReadFile(filepath.Join(dir, "index.html"))
	require.NoError(t, readErr)
	return string(b), out.String(), err
}

func TestPageFromRawOutput(t *testing.T) {
	page, stdout, err := report(t, "testdata/full.txt")
	require.NoError(t, err)
	require.Contains(t, stdout, "0 without data")
	r := load(t, "testdata/full.txt")
	for _, w := range r.rows {
		require.Contains(t, page, "<td>"+html.EscapeString(w.name)+"</td><td>"+html.EscapeString(w.impl)+"</td>")
	}
	for _, g := range judge(r) {
		for _, v := range g.Verdicts {
			require.Contains(t, page, html.EscapeString(v.Label))
		}
	}
	require.Equal(t, len(charts()), strings.Count(page, "data:image/png;base64,"))
	require.Contains(t, page, "Rounds: 3.")
	require.NotContains(t, page, "A quick run")
	// Complete in itself.
	for _, outside := range []string{"http://", "https://", "<script", "<link", "@import"} {
		require.NotContains(t, page, outside)
	}
}

func TestPageSaysWhatIsAmiss(t *testing.T) {
	page, _, err := report(t, "testdata/partial.txt")
	require.ErrorContains(t, err, "failed: Scan")
	for _, want := range []string{"A quick run", "was interrupted", "These benchmarks failed; their output is in the raw results: Scan.",
		"could not be read: 1", "Not drawn, for want of data:", "put.png", "SealWrapped/size=512 tink", "there is no machine.txt",
		"Of&lt;script&gt;alert(1)&lt;/script&gt;/a=&amp;b", "3.50 sheep/op", `<td class="not-met">not met</td>`, `<td class="no-data">no data</td>`} {
		require.Contains(t, page, want)
	}
	require.NotContains(t, page, "<script")
}

// What was measured by itself is on the same page, with its charts.
func TestPageHasWhatWasMeasuredApart(t *testing.T) {
	dir := t.TempDir()
	require.NoError(t, run(t.Context(), []string{"-out", dir, "-in", "testdata/full.txt"}, "..", io.Discard, io.Discard))
	page, err := os.ReadFile(filepath.Join(dir, "index.html"))
	require.NoError(t, err)
	for _, want := range []string{"On PostgreSQL, beside plain pgx", "raising the floor under 32 writers", "Many stores in one DB", "bytes of memory of an open store"} {
		require.Contains(t, string(page), want)
	}
	require.FileExists(t, filepath.Join(dir, "postgres.png"))
	require.FileExists(t, filepath.Join(dir, "tenants.png"))
}

func TestSeveralInputs(t *testing.T) {
	dir := t.TempDir()
	var files []string
	for _, name := range []string{"a", "b"} {
		require.NoError(t, os.MkdirAll(filepath.Join(dir, name), 0o755))
		f := filepath.Join(dir, name, "raw.txt")
		require.NoError(t, os.WriteFile(f, []byte("BenchmarkX/impl=blockseal-2 1 5 ns/op\n"), 0o644))
		require.NoError(t, os.WriteFile(filepath.Join(dir, name, "machine.txt"), []byte("cpu  <"+name+">\n"), 0o644))
		files = append(files, f)
	}
	page, _, err := report(t, files...)
	require.NoError(t, err)
	require.Contains(t, page, "Rounds: 2.")
	require.Contains(t, page, "&lt;a&gt;")
	require.Contains(t, page, "&lt;b&gt;")
}

func TestInputErrors(t *testing.T) {
	var out bytes.Buffer
	err := run(context.Background(), []string{"-out", t.TempDir(), "-in", "testdata/none.txt"}, ".", &out, &out)
	require.ErrorIs(t, err, os.ErrNotExist)

	empty := filepath.Join(t.TempDir(), "empty.txt")
	require.NoError(t, os.WriteFile(empty, []byte("PASS\n"), 0o644))
	page, _, err := report(t, empty)
	require.ErrorContains(t, err, "no results")
	require.Contains(t, page, "0 targets met, 0 within the noise, 0 not met, 72 without data")
}
