package main

import (
	"bytes"
	"context"
	"testing"

	"github.com/stretchr/testify/require"
)

func TestDemonstration(t *testing.T) {
	var out bytes.Buffer
	require.NoError(t, run(context.Background(), []string{"-rows", "600"}, &out))
	for _, want := range []string{"600 rows with two indexes", "scanned       600 rows", "key revoked", "inaccessible", "the same write succeeds"} {
		require.Contains(t, out.String(), want)
	}
}
