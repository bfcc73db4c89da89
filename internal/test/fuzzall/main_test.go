package main

import (
	"bytes"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/stretchr/testify/require"
)

// A module of its own with a target that fails and one that does not.
func TestCampaign(t *testing.T) {
	dir := t.TempDir()
	write := func(name, content string) {
		require.NoError(t, os.WriteFile(filepath.Join(dir, name), []byte(content), 0o600))
	}
	write("go.mod", "module m\n\ngo 1.26\n")
	write("m_test.go", `package m

import "testing"

func FuzzGood(f *testing.F) { f.Add("x"); f.Fuzz(func(t *testing.T, s string) {}) }

func FuzzBad(f *testing.F) {
	f.Add("x")
	f.Fuzz(func(t *testing.T, s string) {
		if s != "x" {
			t.Fatal("found it")
		}
	})
}
`)
	t.Chdir(dir)
	var out bytes.Buffer
	err := campaign(t.Context(), &out, "./...", "", "100x", 0)
	require.ErrorContains(t, err, "findings in FuzzBad", &out)
	require.Regexp(t, `m +FuzzGood +[1-9]\d* .*none`, out.String())
	require.Contains(t, out.String(), "found it")
	require.Contains(t, out.String(), "2 targets, ")
	require.Error(t, campaign(t.Context(), &out, "./...", "Nothing", "1x", 0))
	write("broken_test.go", "package m\n\nvar x = y\n")
	require.Error(t, campaign(t.Context(), &out, "./...", "", "1x", 0), "tests that do not compile are a failure")
}

func TestKeepShortest(t *testing.T) {
	from, to := t.TempDir(), filepath.Join(t.TempDir(), "a", "b")
	for name, size := range map[string]int{"long": 100, "short": 1, "middle": 10, "huge": maxKept + 1} {
		require.NoError(t, os.WriteFile(filepath.Join(from, name), []byte(strings.Repeat("x", size)), 0o600))
	}
	kept := func() (names []string) {
		list, err := os.ReadDir(to)
		require.NoError(t, err)
		for _, e := range list {
			names = append(names, e.Name())
		}
		return names
	}
	require.NoError(t, keepShortest(from, to, 2))
	require.Equal(t, []string{"middle", "short"}, kept())
	require.NoError(t, keepShortest(from, to, 2))
	require.Equal(t, []string{"middle", "short"}, kept(), "what is kept counts")
	require.NoError(t, keepShortest(from, to, 9))
	require.Equal(t, []string{"long", "middle", "short"}, kept())
	require.NoError(t, keepShortest(filepath.Join(from, "none"), to, 9))
}
