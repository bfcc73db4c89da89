package main

import (
	"os"
	"slices"
	"strings"
	"testing"
	"unicode/utf8"

	"github.com/spf13/cobra"
	"github.com/stretchr/testify/require"
)

// No table is wider than a terminal of 80 columns, of any command: only a path may be, at the end
// of its line.
func TestTablesFit(t *testing.T) {
	t.Parallel()
	g := emptyRig(t)
	g.env["COLUMNS"] = "80"
	g.env["BLOCKSEAL_ESCROW_PASSPHRASE"] = "the passphrase of an escrow"
	g.env["BLOCKSEAL_NEW_PASSPHRASE"] = "another passphrase of a test"
	cheap := []string{"--kdf", "pbkdf2", "--kdf-passes", "1000"}
	s, copied, elsewhere, log, anchor := g.path("s"), g.path("copy"), g.path("elsewhere"), g.path("audit"), g.path("anchor")
	data := g.file("data", "data")
	tried := map[string]bool{}
	try := func(status int, args ...string) {
		t.Helper()
		got, out := g.run(args...)
		require.Equal(t, status, got, "%v: %s%s", args, out, g.stderr)
		require.NotContains(t, out, "unknown flag")
		c, _, err := newRoot(&app{getenv: os.Getenv}).Find(args)
		require.NoError(t, err)
		tried[c.CommandPath()] = true
		for line := range strings.Lines(out) {
			line = strings.TrimRight(line, "\n")
			words := strings.Fields(line)
			if n := len(words); n > 0 && strings.Contains(words[n-1], g.dir) {
				line = strings.TrimSuffix(line, words[n-1])
			}
			require.LessOrEqual(t, utf8.RuneCountInString(line), 80, "%v:\n%s", args, out)
		}
	}
	for _, args := range [][]string{
		append([]string{"vault", "init"}, cheap...),
		{"vault", "info"},
		{"vault", "backup-secret", "--out", g.path("secret")},
		append([]string{"vault", "escrow", "--out", g.path("escrow")}, cheap...),
		{"key", "create", "customer", "--rotate-after", "90d", "--expires-after", "365d", "--notify-before", "30d"},
		{"key", "import", "a-name-of-some-length", importable + "rsa2048.pem"},
		{"key", "create", "temporary"},
		{"key", "policy", "customer", "--rotate-before-expiry", "10d"},
		{"grant", "add", "store", "data"},
		{"grant", "add", "administrator", "control", "data"},
		{"grant", "remove", "administrator", "get"},
		{"grant", "list"},
		{"key", "show", "customer"},
		{"key", "list"},
		{"key", "disable", "temporary"},
		{"key", "enable", "temporary"},
		{"key", "expire", "temporary"},
		{"key", "public", "customer"},
		{"key", "public", "customer", "--out", g.path("public")},
		{"key", "backup", "temporary", "--out", g.path("backup")},
		{"key", "delete", "temporary"},
		{"key", "list", "--deleted"},
		{"key", "recover", "temporary"},
		{"key", "delete", "temporary"},
		{"key", "purge", "temporary"},
		{"key", "restore", g.path("backup")},
		{"store", "init", s, "--key", "customer", "--wrapping", "kek", "--audit", log},
		{"store", "put", s, "a", data},
		{"store", "put", s, "b", data},
		{"store", "get", s, "a", "--out", g.path("a")},
		{"store", "blocks", s},
		{"store", "create", s, strings.Repeat("a long name ", 20), "--key", "customer"},
		{"store", "create", s, "\x1b[2J" + strings.Repeat("\x01", 100), "--key", "customer"},
		{"store", "list", s},
		{"store", "dropped", s},
		{"store", "move", "export", s, g.path("exported"), "--store", strings.Repeat("a long name ", 20)},
		{"store", "move", "import", g.path("tenants"), g.path("exported")},
		{"store", "drop", s, strings.Repeat("a long name ", 20), "--yes"},
		{"store", "drop", s, "\x1b[2J" + strings.Repeat("\x01", 100), "--yes", "--open"},
		{"store", "dropped", s},
		{"store", "delete", s, "b"},
		{"anchor", "accept", s, anchor, "--yes"},
		{"anchor", "show", anchor},
		{"store", "state", s, "--anchor", anchor},
		{"store", "inspect", s},
		{"store", "usage", s},
		{"store", "usage", s, "--open"},
		{"store", "checkpoint", s, copied},
		{"store", "copies", "copy", copied, elsewhere},
		{"store", "rotate", "epoch", s},
		{"key", "rotate", "customer"},
		{"vault", "maintain"},
	} {
		try(exitOK, args...)
	}
	require.NoError(t, os.RemoveAll(copied)) // so that it is not moved along, and says why
	try(exitOK, "store", "rotate", "kek", s, "--no-rewrap")
	try(exitOK, "store", "rewrap", s, "--forecast")
	try(exitOK, "store", "rewrap", s)
	try(exitOK, "store", "copies", "list", s)
	try(exitOK, "store", "usage", s)
	try(exitOK, "store", "inspect", s)
	try(exitOK, "store", "copies", "rewrap", elsewhere, "--to-key", "customer")
	try(exitOK, "store", "rotate", "change-kek", s, "--to-key", "a-name-of-some-length")
	try(exitOK, "store", "rekey", s)
	try(exitOK, "store", "verify", s)
	try(exitFailure, "store", "relocate", s) // the copy is gone
	try(exitOK, "store", "erase", s)
	try(exitOK, "store", "copies", "forget", s, g.list("store", "copies", "list", s)[0].(map[string]any)["instance"].(string))
	try(exitOK, "store", "revalidate", elsewhere, "--audit", log)
	try(exitRefused, "store", "state", elsewhere, "--audit", log, "--identity", "nobody")
	try(exitOK, "key", "disable", "temporary", "--audit", log)
	try(exitOK, "vault", "stores")
	try(exitOK, "vault", "forget-store", elsewhere)
	somebodysDatabase(t, g.path("db"))
	try(exitOK, "files", "seal", g.path("db"), "--key", "a-name-of-some-length")
	try(exitOK, "files", "unseal", g.path("db"))
	try(exitOK, "audit", "show", log)
	try(exitOK, "audit", "verify", log, "--save-head", g.path("head"))
	sealed := g.path("sealed")
	try(exitOK, "key", "create", "files")
	try(exitOK, "store", "init", sealed, "--key", "a-name-of-some-length", "--files-key", "files")
	try(exitOK, "store", "files", "state", sealed)
	try(exitOK, "store", "files", "rotate-kek", sealed)
	try(exitOK, "store", "files", "rotate-epoch", sealed)
	try(exitOK, "store", "files", "change-kek", sealed, "--to-key", "a-name-of-some-length")
	try(exitOK, "vault", "purge-protection")
	try(exitOK, "vault", "passphrase")

	var left []string
	all(newRoot(&app{getenv: os.Getenv}), func(path []string, c *cobra.Command) {
		if c.Runnable() && !c.HasSubCommands() && !tried[c.CommandPath()] {
			left = append(left, strings.Join(path, " "))
		}
	})
	slices.Sort(left)
	require.Equal(t, []string{"key preflight", "man"}, left,
		"commands that were not tried, beside one for Key Vaults, which writes no table, and a manual page")
}

