package main

import (
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/stretchr/testify/require"
)

// sealedRig is a rig with a second vault, the operator's, which has the key "files".
func sealedRig(t *testing.T) *rig {
	g := newRig(t)
	g.env["BLOCKSEAL_FILES_PASSPHRASE"] = "another test's passphrase"
	g.env["BLOCKSEAL_PASSPHRASE"], g.env["BLOCKSEAL_FILES_PASSPHRASE"] = g.env["BLOCKSEAL_FILES_PASSPHRASE"], g.env["BLOCKSEAL_PASSPHRASE"]
	g.ok("vault", "init", "--vault", g.path("operator"), "--kdf", "pbkdf2", "--kdf-passes", "1000")
	g.ok("key", "create", "files", "--vault", g.path("operator"))
	g.env["BLOCKSEAL_PASSPHRASE"], g.env["BLOCKSEAL_FILES_PASSPHRASE"] = g.env["BLOCKSEAL_FILES_PASSPHRASE"], g.env["BLOCKSEAL_PASSPHRASE"]
	return g
}

// files is a command line with the operator's vault.
func (g *rig) files(args ...string) []string {
	return append(args, "--files-vault", g.path("operator"))
}

// owner runs f as who has the operator's vault and not the customers'.
func (g *rig) owner(f func()) {
	was := g.env["BLOCKSEAL_PASSPHRASE"]
	g.env["BLOCKSEAL_PASSPHRASE"] = g.env["BLOCKSEAL_FILES_PASSPHRASE"]
	f()
	g.env["BLOCKSEAL_PASSPHRASE"] = was
}

// A directory of many stores is made under a file KEK in a vault of the operator's. Each command finds out
// that it is, and says which key it wants if it is not given.
func TestStoresUnderAFileKEK(t *testing.T) {
	t.Parallel()
	g := sealedRig(t)
	dir := g.path("s")
	for _, name := range []string{"contoso", "fabrikam"} {
		g.ok(g.files("store", "create", dir, name, "--key", "customer", "--identity", "store", "--files-key", "files")...)
		g.stdin = "of " + name
		g.ok(g.files("store", "put", dir, "block", "--store", name, "--identity", "store")...)
	}
	require.FileExists(t, filepath.Join(dir, "BLOCKSEAL.keyring"))
	require.Len(t, g.list(g.files("store", "list", dir)...), 2)
	require.Equal(t, "of contoso", g.ok(g.files("store", "get", dir, "block", "--store", "contoso", "--identity", "store")...))
	require.EqualValues(t, 1, g.object(g.files("store", "inspect", dir, "--store", "fabrikam")...)["deks"])
	g.ok(g.files("store", "usage", dir, "--store", "contoso")...)
	g.ok(g.files("store", "verify", dir, "--store", "contoso", "--identity", "store")...)
	g.ok(g.files("store", "state", dir, "--store", "contoso", "--identity", "store", "--audit", g.path("audit"))...)
	g.ok("key", "rotate", "customer")
	g.ok(g.files("store", "rotate", "kek", dir, "--store", "contoso", "--identity", "store")...)
	g.ok(g.files("store", "rotate", "epoch", dir, "--store", "contoso", "--identity", "store")...)
	g.ok(g.files("store", "move", "export", dir, g.path("file"), "--store", "fabrikam")...)
	dropped := g.object(g.files("store", "drop", dir, "fabrikam", "--yes")...)["fileKEKs"].([]any)
	require.Len(t, dropped, 1)
	require.Contains(t, dropped[0], "/keys/files/")
	require.Regexp(t, `file KEK +local:.*/keys/files/.*take it too`, g.ok(g.files("store", "erase", dir, "--store", "contoso", "--identity", "store")...))
	g.ok(g.files("store", "move", "import", dir, g.path("file"))...)
	require.Len(t, g.list(g.files("store", "dropped", dir)...), 1)

	for _, args := range [][]string{{"list", dir}, {"inspect", dir}, {"state", dir}, {"verify", dir}, {"dropped", dir}, {"drop", dir, "contoso", "--yes"}, {"files", "state", dir}} {
		g.fails(exitRefused, "--files-vault says where the file KEK is", append([]string{"store"}, args...)...)
	}
	g.env["BLOCKSEAL_VAULT"] = ""
	g.fails(exitUsage, "/keys/files", "store", "list", dir)
	g.fails(exitUsage, "give --files-vault", "store", "list", dir)
	g.env["BLOCKSEAL_VAULT"] = g.path("vault")
	g.fails(exitRefused, "leave out --files-key", g.files("store", "create", dir, "x", "--key", "customer", "--files-key", "customer")...)
	plain := g.tenants("plain", "litware")
	g.fails(exitFailure, "the files are not sealed", g.files("store", "create", plain, "x", "--key", "customer", "--files-key", "files")...)
	g.fails(exitFailure, "has no file KEK", g.files("store", "files", "state", plain)...)
	require.Len(t, g.list("store", "list", plain), 1)
}

