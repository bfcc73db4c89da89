package main

import (
	"encoding/json"
	"os"
	"strings"
	"testing"

	"github.com/cockroachdb/pebble/v2/vfs"
	"github.com/stretchr/testify/require"

	"github.com/blockseal/blockseal/block"
	"github.com/blockseal/blockseal/internal/catalogue"
	"github.com/blockseal/blockseal/internal/engine"
	"github.com/blockseal/blockseal/internal/engine/pebble"
	"github.com/blockseal/blockseal/internal/test/unclose"
)

// tenants makes a directory with stores of these names, each on a key of its own, with a block.
func (g *rig) tenants(dir string, names ...string) string {
	g.t.Helper()
	for i, name := range names {
		key := "tenant-" + string(rune('a'+i))
		if status, _ := g.run("key", "show", key); status != exitOK {
			g.ok("key", "create", key)
		}
		g.ok("store", "create", g.path(dir), name, "--key", key, "--identity", "store")
		g.stdin = "of " + name
		g.ok("store", "put", g.path(dir), "block", "--store", name, "--identity", "store")
	}
	return g.path(dir)
}

// field returns a member of each object of a list, by the objects' names.
func field(list []any, member string) map[string]any {
	out := map[string]any{}
	for _, v := range list {
		out[v.(map[string]any)["name"].(string)] = v.(map[string]any)[member]
	}
	return out
}

// A directory has many stores; each command is about the one that is named.
func TestStoresOfADirectory(t *testing.T) {
	t.Parallel()
	g := newRig(t)
	dir := g.tenants("s", "contoso", "fabrikam", "a\nb")
	list := g.list("store", "list", dir)
	require.Len(t, list, 3)
	oneStyle(t, "store list", list)
	for name, kek := range field(list, "kek") {
		require.Contains(t, kek, "/keys/tenant-", name)
		require.Equal(t, "present", field(list, "state")[name])
		require.Len(t, field(list, "id")[name], 32)
		require.Equal(t, "of "+name, g.ok("store", "get", dir, "block", "--store", name, "--identity", "store"))
	}
	out := g.ok("store", "list", dir)
	require.Contains(t, out, `"a\nb"`)
	require.Equal(t, 4, strings.Count(out, "\n"), out)

	// What does not say which one does nothing.
	for _, args := range [][]string{
		{"state"}, {"verify"}, {"inspect"}, {"usage"}, {"get", "block"}, {"put", "block"}, {"rotate", "kek"}, {"rotate", "change-kek", "--to-key", "x"},
		{"erase"}, {"revalidate"}, {"relocate"}, {"move", "export"},
	} {
		n := 1
		if len(args) > 1 && (args[0] == "rotate" || args[0] == "move") {
			n = 2
		}
		args = append(append([]string{"store"}, args[:n]...), append([]string{dir}, args[n:]...)...)
		g.fails(exitUsage, "has 3 stores: give --store NAME", args...)
	}
	g.fails(exitFailure, `has no store "nobody"`, "store", "state", dir, "--store", "nobody")
	g.fails(exitFailure, "exists", "store", "create", dir, "contoso", "--key", "customer")
	g.fails(exitFailure, "store create makes another", "store", "init", dir, "--key", "customer")
	g.fails(exitUsage, "invalid name", "store", "create", dir, strings.Repeat("x", 256), "--key", "customer")
	g.fails(exitRefused, "key not found", "store", "create", dir, "litware", "--key", "nobody")
	require.Len(t, g.list("store", "list", dir), 3)

	require.Equal(t, "contoso", g.object("store", "state", dir, "--store", "contoso")["name"])
	require.EqualValues(t, 1, g.object("store", "inspect", dir, "--store", "fabrikam")["deks"])
	g.ok("key", "rotate", "tenant-a")
	g.ok("store", "rotate", "kek", dir, "--store", "contoso")
	g.ok("store", "rotate", "epoch", dir, "--store", "contoso")
	g.ok("store", "erase", dir, "--store", "contoso")
	g.ok("store", "verify", dir, "--store", "contoso")
	g.ok("anchor", "accept", dir, g.path("anchor"), "--store", "fabrikam", "--yes")
	g.ok("store", "state", dir, "--store", "fabrikam", "--anchor", g.path("anchor"))
	g.fails(exitVerification, "", "store", "state", dir, "--store", "contoso", "--anchor", g.path("anchor"))

	// A directory of one store is one with a name that need not be said.
	one := g.store("one", 1)
	require.Equal(t, map[string]any{"default": "present"}, field(g.list("store", "list", one), "state"))
	require.Equal(t, "record a", g.ok("store", "get", one, "a", "--store", "default"))
	g.fails(exitFailure, "not a blockseal store", "store", "list", g.path("vault"))
	g.fails(exitFailure, "no store", "store", "list", g.path("nowhere"))
	require.NoDirExists(t, g.path("nowhere"))
}

