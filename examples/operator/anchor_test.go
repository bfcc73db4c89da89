package main

import (
	"os"
	"path/filepath"
	"testing"

	"github.com/stretchr/testify/require"
)

// A store that was put back is refused with its anchor, and accepted when somebody says so,
// which is recorded; what the anchor held is kept beside it.
func TestAnchor(t *testing.T) {
	t.Parallel()
	g := newRig(t)
	dir, older := g.path("s"), g.path("older")
	require.NoError(t, os.Mkdir(g.path("anchor"), 0o700))
	file := g.path("anchor/file")
	put := func(text string) {
		t.Helper()
		g.stdin = text
		g.ok("store", "put", dir, "a", "--anchor", file)
	}
	g.fails(exitFailure, "there is no "+file, "anchor", "show", file)
	g.ok("store", "init", dir, "--key", "customer", "--anchor", file)
	put("one")
	require.NoError(t, os.CopyFS(older, os.DirFS(dir)))
	put("two")
	kept := g.object("anchor", "show", file)
	require.Equal(t, g.object("store", "inspect", dir)["generation"], kept["generation"])
	require.Equal(t, g.object("store", "inspect", dir)["sequence"], kept["sequence"])

	require.NoError(t, os.Rename(dir, dir+".newer"))
	require.NoError(t, os.Rename(older, dir))
	g.fails(exitVerification, "was expected", "store", "get", dir, "a", "--anchor", file)
	g.fails(exitUsage, "give --yes", "anchor", "accept", dir, file)
	g.typed = []string{"no"}
	g.fails(exitRefused, "nothing was changed", "anchor", "accept", dir, file)
	require.Equal(t, kept, g.object("anchor", "show", file))
	g.fails(exitVerification, "was expected", "store", "get", dir, "a", "--anchor", file)

	g.env["BLOCKSEAL_AUDIT"] = g.path("audit")
	g.typed = []string{"yes"}
	g.ok("anchor", "accept", dir, file)
	require.Contains(t, g.stderr, "the anchor holds fingerprint ")
	require.Contains(t, g.ok("audit", "show", g.path("audit")), "acceptStore")
	require.Equal(t, "one", g.ok("store", "get", dir, "a", "--anchor", file))
	aside, err := filepath.Glob(file + ".2*")
	require.NoError(t, err)
	require.Len(t, aside, 1)
	require.Equal(t, kept, g.object("anchor", "show", aside[0]))

	require.NoError(t, os.WriteFile(file, []byte("damaged"), 0o600))
	g.fails(exitVerification, file, "anchor", "show", file)
	g.fails(exitVerification, file, "store", "get", dir, "a", "--anchor", file)
	g.ok("anchor", "accept", dir, file, "--yes")
	require.Equal(t, "one", g.ok("store", "get", dir, "a", "--anchor", file))

	g.fails(exitFailure, "is the disk mounted?", "store", "get", dir, "a", "--anchor", g.path("unmounted/file"))
	g.fails(exitFailure, "is the disk mounted?", "anchor", "accept", dir, g.path("unmounted/file"), "--yes")
	g.fails(exitUsage, "expect-generation", "store", "get", dir, "a", "--anchor", file, "--expect-generation", "1")
}
