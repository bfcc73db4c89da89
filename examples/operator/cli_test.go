package main

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os"
	"strings"
	"testing"
	"time"

	"github.com/spf13/cobra"
	"github.com/spf13/pflag"
	"github.com/stretchr/testify/require"

	"github.com/blockseal/blockseal/block"
	"github.com/blockseal/blockseal/keyring"
	"github.com/blockseal/blockseal/vault"
	"github.com/blockseal/blockseal/vault/audit"
	"github.com/blockseal/blockseal/vault/local"
)

func TestExitStatus(t *testing.T) {
	t.Parallel()
	running := context.Background()
	stopped, stop := context.WithCancel(running)
	stop()
	denied := &vault.Error{Op: vault.OpUnwrapKey, Kind: vault.ErrKeyDisabled}
	away := &vault.Error{Op: vault.OpUnwrapKey, Kind: vault.ErrUnavailable}
	for _, c := range []struct {
		ctx  context.Context
		err  error
		want int
	}{
		{running, nil, exitOK},
		{running, errors.New("no space"), exitFailure},
		{running, block.ErrNotFound, exitFailure},
		{running, usagef("what?"), exitUsage},
		{running, fromFlags(fmt.Errorf("retention: %w", local.ErrInvalid)), exitUsage},
		{running, fromFlags(fmt.Errorf("%w: %w", local.ErrInvalid, local.ErrFIPS)), exitRefused},
		{running, local.ErrInvalid, exitFailure},
		{running, fromFlags(denied), exitRefused},
		{running, errHead, exitVerification},
		{running, &inUseError{}, exitRefused},
		{running, fmt.Errorf("done, and not recorded: %w", audit.ErrNotRecorded), exitFailure},
		{running, fmt.Errorf("in use: %w", errRefused), exitRefused},
		{running, denied, exitRefused},
		{running, local.ErrWrongPassphrase, exitRefused},
		{running, fmt.Errorf("%w: %w", block.ErrInaccessible, away), exitRefused},
		{running, fmt.Errorf("%w: %w", block.ErrCorrupt, denied), exitVerification},
		{running, &audit.CorruptError{}, exitVerification},
		{running, keyring.ErrUnexpected, exitVerification},
		{running, away, exitBusy},
		{running, block.ErrLocked, exitBusy},
		{running, local.ErrLocked, exitBusy},
		{running, context.DeadlineExceeded, exitBusy},
		{stopped, fmt.Errorf("rekey: %w", context.Canceled), exitInterrupted},
		{stopped, errors.New("no space"), exitFailure},
	} {
		require.Equal(t, c.want, exitStatus(c.ctx, c.err), "%v", c.err)
	}
}

// A command line that cannot be right does nothing, and says what is wrong.
func TestUsage(t *testing.T) {
	t.Parallel()
	g := newRig(t)
	g.env["BLOCKSEAL_NEW_PASSPHRASE"] = "another passphrase"
	g.env["BLOCKSEAL_ESCROW_PASSPHRASE"] = "a passphrase in the safe"
	before, err := os.ReadDir(g.dir)
	require.NoError(t, err)
	for _, c := range []struct{ args, says string }{
		{"nothing", `operator has no command "nothing"`},
		{"key make", `operator key has no command "make"`},
		{"store rotate dek s", `operator store rotate has no command "dek"`},
		{"key create", "no argument was given; usage: operator key create NAME"},
		{"key create a b", "2 arguments were given"},
		{"key create --shape round a", "unknown flag: --shape"},
		{"key create customer/v1", "give its name alone"},
		{"key create not_a_name", "name"},
		{"key show local:0/keys/customer", "another vault"},
		{"key expire customer --at tomorrow", "tomorrow"},
		{"key policy customer --rotate-after soon", "soon"},
		{"key create other --not-before 2027-01-02 --expires 2027-01-01", "expire before it is valid"},
		{"key create other --not-before 30d --expires-after 7d", "expire before it is valid"},
		{"key import other " + importable + "rsa2048.pem --not-before 2027-01-02 --expires 2027-01-01", "expire before it is valid"},
		{"key create other --expires 1969-01-01", "before 1970"},
		{"key create other --rotate-after 1m", "a time of 60 seconds"},
		{"key expire customer --at 1969-01-01", "before 1970"},
		{"key policy customer --rotate-before-expiry 2d --expires-after 1d", "versions expire after 86400"},
		{"key backup customer", "--out"},
		{"grant add store sing", `no operation "sing"`},
		{"grant add store", "1 argument was given"},
		{"grant list --identity store", "only the vault's owner"},
		{"grant add two\u00fc get", "printable ASCII"},
		{"vault init --kdf scrypt", "argon2id or pbkdf2"},
		{"vault init --vault other --retention-days 5", "RetentionDays 5, want 7 to 90"},
		{"vault init --vault other --id local:1", "want \"local:\""},
		{"vault init --vault other --kdf pbkdf2 --kdf-lanes 2", "invalid argument"},
		{"vault passphrase --kdf pbkdf2 --kdf-lanes 2", "invalid argument"},
		{"vault init --kdf-passes 7", "need --kdf"},
		{"vault init --backup-secret-file a --escrow-file b", "not both"},
		{"vault backup-secret", "--out"},
		{"store init s", "--key"},
		{"store init s --key customer --wrapping paper", "keyring or kek"},
		{"store put s 0g --hex", "not hexadecimal"},
		{"audit verify a --head 12", "head"},
		{"audit verify a --head x --head-file y", "none of the others can be"},
		{"vault info --passphrase=secret", "unknown flag: --passphrase"},
	} {
		status, out := g.run(strings.Fields(c.args)...)
		require.Equal(t, exitUsage, status, "%s: %s%s", c.args, out, g.stderr)
		require.Contains(t, g.stderr, c.says, c.args)
		require.Empty(t, out, c.args)
	}
	after, err := os.ReadDir(g.dir)
	require.NoError(t, err)
	require.Len(t, after, len(before))

	// What is wrong with a file is not the command line's fault.
	g.fails(exitFailure, "several private keys", "key", "import", "other", importable+"two-keys.pem")
	g.fails(exitFailure, "a backup secret has 32", "vault", "init", "--vault", g.path("other"), "--backup-secret-file", g.file("short", "x"))
	g.fails(exitFailure, "not deleted", "key", "recover", "customer")
	g.fails(exitFailure, "file exists", "vault", "init", "--vault", g.path("other"), "--backup-secret-out", g.path("short"))
	require.NoDirExists(t, g.path("other"))
}

