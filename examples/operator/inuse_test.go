package main

import (
	"os"
	"strings"
	"testing"

	"github.com/cockroachdb/pebble/v2/vfs"
	"github.com/stretchr/testify/require"

	"github.com/blockseal/blockseal/block"
	"github.com/blockseal/blockseal/internal/engine/pebble"
)

// A key version that a known store needs is not taken away, in any of the ways.
func TestGuard(t *testing.T) {
	t.Parallel()
	g := newRig(t)
	dir := g.store("s", 1)
	for _, args := range [][]string{
		{"key", "disable", "customer"}, {"key", "expire", "customer"},
		{"key", "expire", "customer", "--at", "2020-01-01"}, {"key", "delete", "customer"},
	} {
		g.fails(exitRefused, "store "+dir+" needs version", args...)
		require.Contains(t, g.stderr, "the keyring")
	}
	require.Equal(t, "usable", g.object("key", "show", "customer")["versions"].([]any)[0].(map[string]any)["state"])
	g.ok("key", "expire", "customer", "--at", "90d") // not yet
	g.ok("key", "expire", "customer", "--at", "never")

	// The version before is another one, once the store has moved.
	old := version(g.list("key", "list")[0])
	g.ok("key", "rotate", "customer")
	g.fails(exitRefused, "needs version "+old, "key", "disable", "customer/"+old)
	g.ok("key", "disable", "customer") // the new version, which nothing needs yet
	g.ok("key", "enable", "customer")
	g.ok("store", "rotate", "kek", dir)
	g.fails(exitRefused, "needs version", "key", "disable", "customer")
	g.ok("key", "disable", "customer/"+old)
	g.ok("key", "delete", "customer", "--force")
	require.Contains(t, g.stderr, "forced: store "+dir)
	g.fails(exitRefused, "is in use", "key", "purge", "customer")
	g.ok("key", "recover", "customer")
}

func version(key any) string {
	return key.(map[string]any)["current"].(map[string]any)["version"].(string)
}

// A store that cannot be looked at may need the key.
func TestGuardIsCareful(t *testing.T) {
	t.Parallel()
	g := newRig(t)
	dir := g.store("s", 1)
	g.ok("key", "create", "next")
	g.ok("store", "rotate", "change-kek", dir, "--to-key", "next")
	g.ok("key", "disable", "customer")
	g.ok("key", "enable", "customer")

	// As if it were open in another process.
	lock, err := pebble.LockDir(dir, vfs.Default, false)
	require.NoError(t, err)
	g.fails(exitRefused, block.ErrLocked.Error(), "key", "disable", "customer")
	g.fails(exitBusy, block.ErrLocked.Error(), "store", "state", dir)
	g.fails(exitBusy, block.ErrLocked.Error(), "store", "inspect", dir)
	require.NoError(t, lock.Close())

	require.NoError(t, os.Rename(dir, dir+"-moved"))
	g.fails(exitRefused, "vault forget-store", "key", "disable", "customer")
	g.fails(exitRefused, "needs version", "key", "disable", "next", "--store", dir+"-moved")
	g.ok("vault", "forget-store", dir)
	g.fails(exitFailure, "no known store", "vault", "forget-store", dir)
	g.fails(exitRefused, "needs version", "key", "disable", "next", "--store", dir+"-moved")
	g.ok("key", "disable", "next") // nobody knows of the store any more

	g.file("vault.stores", "no JSON\n")
	g.fails(exitFailure, "mend it", "key", "disable", "customer")
}

// A copy needs its key as a store does.
func TestGuardKnowsCopies(t *testing.T) {
	t.Parallel()
	g := newRig(t)
	dir, copied := g.store("s", 1), g.path("copy")
	g.ok("store", "checkpoint", dir, copied)
	g.ok("key", "create", "next")
	require.NoError(t, os.Rename(copied, copied+"-away"))
	out := g.ok("store", "rotate", "change-kek", dir, "--to-key", "next")
	require.Contains(t, out, "still on ")
	require.Contains(t, out, "is not at "+copied)
	require.Contains(t, out, "still needed ")
	g.fails(exitRefused, "the copy "+copied, "key", "disable", "customer")

	require.NoError(t, os.Rename(copied+"-away", copied))
	g.ok("store", "copies", "rewrap", copied, "--to-key", "next")
	require.True(t, strings.HasPrefix(strings.SplitAfter(g.object("store", "inspect", copied)["kek"].(string), "/keys/")[1], "next/"))
	copies := g.list("store", "copies", "list", dir)
	require.Len(t, copies, 1)
	instance := copies[0].(map[string]any)["instance"].(string)
	g.ok("store", "copies", "forget", dir, instance)
	g.fails(exitFailure, "remembers no copy", "store", "copies", "forget", dir, instance)
	g.ok("key", "disable", "customer")

	// The copy becomes a store of its own, which is known from then on.
	g.fails(exitRefused, "Inaccessible", "store", "state", copied)
	g.ok("store", "revalidate", copied)
	require.Equal(t, "record a", g.ok("store", "get", copied, "a"))
	require.Equal(t, dir+"\n"+copied+"\n", g.ok("vault", "stores"))
}
