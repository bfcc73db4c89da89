package main

import (
	"bytes"
	"context"
	"os"
	"path/filepath"
	"testing"

	"github.com/stretchr/testify/require"
)

func TestMain(m *testing.M) {
	child()
	os.Exit(m.Run())
}

func TestSoak(t *testing.T) {
	var out bytes.Buffer
	file := filepath.Join(t.TempDir(), "result.md")
	require.NoError(t, run(context.Background(), []string{"-for", "2s", "-o", file}, &out), out.String())
	require.Contains(t, out.String(), "Nothing was lost")
	written, err := os.ReadFile(file)
	require.NoError(t, err)
	require.Equal(t, out.String(), string(written))
}
