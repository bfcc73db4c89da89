package main

import (
	"testing"

	"github.com/stretchr/testify/require"
)

// A version that only records of a copy are wrapped by is not taken away either.
func TestGuardKnowsTheRecordsOfCopies(t *testing.T) {
	t.Parallel()
	g := newRig(t)
	dir, copied := g.store("s", 1, "--wrapping", "kek"), g.path("copy")
	old := version(g.list("key", "list")[0])
	g.ok("key", "rotate", "customer")
	g.ok("store", "rotate", "kek", dir, "--no-rewrap")
	g.ok("store", "checkpoint", dir, copied)
	g.ok("store", "rewrap", dir)
	g.fails(exitRefused, "needs version "+old+": the copy "+copied, "key", "disable", "customer/"+old)
	copies := g.list("store", "copies", "list", dir)
	require.Len(t, copies[0].(map[string]any)["keks"], 2)
	require.Equal(t, false, copies[0].(map[string]any)["current"])
	require.Contains(t, g.ok("store", "copies", "list", dir), "still on ")

	g.ok("store", "rotate", "kek", dir)
	require.Equal(t, true, g.list("store", "copies", "list", dir)[0].(map[string]any)["current"])
	g.ok("key", "disable", "customer/"+old)
	g.ok("store", "revalidate", copied)
	require.Equal(t, "record a", g.ok("store", "get", copied, "a"))
}
