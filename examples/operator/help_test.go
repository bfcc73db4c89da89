package main

import (
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"

	"github.com/spf13/cobra"
	"github.com/stretchr/testify/require"
)

// all calls do with every command that a person may name, and its path.
func all(c *cobra.Command, do func(path []string, c *cobra.Command)) {
	for _, sub := range c.Commands() {
		if sub.Name() == "help" || sub.Name() == "completion" { // cobra's own
			continue
		}
		do(strings.Fields(sub.CommandPath())[1:], sub)
		all(sub, do)
	}
}

// Help fits a terminal of 60 columns, and explains flags that many commands share once.
func TestHelpFits(t *testing.T) {
	t.Parallel()
	g := emptyRig(t)
	g.env["COLUMNS"] = "60"
	all(newRoot(&app{getenv: os.Getenv}), func(path []string, c *cobra.Command) {
		out := g.ok(append(path, "--help")...)
		text, _, _ := strings.Cut(c.Long, "\n")
		require.Contains(t, out, strings.Fields(text)[0], path)
		for line := range strings.SplitSeq(out, "\n") {
			narrow := len(line) <= 60 || strings.Contains(c.Long, line) || strings.Contains(line, c.CommandPath()) ||
				strings.HasPrefix(line, "  ") && c.HasAvailableSubCommands()
			require.True(t, narrow, "%v: %q", path, line)
		}
		if len(path) > 1 && path[0] != "anchor" && path[0] != "audit" {
			require.NotContains(t, out, " --vault directory", path)
			require.Contains(t, out, "Also, as operator "+path[0]+" --help explains:", path)
			require.Contains(t, out, "--vault", path)
		}
	})
	require.Contains(t, g.ok("key", "--help"), "--vault directory")
}

// A name that is a command's, too, is a name wherever a name is meant, in any order.
func TestNamesThatAreCommands(t *testing.T) {
	t.Parallel()
	g := newRig(t)
	dir := g.store("s", 1)
	for _, name := range []string{"store", "state", "key", "list", "help"} {
		g.ok("grant", "add", name, "get", "wrapKey", "unwrapKey")
		for _, args := range [][]string{
			{"--identity", name, "store", "state", dir},
			{"store", "--identity", name, "state", dir},
			{"store", "state", "--identity", name, dir},
			{"store", "state", dir, "--identity", name},
			{"-v", "--identity", name, "store", "state", dir},
			{"--json", "store", "--identity=" + name, "state", dir},
		} {
			require.Contains(t, g.ok(args...), "Available", args)
			require.NotContains(t, g.stderr, "owner", args)
		}
		g.fails(exitRefused, `identity "`+name+`" has no grant for list`, "--identity", name, "key", "list")
		g.ok("key", "create", name)
		require.Contains(t, g.ok("key", "show", name), "usable")
		g.ok("grant", "remove", name)
		g.fails(exitRefused, "access denied", "--identity", name, "store", "state", dir)
	}
}

// Who uses a store without naming an identity is told as whom, and once.
func TestTheOwnerIsTold(t *testing.T) {
	t.Parallel()
	g := newRig(t)
	dir := g.store("s", 1)
	g.ok("store", "verify", dir)
	require.Equal(t, 1, strings.Count(g.stderr, "acting as the owner of the vault "+g.path("vault")+", for whom no grant counts; --identity NAME"), g.stderr)
	g.ok("store", "state", dir, "--identity", "store")
	require.Empty(t, g.stderr)
	g.ok("store", "inspect", dir)
	require.Empty(t, g.stderr, "it asks no vault")
	g.ok("key", "list")
	require.Empty(t, g.stderr, "keys are the owner's to administer")
}

// A passphrase that something is sealed under has a floor; what is opened has none.
func TestShortPassphrases(t *testing.T) {
	t.Parallel()
	g := newRig(t)
	for _, tt := range []struct {
		passphrase string
		status     int
	}{
		{"x", exitUsage},
		{strings.Repeat("x", minPassphrase-1), exitUsage},
		{strings.Repeat("é", minPassphrase-1), exitUsage}, // characters, not bytes
		{strings.Repeat("é", minPassphrase), exitOK},
	} {
		cheap := []string{"--kdf", "pbkdf2", "--kdf-passes", "1000"}
		g.env["BLOCKSEAL_NEW_PASSPHRASE"], g.env["BLOCKSEAL_ESCROW_PASSPHRASE"] = tt.passphrase, tt.passphrase
		escrow, made := g.path("escrow"+tt.passphrase), filepath.Join(t.TempDir(), "v")
		says := "characters, want at least 15"
		if tt.status == exitOK {
			says = ""
		}
		g.fails(tt.status, says, append(cheap, "vault", "escrow", "--out", escrow)...)
		g.fails(tt.status, says, append(cheap, "vault", "passphrase")...)
		g.fails(tt.status, says, append(cheap, "vault", "init", "--vault", made, "--passphrase-file", g.file("p", tt.passphrase))...)
		if tt.status == exitUsage {
			require.NoFileExists(t, escrow)
			require.NoDirExists(t, made)
			require.NotContains(t, g.stderr, tt.passphrase+" ")
		}
	}
}

func TestCompletion(t *testing.T) {
	t.Parallel()
	g := emptyRig(t)
	script := g.ok("completion", "bash")
	require.Contains(t, script, "__start_operator")
	if bash, err := exec.LookPath("bash"); err == nil {
		out, err := exec.Command(bash, "-n", g.file("completion", script)).CombinedOutput()
		require.NoError(t, err, "%s", out)
	}
	for line, want := range map[string]string{
		"key cr":                 "create\t",
		"store rotate ":          "change-kek\t",
		"key create a --new":     "--new-version\t",
		"store init --wrapping ": "kek\n",
	} {
		args := strings.Split(line, " ")
		require.Contains(t, g.ok(append([]string{"__complete"}, args...)...), want, line)
	}
}

// The manual page has every command and every flag, and no fault that a checker finds.
func TestManual(t *testing.T) {
	t.Parallel()
	g := emptyRig(t)
	page := g.ok("man")
	all(newRoot(&app{getenv: os.Getenv}), func(path []string, c *cobra.Command) {
		if c.Runnable() {
			require.Contains(t, page, `.SS "`+roff(strings.TrimSuffix(c.UseLine(), " [flags]"))+`"`)
		}
	})
	for _, flag := range []string{"vault", "new-version", "expect-fingerprint", "audit-file-size", "json"} {
		require.Contains(t, page, `\fB\-\-`+roff(flag)+`\fR`)
	}
	require.Contains(t, page, "130  interrupted by a signal")
	file := g.file("operator.1", page)
	if mandoc, err := exec.LookPath("mandoc"); err == nil {
		out, err := exec.Command(mandoc, "-Tlint", "-Wwarning", file).CombinedOutput()
		require.NoError(t, err, "%s", out)
		return
	}
	if man, err := exec.LookPath("man"); err == nil {
		cmd := exec.Command(man, "--warnings", "-l", file)
		cmd.Env = append(os.Environ(), "MANPAGER=cat", "PAGER=cat", "LC_ALL=C")
		out, err := cmd.CombinedOutput()
		require.NoError(t, err, "%s", out)
		require.Contains(t, string(out), "operator key create NAME")
		require.NotContains(t, string(out), "warning:")
		return
	}
	t.Log("neither mandoc nor man is here: nothing has checked the page's form")
}