// eachCommand walks the tree of commands.
func eachCommand(c *cobra.Command, f func(*cobra.Command)) {
	f(c)
	for _, sub := range c.Commands() {
		eachCommand(sub, f)
	}
}

// Every command is explained, takes no secret on its command line, and completes.
func TestHelp(t *testing.T) {
	t.Parallel()
	g := emptyRig(t)
	g.env["COLUMNS"] = "90" // what the texts are written for
	n := 0
	eachCommand(newRoot(&app{in: strings.NewReader(""), out: io.Discard, err: io.Discard}), func(c *cobra.Command) {
		n++
		require.NotEmpty(t, c.Short, c.CommandPath())
		require.Greater(t, len(c.Long), len(c.Short), c.CommandPath())
		require.Less(t, len(c.Short), 80, c.CommandPath())
		for _, line := range strings.Split(c.Long, "\n") {
			require.LessOrEqual(t, len(line), 95, "%s: %s", c.CommandPath(), line)
		}
		c.LocalFlags().VisitAll(func(f *pflag.Flag) {
			require.NotEmpty(t, f.Usage, "%s --%s", c.CommandPath(), f.Name)
			for _, secret := range []string{"passphrase", "password", "secret"} {
				if strings.Contains(f.Name, secret) {
					require.Regexp(t, "-(file|out)$", f.Name, c.CommandPath())
				}
			}
		})
		if c.Runnable() {
			out := g.ok(append(strings.Fields(c.CommandPath())[1:], "--help")...)
			require.Contains(t, out, c.Long)
			require.Contains(t, out, "--json")
		}
	})
	require.Greater(t, n, 50)
	require.Contains(t, g.ok("help", "flow"), "BLOCKSEAL_PASSPHRASE")
	require.Contains(t, g.ok("flow"), "In order:")
	for _, shell := range []string{"bash", "zsh", "fish", "powershell"} {
		require.Contains(t, g.ok("completion", shell), "operator")
	}
	require.Contains(t, g.ok("__complete", "grant", "add", "store", ""), "unwrapKey\n")
	require.Contains(t, g.ok("__complete", "store", "rotate", ""), "change-kek")
	require.Contains(t, g.ok("__complete", "vault", "init", "--kdf", ""), "pbkdf2\n")
}

// Passphrases come from a file, from the environment or from a person.
func TestPassphrases(t *testing.T) {
	t.Parallel()
	g := newRig(t)
	pass := g.env["BLOCKSEAL_PASSPHRASE"]
	delete(g.env, "BLOCKSEAL_PASSPHRASE")
	g.fails(exitUsage, "give --passphrase-file, set BLOCKSEAL_PASSPHRASE, or run on a terminal", "vault", "info")
	for _, end := range []string{"", "\n", "\r\n"} {
		g.ok("vault", "info", "--passphrase-file", g.file("pass", pass+end))
	}
	g.fails(exitRefused, "wrong passphrase", "vault", "info", "--passphrase-file", g.file("pass", pass+"\n\n"))
	g.fails(exitFailure, "no such file", "vault", "info", "--passphrase-file", g.path("none"))
	g.typed = []string{pass}
	g.ok("vault", "info")
	g.typed = []string{"not it"}
	g.fails(exitRefused, "wrong passphrase", "vault", "info")
	require.NotContains(t, g.stderr, "not it")

	// A new one is typed twice.
	g.asked, g.typed = nil, []string{pass, "a passphrase that is new", "a passphrase that is gnu"}
	g.fails(exitUsage, "differ", "vault", "passphrase", "--kdf", "pbkdf2", "--kdf-passes", "1000")
	g.asked, g.typed = nil, []string{pass, "a passphrase that is new", "a passphrase that is new"}
	g.ok("vault", "passphrase", "--kdf", "pbkdf2", "--kdf-passes", "1001")
	require.Equal(t, []string{"passphrase of the vault " + g.path("vault"), "new passphrase", "new passphrase, once more"}, g.asked)
	g.env["BLOCKSEAL_PASSPHRASE"] = pass
	g.fails(exitRefused, "wrong passphrase", "vault", "info")
	g.env["BLOCKSEAL_PASSPHRASE"] = "a passphrase that is new"
	require.EqualValues(t, 1001, g.object("vault", "info")["kdfPasses"])
	g.env["BLOCKSEAL_NEW_PASSPHRASE"] = "a passphrase that is newer"
	g.ok("vault", "passphrase", "--kdf", "pbkdf2", "--kdf-passes", "1000")
	g.env["BLOCKSEAL_PASSPHRASE"] = "a passphrase that is newer"
	g.ok("vault", "info")
}

