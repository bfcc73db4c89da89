package main

import (
	"bytes"
	"context"
	"errors"
	"os"
	"path/filepath"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
)

func TestMain(m *testing.M) {
	child()
	os.Exit(m.Run())
}

func TestSoak(t *testing.T) {
	var out bytes.Buffer
	file := filepath.Join(t.TempDir(), "result.md")
	err := errTooShort
	for length := 2 * time.Second; errors.Is(err, errTooShort) && length < time.Minute; length *= 2 { // the machine may be busy
		out.Reset()
		err = run(context.Background(), []string{"-for", length.String(), "-o", file}, &out)
	}
	require.NoError(t, err, out.String())
	require.Contains(t, out.String(), "Nothing was lost")
	written, err := os.ReadFile(file)
	require.NoError(t, err)
	require.Equal(t, out.String(), string(written))
}
