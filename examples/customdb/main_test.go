package main

import (
	"bytes"
	"context"
	"strings"
	"testing"
	"unicode/utf8"

	"github.com/stretchr/testify/require"
)

func TestDemonstration(t *testing.T) {
	t.Setenv("COLUMNS", "60")
	var out bytes.Buffer
	require.NoError(t, run(context.Background(), []string{"-rows", "600"}, &out))
	for _, want := range []string{"600 rows with two indexes", "scanned       600 rows", "key revoked", "inaccessible", "the same write"} {
		require.Contains(t, out.String(), want)
	}
	for line := range strings.Lines(out.String()) {
		require.LessOrEqual(t, utf8.RuneCountInString(strings.TrimSuffix(line, "\n")), 60, line)
	}
}