// One customer's no is nobody else's.
func TestOneStoreIsRevoked(t *testing.T) {
	t.Parallel()
	g := newRig(t)
	dir := g.tenants("s", "contoso", "fabrikam")
	g.fails(exitRefused, "store contoso in "+dir+" needs version", "key", "disable", "tenant-a")
	g.ok("key", "disable", "tenant-a", "--force")
	g.fails(exitRefused, "key disabled", "store", "get", dir, "block", "--store", "contoso", "--identity", "store")
	require.Equal(t, "of fabrikam", g.ok("store", "get", dir, "block", "--store", "fabrikam", "--identity", "store"))
	require.Len(t, g.list("store", "list", dir), 2, "it needs no key")
	g.ok("key", "enable", "tenant-a")
	require.Contains(t, g.ok("store", "revalidate", dir, "--store", "contoso", "--identity", "store"), "Available")
	g.ok("key", "disable", "customer", "--store", dir) // which none of them is on
}

// A store is dropped by whoever has written its name twice, or says so; the receipt is shown and kept.
func TestDropAStore(t *testing.T) {
	t.Parallel()
	g := newRig(t)
	dir := g.tenants("s", "contoso", "fabrikam", "\x1b[2Jlitware", "tailspin")
	g.fails(exitUsage, "give --yes", "store", "drop", dir, "contoso")
	g.typed = []string{"yes"}
	g.fails(exitRefused, "that is not the name", "store", "drop", dir, "contoso")
	require.Contains(t, g.asked[len(g.asked)-1], "type the name of the store")
	require.Contains(t, g.stderr, "about to drop the store contoso, id ")
	g.fails(exitFailure, `has no store "nobody"`, "store", "drop", dir, "nobody", "--yes")
	g.fails(exitUsage, "--store was given too", "store", "drop", dir, "contoso", "--store", "contoso", "--yes")
	kept := g.file("kept", "")
	g.fails(exitFailure, "already exists", "store", "drop", dir, "contoso", "--yes", "--receipt", kept)
	require.Len(t, g.list("store", "list", dir), 4, "nothing was dropped so far")

	// One who has revoked his key leaves: it takes no key, and no vault.
	id := field(g.list("store", "list", dir), "id")
	g.ok("key", "disable", "tenant-a", "--force")
	g.typed = []string{"contoso"}
	vault := g.env["BLOCKSEAL_VAULT"]
	delete(g.env, "BLOCKSEAL_VAULT")
	out := g.ok("store", "drop", dir, "contoso", "--receipt", g.path("receipt"))
	require.Contains(t, out, "dropped")
	require.Contains(t, out, "(whether it exists is not known)")
	g.env["BLOCKSEAL_VAULT"] = vault
	b, err := os.ReadFile(g.path("receipt"))
	require.NoError(t, err)
	var r block.Receipt
	require.NoError(t, json.Unmarshal(b, &r))
	require.True(t, r.Dropped)
	require.Equal(t, "contoso", r.Name)
	require.Equal(t, id["contoso"], r.Store.String())

	// With --open the vault says which versions there are; that it refuses keeps nothing.
	receipt := g.object("store", "drop", dir, "fabrikam", "--yes", "--open", "--identity", "store")
	require.Equal(t, true, receipt["dropped"])
	require.Equal(t, "exists", receipt["keys"].([]any)[0].(map[string]any)["state"])
	g.ok("key", "disable", "tenant-d", "--force")
	receipt = g.object("store", "drop", dir, "tailspin", "--yes", "--open", "--identity", "store")
	require.Equal(t, "exists", receipt["keys"].([]any)[0].(map[string]any)["state"], "a key that is disabled exists")

	// A name that cannot be typed is typed as it is shown.
	g.typed = []string{`"\x1b[2Jlitware"`}
	out = g.ok("store", "drop", dir, "\x1b[2Jlitware")
	require.NotContains(t, out+g.stderr, "\x1b")
	require.Empty(t, g.list("store", "list", dir))
	g.fails(exitFailure, "has no store", "store", "state", dir)
	dropped := g.list("store", "dropped", dir)
	require.Len(t, dropped, 4)
	require.Equal(t, id, field(dropped, "store"))
	require.Contains(t, g.ok("store", "dropped", dir), `"\x1b[2Jlitware"`)
	g.ok("key", "disable", "tenant-b") // nothing needs it any more
	for _, name := range []string{"contoso", "fabrikam"} {
		g.fails(exitFailure, "has no store", "store", "get", dir, "block", "--store", name)
	}
}

