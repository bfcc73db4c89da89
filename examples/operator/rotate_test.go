package main

import (
	"encoding/json"
	"os"
	"strings"
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/blockseal/blockseal/internal/test/unclose"
	"github.com/blockseal/blockseal/vault"
)

// keyOf is the name of the key in a key identifier.
func keyOf(id any) string {
	return strings.Split(strings.SplitAfter(id.(string), "/keys/")[1], "/")[0]
}

// A store whose DEKs the vault wraps moves to a key of another vault, together with
// its DEKs and its copy.
func TestChangeKEKToAnotherVault(t *testing.T) {
	t.Parallel()
	g := newRig(t)
	dir := g.store("s", 3, "--wrapping", "kek")
	g.ok("store", "checkpoint", dir, g.path("copy"))
	other := g.path("other")
	g.env["BLOCKSEAL_TO_PASSPHRASE"] = "the passphrase of the other"
	old := g.env["BLOCKSEAL_PASSPHRASE"]
	g.env["BLOCKSEAL_PASSPHRASE"] = "the passphrase of the other"
	g.ok("vault", "init", "--vault", other, "--kdf", "pbkdf2", "--kdf-passes", "1000")
	g.ok("key", "import", "theirs", importable+"rsa2048-other.pem", "--vault", other)
	g.env["BLOCKSEAL_PASSPHRASE"] = old

	g.fails(exitUsage, "--to-key", "store", "rotate", "change-kek", dir, "--to-vault", other)
	g.fails(exitRefused, "key not found", "store", "rotate", "change-kek", dir, "--to-vault", other, "--to-key", "nobody")
	require.Equal(t, "record b", g.ok("store", "get", dir, "b"))
	m := g.object("store", "rotate", "change-kek", dir, "--to-vault", other, "--to-key", "theirs", "--no-rewrap")
	require.Equal(t, "theirs", keyOf(m["to"]))
	require.Equal(t, true, m["copies"].([]any)[0].(map[string]any)["current"])
	require.EqualValues(t, 3, m["stillNeeded"].([]any)[0].(map[string]any)["records"])

	// The DEKs need the old vault until they are rewrapped.
	g.fails(exitRefused, "not the KEK", "store", "get", dir, "b")
	from := []string{"--vault", other, "--from-vault", g.path("vault")}
	g.env["BLOCKSEAL_PASSPHRASE"], g.env["BLOCKSEAL_FROM_PASSPHRASE"] = "the passphrase of the other", old
	with := func(args ...string) []string { return append(args, from...) }
	require.Equal(t, "record b", g.ok(with("store", "get", dir, "b")...))
	require.EqualValues(t, 3, g.object(with("store", "rewrap", dir, "--forecast")...)["records"])
	require.EqualValues(t, 3, g.object(with("store", "rewrap", dir)...)["rewrapped"])
	require.Equal(t, []any{}, unneeded(g, dir))
	require.Equal(t, "record b", g.ok("store", "get", dir, "b", "--vault", other))

	// Both vaults know the store, and only the new one's key is needed.
	require.Equal(t, dir+"\n", g.ok("vault", "stores"))
	require.Equal(t, dir+"\n", g.ok("vault", "stores", "--vault", other))
	g.fails(exitRefused, "needs version", "key", "disable", "theirs", "--vault", other)
	g.env["BLOCKSEAL_PASSPHRASE"] = old
	g.ok("key", "disable", "customer")
}

// unneeded are the KEK versions but the newest that a store needs.
func unneeded(g *rig, dir string) []any {
	out := []any{}
	for _, u := range g.list("store", "usage", dir) {
		if keyOf(u.(map[string]any)["kek"]) == "customer" {
			out = append(out, u)
		}
	}
	return out
}

// Each rotation does what it says, and no more.
func TestRotations(t *testing.T) {
	t.Parallel()
	g := newRig(t)
	dir := g.store("s", 3)
	st := g.object("store", "state", dir)

	g.ok("key", "rotate", "customer")
	require.Equal(t, st["kek"], g.object("store", "state", dir)["kek"], "a store moves when it is told to")
	m := g.object("store", "rotate", "kek", dir)
	require.Equal(t, st["kek"], m["from"])
	require.NotEqual(t, m["from"], m["to"])
	require.Empty(t, m["stillNeeded"])

	e := g.object("store", "rotate", "epoch", dir)
	require.EqualValues(t, 1, e["from"])
	require.EqualValues(t, 2, e["epoch"])
	require.EqualValues(t, 3, e["deks"])
	require.EqualValues(t, 2, g.object("store", "rekey", dir, "--start", "b")["blocks"])
	require.Equal(t, []any{map[string]any{"epoch": 2.0, "deks": 3.0}}, g.object("store", "inspect", dir)["epochs"])
	require.Equal(t, st["fingerprint"], g.object("store", "state", dir)["fingerprint"])
	require.Equal(t, "record c", g.ok("store", "get", dir, "c"))
}

// What was erased opens only from a copy that was made before, and only while a KEK
// version that the receipt names exists.
func TestErase(t *testing.T) {
	t.Parallel()
	g := newRig(t)
	dir := g.store("s", 2)
	require.NoError(t, os.CopyFS(g.path("stolen"), os.DirFS(dir)))
	require.NoError(t, unclose.Store(nil, g.path("stolen"))) // the thief hides that it is a copy
	g.ok("store", "delete", dir, "a")
	g.fails(exitFailure, "already exists", "store", "erase", dir, "--receipt", g.file("taken", ""))
	require.Contains(t, g.ok("store", "erase", dir, "--receipt", g.path("receipt")), "destroyed")
	var r struct {
		Epochs []uint32
		Kept   uint64
		Keys   []struct{ Key vault.KeyID }
		Hash   string
	}
	b, err := os.ReadFile(g.path("receipt"))
	require.NoError(t, err)
	require.NoError(t, json.Unmarshal(b, &r))
	require.Equal(t, []uint32{1}, r.Epochs)
	require.EqualValues(t, 1, r.Kept)
	require.Len(t, r.Hash, 64)
	require.Len(t, r.Keys, 1)
	require.Equal(t, "customer", r.Keys[0].Key.Name)

	require.Equal(t, "record a", g.ok("store", "get", g.path("stolen"), "a"))
	g.ok("key", "create", "next")
	g.ok("store", "rotate", "change-kek", dir, "--to-key", "next")
	// The vault is asked of keys that the store was on before, too.
	states := func() map[string]any {
		out := map[string]any{}
		for _, k := range g.object("store", "erase", dir)["keys"].([]any) {
			k := k.(map[string]any)
			id, err := vault.ParseKeyID(k["key"].(string))
			require.NoError(t, err)
			out[id.Name] = k["state"]
		}
		return out
	}
	require.Equal(t, map[string]any{"customer": "exists", "next": "exists"}, states())
	g.ok("key", "delete", "customer")
	g.ok("key", "purge", "customer")
	require.Equal(t, map[string]any{"customer": "notFound", "next": "exists"}, states())
	g.fails(exitRefused, "key not found", "store", "get", g.path("stolen"), "a")
	require.Equal(t, "record b", g.ok("store", "get", dir, "b"))
}