// The file KEK is rotated and changed, is not taken away by mistake, and is given back.
func TestFileKEKOfADirectory(t *testing.T) {
	t.Parallel()
	g := sealedRig(t)
	dir := g.path("s")
	g.ok(g.files("store", "init", dir, "--key", "customer", "--identity", "store", "--files-key", "files")...)
	g.stdin = "a block"
	g.ok(g.files("store", "put", dir, "block", "--identity", "store")...)
	g.fails(exitFailure, "there is a store", g.files("store", "init", dir, "--key", "customer")...)

	state := g.object(g.files("store", "files", "state", dir)...)
	require.Equal(t, "Available", state["status"])
	g.owner(func() { g.ok("key", "rotate", "files", "--vault", g.path("operator")) })
	rotated := g.object(g.files("store", "files", "rotate-kek", dir)...)
	require.NotEqual(t, state["kek"], rotated["kek"])
	epoch := g.object(g.files("store", "files", "rotate-epoch", dir)...)
	require.Len(t, epoch["droppedEpochs"], 1)
	require.Greater(t, epoch["epoch"], rotated["epoch"])
	g.fails(exitUsage, "give --to-key", g.files("store", "files", "change-kek", dir)...)
	g.owner(func() { g.ok("key", "create", "next", "--vault", g.path("operator")) })
	changed := g.object(g.files("store", "files", "change-kek", dir, "--to-key", "next")...)
	require.Contains(t, changed["kek"], "/keys/next/")
	require.Equal(t, "a block", g.ok(g.files("store", "get", dir, "block", "--identity", "store")...))

	copied := g.path("copy")
	g.ok(g.files("store", "checkpoint", dir, copied, "--identity", "store")...)
	g.ok(g.files("store", "copies", "copy", copied, g.path("elsewhere"))...)
	require.EqualValues(t, 1, g.object(g.files("store", "inspect", g.path("elsewhere"))...)["deks"])

	g.owner(func() {
		out := g.fails(exitRefused, "store of files in "+dir+" needs version", "key", "disable", "next", "--vault", g.path("operator"))
		require.NotContains(t, out, "cannot be looked at")
		g.ok("key", "disable", "files", "--vault", g.path("operator"))
		g.ok("key", "disable", "next", "--vault", g.path("operator"), "--force")
	})
	g.fails(exitRefused, "key disabled", g.files("store", "get", dir, "block", "--identity", "store")...)
	g.fails(exitRefused, "key disabled", g.files("store", "list", dir)...)
	g.owner(func() { g.ok("key", "enable", "next", "--vault", g.path("operator")) })
	require.Equal(t, "a block", g.ok(g.files("store", "get", dir, "block", "--identity", "store")...))

	document := filepath.Join(dir, "BLOCKSEAL.keyring")
	b, err := os.ReadFile(document)
	require.NoError(t, err)
	require.NoError(t, os.WriteFile(document, b[:10], 0o600))
	g.fails(exitVerification, "BLOCKSEAL.keyring", g.files("store", "list", dir)...)
	require.NoError(t, os.WriteFile(document, b, 0o600))
	require.Equal(t, 1, strings.Count(g.ok("vault", "stores", "--vault", g.path("operator")), dir))
}