// behind changes the engine of a directory that is closed.
func behind(t *testing.T, dir string, f func(e *pebble.DB)) {
	t.Helper()
	lock, err := pebble.LockDir(dir, vfs.Default, false)
	require.NoError(t, err)
	e, err := pebble.Open(dir, lock, pebble.Options{})
	require.NoError(t, err)
	f(e)
	require.NoError(t, e.Close())
	require.NoError(t, unclose.Store(vfs.Default, dir))
	require.NoError(t, lock.Close())
}

// A drop that was cut off is listed until something opens the directory to write; a document that is
// damaged, and an entry, are listed with what is wrong.
func TestListShowsWhatIsWrong(t *testing.T) {
	t.Parallel()
	g := newRig(t)
	dir := g.tenants("s", "contoso", "fabrikam", "litware")
	behind(t, dir, func(e *pebble.DB) {
		c := catalogue.Of(e)
		entry, err := c.Find(t.Context(), "contoso")
		require.NoError(t, err)
		_, err = c.Advance(t.Context(), entry, catalogue.Dropping)
		require.NoError(t, err)
		entry, err = c.Find(t.Context(), "litware")
		require.NoError(t, err)
		p := e.Partition(entry.Number)
		require.NoError(t, engine.SetMeta(t.Context(), p, "keyring", []byte("rubbish")))
		p.Release()
	})
	out := g.fails(exitVerification, "1 of the stores", "store", "list", dir)
	require.Regexp(t, `(?m)^contoso +- +0 +dropping +-$`, out)
	require.Regexp(t, `(?m)^litware +- +0 +damaged +block: stores: "litware": `, out)
	require.Regexp(t, `(?m)^fabrikam +[0-9a-f]{8}… +\d+ +present `, out)
	g.fails(exitFailure, "is dropping", "store", "get", dir, "block", "--store", "contoso")
	require.Empty(t, g.list("store", "dropped", dir))
	require.Contains(t, g.ok("store", "drop", dir, "contoso", "--yes"), "dropped")
	require.Contains(t, g.stderr, "about to drop the store contoso: dropping")
	require.Len(t, g.list("store", "dropped", dir), 1, "which was finished, and whose receipt is shown")
	g.fails(exitVerification, "", "store", "state", dir, "--store", "litware")
	require.Equal(t, "of fabrikam", g.ok("store", "get", dir, "block", "--store", "fabrikam"))
	g.fails(exitRefused, "store litware in "+dir+" cannot be looked at", "key", "disable", "tenant-b")
}

