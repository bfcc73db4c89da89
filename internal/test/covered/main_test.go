package main

import (
	"bytes"
	"os"
	"path/filepath"
	"testing"

	"github.com/stretchr/testify/require"
)

func TestRun(t *testing.T) {
	profile := filepath.Join(t.TempDir(), "cover.out")
	require.NoError(t, os.WriteFile(profile, []byte("mode: set\n"+
		"m/a/x.go:1.1,2.2 3 1\nm/a/x.go:3.1,4.2 1 0\nm/b/y.go:1.1,2.2 2 0\n"+
		"m/a/x.go:1.1,2.2 3 0\nm/b/y.go:1.1,2.2 2 1\n"), 0o600))
	var out bytes.Buffer
	require.ErrorContains(t, run(&out, []string{profile}, 90, true), "less than 90% of m/a")
	require.Equal(t, "m/a/x.go:3.1,4.2\n  75.0%      3 of     4 statements  m/a\n 100.0%      2 of     2 statements  m/b\n", out.String())
	require.NoError(t, run(&out, []string{profile}, 75, false))
	require.Error(t, run(&out, nil, 0, false))
	require.Error(t, run(&out, []string{"main.go"}, 0, false))
}