// What is cut in a table is whole with --whole, and in JSON; without a terminal a row is a line.
func TestIDsAreCutInTables(t *testing.T) {
	t.Parallel()
	g := newRig(t)
	dir, log := g.path("s"), g.path("audit")
	g.ok("store", "init", dir, "--key", "customer", "--audit", log)
	id := g.object("store", "state", dir)["kek"].(string)
	version := id[len(id)-32:]
	head := g.object("audit", "verify", log)["head"].(string)
	for _, tt := range []struct {
		args       []string
		cut, whole string
	}{
		{[]string{"store", "state", dir}, id[:14] + "…/keys/customer/" + version[:8] + "…", id},
		{[]string{"store", "inspect", dir}, id[:14] + "…/keys/customer/" + version[:8] + "…", id},
		{[]string{"store", "usage", dir}, "customer/" + version[:8] + "…", "customer/" + version},
		{[]string{"key", "list"}, version[:8] + "…", version},
		{[]string{"audit", "show", log}, "customer/" + version[:8] + "…", "customer/" + version},
		{[]string{"audit", "verify", log}, head[:8] + "…:4:" + head[35:43] + "…", head},
	} {
		out := g.ok(tt.args...)
		require.Contains(t, out, tt.cut)
		require.NotContains(t, out, tt.whole)
		require.Contains(t, g.ok(append(tt.args, "--whole")...), tt.whole)
		text := g.ok(append(tt.args, "--json")...)
		require.NotContains(t, text, "…")
		require.True(t, strings.Contains(text, version) || strings.Contains(text, head), text)
	}
	status, out := g.run("store", "state", dir, "--identity", "nobody")
	require.Equal(t, exitRefused, status)
	require.Regexp(t, `(?m)^cause +vault: get .* can make one`, out)
}

// A row goes on beneath it, at its last column if there is room.
func TestTableWraps(t *testing.T) {
	t.Parallel()
	w := &table{width: 40}
	w.row("one", "a few words that do not fit beside that")
	w.row("three", "short", "a")
	w.row()
	w.row("a label that leaves no room at all", "words beneath it")
	w.row("alone, and without any others beside it, so it goes on at the left")
	require.Equal(t, `one    a few words that do not fit
       beside that
three  short  a

a label that leaves no room at all
    words beneath it
alone, and without any others beside it,
so it goes on at the left
`, w.String())
}

// What a cell holds stays in its place, whoever wrote it.
func TestCellsAreVisible(t *testing.T) {
	t.Parallel()
	for cell, want := range map[string]string{
		"/srv/größe, 日本":           "/srv/größe, 日本",
		"/srv/copy\nverified  yes": "/srv/copy; verified  yes",
		"/srv/\x1b[2Jcopy\r":       `/srv/\x1b[2Jcopy\r`,
		"/srv/\u202etxt.exe":       `/srv/\u202etxt.exe`,
		"/srv/\xff":                "/srv/\uFFFD",
		"local:1'/keys/\tit's":     `local:1'/keys/\tit's`,
		"":                         "",
	} {
		var got table
		got.row("path", cell)
		require.Equal(t, "path  "+want+"\n", got.String(), "%q", cell)
	}
}