// A store moves to another directory by a file or a pipe, and arrives as a copy.
func TestMoveAStore(t *testing.T) {
	t.Parallel()
	g := newRig(t)
	dir := g.tenants("s", "contoso", "it's")
	sent := g.object("store", "move", "export", dir, g.path("file"), "--store", "contoso")
	oneStyle(t, "store move export", sent)
	require.EqualValues(t, 1, sent["blocks"])
	info, err := os.Stat(g.path("file"))
	require.NoError(t, err)
	require.Equal(t, os.FileMode(0o600), info.Mode())
	g.fails(exitFailure, "file exists", "store", "move", "export", dir, g.path("file"), "--store", "contoso")
	g.fails(exitFailure, `"nobody"`, "store", "move", "export", dir, g.path("none"), "--store", "nobody")
	require.NoFileExists(t, g.path("none"))
	g.fails(exitUsage, "give a FILE", "store", "move", "export", dir, "--store", "contoso", "--json")
	g.fails(exitUsage, "keeps its name", "store", "move", "import", g.path("to"), g.path("file"), "--store", "x")

	b, err := os.ReadFile(g.path("file"))
	require.NoError(t, err)
	for _, bad := range []string{string(b[:len(b)-1]), string(b[:len(b)/2]), "", "x" + string(b[1:])} {
		g.fails(exitVerification, "", "store", "move", "import", g.path("to"), g.file("bad", bad))
		require.Empty(t, g.list("store", "list", g.path("to")))
	}
	got := g.object("store", "move", "import", g.path("to"), g.path("file"))
	require.Equal(t, sent, got)
	require.Contains(t, g.stderr, "store revalidate "+g.path("to")+" --store 'contoso'")
	g.fails(exitFailure, "exists", "store", "move", "import", g.path("to"), g.path("file"))
	g.fails(exitFailure, "exists", "store", "move", "import", dir, g.path("file"))
	g.fails(exitRefused, "", "store", "get", g.path("to"), "block", "--store", "contoso", "--identity", "store")
	g.ok("store", "revalidate", g.path("to"), "--identity", "store")
	require.Equal(t, "of contoso", g.ok("store", "get", g.path("to"), "block", "--identity", "store"))
	g.ok("store", "drop", dir, "contoso", "--yes")

	// By a pipe.
	g.stdin = g.ok("store", "move", "export", dir)
	require.Contains(t, g.stderr, "exported the store it's: 1 blocks")
	g.ok("store", "move", "import", g.path("to"), "-")
	require.Contains(t, g.stderr, `--store 'it'\''s'`)
	g.ok("store", "revalidate", g.path("to"), "--store", "it's", "--identity", "store")
	require.Equal(t, "of it's", g.ok("store", "get", g.path("to"), "block", "--store", "it's", "--identity", "store"))
	require.Contains(t, g.ok("vault", "stores"), g.path("to"))
	g.fails(exitRefused, "store contoso in "+g.path("to")+" needs version", "key", "disable", "tenant-a")
}

// A copy of a directory of many stores is copied whole, and says what it needs.
func TestCopyADirectoryOfMany(t *testing.T) {
	t.Parallel()
	g := newRig(t)
	dir := g.tenants("s", "contoso", "fabrikam")
	out := g.object("store", "copies", "copy", dir, g.path("elsewhere"))
	require.Len(t, out["keks"], 2)
	require.Len(t, g.list("store", "list", g.path("elsewhere")), 2)
	g.ok("store", "revalidate", g.path("elsewhere"), "--store", "contoso")
	require.Equal(t, "of contoso", g.ok("store", "get", g.path("elsewhere"), "block", "--store", "contoso"))

	require.EqualValues(t, 2, g.object("store", "checkpoint", dir, g.path("copy"))["stores"])
	g.fails(exitFailure, "already", "store", "checkpoint", dir, g.path("copy"))
	g.fails(exitFailure, "of all stores", "store", "checkpoint", dir, g.path("another"), "--store", "contoso")
	g.fails(exitRefused, "", "store", "get", g.path("copy"), "block", "--store", "fabrikam")
	g.ok("store", "revalidate", g.path("copy"), "--store", "fabrikam")
	require.Equal(t, "of fabrikam", g.ok("store", "get", g.path("copy"), "block", "--store", "fabrikam"))
	copies := g.list("store", "copies", "list", dir, "--store", "contoso")
	require.Len(t, copies, 1)
	require.Equal(t, g.path("copy"), copies[0].(map[string]any)["path"])
}
