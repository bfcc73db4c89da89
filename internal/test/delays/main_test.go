package main

import (
	"bytes"
	"flag"
	"os/exec"
	"path/filepath"
	"testing"

	"github.com/stretchr/testify/require"
)

var long = flag.Bool("delays.long", false, "build the standard library with delays, and run tests on it: about two minutes")

// The places are those of the installed Go, and what is put there is Go.
func TestOverlay(t *testing.T) {
	dir := t.TempDir()
	overlay, err := writeOverlay(t.Context(), dir)
	require.NoError(t, err)
	// Type-checked without being built, the packages that have it.
	out, err := exec.CommandContext(t.Context(), "go", "list", "-export=false", "-overlay", overlay, "-f", "{{.GoFiles}}", "sync", "internal/sync", "runtime").CombinedOutput()
	require.NoError(t, err, string(out))
	require.Equal(t, 3, bytes.Count(out, []byte("delays.go")), string(out))
}

func TestPatch(t *testing.T) {
	const text = "package p\n\nfunc f(x int) {\n\tif x > 0 {\n\t\treturn\n\t}\n}\n\nfunc g() int {\n\treturn 1\n}\n"
	for _, c := range []struct {
		name string
		p    patch
		want string
	}{
		{"before", patch{function: "func g("}, "func g() int {\n\tdelayAtRandom()\n\treturn 1\n}\n"},
		{"after", patch{function: "func f(", after: true}, "\t\treturn\n\t}\n\tdelayAtRandom()\n}\n\nfunc g"},
	} {
		t.Run(c.name, func(t *testing.T) {
			got, err := c.p.apply(text)
			require.NoError(t, err)
			require.Contains(t, got, c.want)
		})
	}
	_, err := patch{file: "p.go", function: "func h("}.apply(text)
	require.ErrorContains(t, err, `p.go of this Go has no "func h("`)
}

// What holds whoever runs first passes, also in a bubble; what does not is found.
func TestDelays(t *testing.T) {
	if !*long {
		t.Skip("builds a standard library: -delays.long")
	}
	var out bytes.Buffer
	require.NoError(t, run(t.Context(), []string{"-runs", "4", "-run", "Holds$", "./testdata/order"}, &out), out.String())
	require.Contains(t, out.String(), "4 runs of 1 packages: none failed")

	out.Reset()
	err := run(t.Context(), []string{"-runs", "4", "-o", filepath.Join(t.TempDir()), "-run", "TestDoesNotHold$", "./testdata/order"}, &out)
	require.ErrorContains(t, err, "of 4 runs failed")
	require.Contains(t, out.String(), "a millisecond late")
	require.Contains(t, out.String(), "again: go run ./internal/test/delays -runs ")
}
