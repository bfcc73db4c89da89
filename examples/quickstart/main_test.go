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

func TestRun(t *testing.T) {
	tmp := t.TempDir()
	t.Setenv("TMPDIR", tmp)
	tree := t.TempDir()
	require.NoError(t, os.Mkdir(filepath.Join(tree, "sub"), 0o700))
	for name, content := range map[string]string{
		"empty":     "",
		"small":     "a line of text that is long enough to be looked for on the disk afterwards\n",
		"sub/block": strings.Repeat("exactly one block of sixteen.. \n", blockSize/32),
		"sub/large": strings.Repeat("a good deal more than one block\n", 3*blockSize/32+1),
	} {
		require.NoError(t, os.WriteFile(filepath.Join(tree, name), []byte(content), 0o600))
	}
	var out bytes.Buffer
	require.NoError(t, run(context.Background(), []string{"-in", tree}, &out, os.Stderr))
	for _, want := range []string{
		"sealed   4 files as 7 blocks",
		"read     4 files back, every SHA-256 as it was",
		"pieces of plaintext: none",
		"disabled the key: the store is Inaccessible",
		"key disabled",
		"enabled the key and revalidated: the store is Available",
		"vault calls",
	} {
		require.Contains(t, out.String(), want)
	}
	require.NotContains(t, out.String(), "\r", "no progress bar where there is no terminal")
	left, err := os.ReadDir(tmp)
	require.NoError(t, err)
	require.Empty(t, left, "nothing is left behind")
}

// The search would find plaintext if there were any.
func TestSearchFindsPlaintext(t *testing.T) {
	d := &demo{out: &bytes.Buffer{}, dir: t.TempDir(), in: t.TempDir()}
	text := []byte(strings.Repeat("some text that must not be on the disk. ", 4))
	require.NoError(t, os.WriteFile(filepath.Join(d.in, "f"), text, 0o600))
	d.files = []file{{name: "f"}}
	require.NoError(t, d.searchDisk(t.Context()))
	require.NoError(t, os.WriteFile(filepath.Join(d.dir, "leak"), append([]byte("..."), text...), 0o600))
	require.ErrorContains(t, d.searchDisk(t.Context()), "holds plaintext of f")
}

func TestBadUse(t *testing.T) {
	file := filepath.Join(t.TempDir(), "file")
	require.NoError(t, os.WriteFile(file, nil, 0o600))
	for _, c := range []struct {
		args []string
		want string
	}{
		{[]string{"-no-such-flag"}, "flag provided but not defined"},
		{[]string{"extra"}, `unexpected argument "extra"`},
		{[]string{"-in", filepath.Join(t.TempDir(), "missing")}, "no such file or directory"},
		{[]string{"-in", file}, "is not a directory"},
		{[]string{"-in", t.TempDir()}, "has no files"},
	} {
		var out, errs bytes.Buffer
		err := run(context.Background(), c.args, &out, &errs)
		require.ErrorContains(t, err, c.want)
	}
}