// With --json everything is JSON, errors too.
func TestJSON(t *testing.T) {
	t.Parallel()
	g := newRig(t)
	dir := g.store("s", 1)
	for _, args := range []string{
		"vault info", "vault stores", "vault maintain", "key list", "key list --deleted", "key show customer", "key public customer",
		"key policy customer", "key rotate customer", "grant list", "store state S", "store inspect S", "store usage S", "store usage S --open",
		"store get S a", "store blocks S", "store list S", "store verify S", "store rewrap S --forecast", "store rotate kek S", "store rotate epoch S",
		"store rekey S", "store erase S", "store copies list S", "store revalidate S",
	} {
		out := g.ok(append(strings.Fields(strings.ReplaceAll(args, "S", dir)), "--json")...)
		var v any
		require.NoError(t, json.Unmarshal([]byte(out), &v), "%s: %s", args, out)
		if g.stderr != "" { // of stores that are used as the vault's owner
			var said map[string]string
			require.NoError(t, json.Unmarshal([]byte(g.stderr), &said), "%s: %s", args, g.stderr)
			require.Contains(t, said["note"], "acting as the owner of the vault", args)
		}
		if args != "store erase S" { // a receipt, which has its own form
			oneStyle(t, args, v)
		}
	}
	status, _ := g.run("key", "disable", "customer", "--json")
	require.Equal(t, exitRefused, status)
	var v struct {
		Error string
		Exit  int
	}
	require.NoError(t, json.Unmarshal([]byte(g.stderr), &v), g.stderr)
	require.Equal(t, exitRefused, v.Exit)
	require.Contains(t, v.Error, "in use")
}

// oneStyle requires names like "notBefore" of all members.
func oneStyle(t *testing.T, args string, v any) {
	t.Helper()
	switch v := v.(type) {
	case map[string]any:
		for name, value := range v {
			require.Regexp(t, `^([a-z]+([A-Z][a-zA-Z]*)?|[0-9]+)$`, name, args)
			oneStyle(t, args, value)
		}
	case []any:
		for _, value := range v {
			oneStyle(t, args, value)
		}
	}
}

func TestTimes(t *testing.T) {
	t.Parallel()
	for text, want := range map[string]time.Duration{"90d": 90 * 24 * time.Hour, "36h": 36 * time.Hour, "-1d": -24 * time.Hour, "1h30m": 90 * time.Minute} {
		got, err := parseDays(text)
		require.NoError(t, err)
		require.Equal(t, want, got)
		back, err := parseDays(days(got))
		require.NoError(t, err)
		require.Equal(t, want, back)
	}
	var f timeFlag
	require.NoError(t, f.Set("2027-01-31"))
	require.Equal(t, time.Date(2027, 1, 31, 0, 0, 0, 0, time.UTC), f.t)
	require.NoError(t, f.Set("2027-01-31T10:00:00+02:00"))
	require.Equal(t, "2027-01-31T08:00:00Z", f.String())
	require.NoError(t, f.Set("90d"))
	require.WithinDuration(t, time.Now().Add(90*24*time.Hour), f.t, time.Minute)
	require.NoError(t, f.Set("never"))
	require.True(t, f.t.IsZero())
	for _, bad := range []string{"", "d", "2027-13-01", "99999999999d"} {
		require.Error(t, f.Set(bad), bad)
	}
}

// A file with a secret in it is the owner's alone, and replaces nothing.
func TestWriteSecret(t *testing.T) {
	t.Parallel()
	path := t.TempDir() + "/secret"
	a := &app{disk: system{}}
	require.NoError(t, a.writeSecret(path, []byte("a")))
	info, err := os.Stat(path)
	require.NoError(t, err)
	require.Equal(t, os.FileMode(0o600), info.Mode())
	require.ErrorIs(t, a.writeSecret(path, []byte("b")), os.ErrExist)
	b, err := os.ReadFile(path)
	require.NoError(t, err)
	require.Equal(t, "a", string(bytes.TrimSpace(b)))
}
