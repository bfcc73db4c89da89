package main

import (
	"os"
	"path/filepath"
	"testing"

	"github.com/stretchr/testify/require"
)

// A copy is copied elsewhere whole, or not at all.
func TestCopyACopy(t *testing.T) {
	t.Parallel()
	g := newRig(t)
	dir := g.store("s", 3)
	g.ok("store", "checkpoint", dir, g.path("copy"))
	require.Contains(t, g.ok("store", "copies", "copy", g.path("copy"), g.path("elsewhere")), "which needs ")
	g.ok("store", "revalidate", g.path("elsewhere"))
	require.Equal(t, "record a", g.ok("store", "get", g.path("elsewhere"), "a"))
	g.ok("store", "verify", g.path("elsewhere"))

	g.fails(exitFailure, "file exists", "store", "copies", "copy", g.path("copy"), g.path("elsewhere"))
	markers, err := filepath.Glob(filepath.Join(g.path("copy"), "marker.manifest.*"))
	require.NoError(t, err)
	require.Len(t, markers, 1)
	require.NoError(t, os.Remove(markers[0]))
	g.fails(exitVerification, filepath.Base(markers[0])+" is missing", "store", "copies", "copy", g.path("copy"), g.path("nowhere"))
	require.NoDirExists(t, g.path("nowhere"))
}
