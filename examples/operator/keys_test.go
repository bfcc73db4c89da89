package main

import (
	"crypto/fips140"
	"os"
	"strings"
	"testing"

	"github.com/stretchr/testify/require"
)

func TestVault(t *testing.T) {
	t.Parallel()
	g := emptyRig(t)
	in := g.object("vault", "init", "--kdf", "pbkdf2", "--kdf-passes", "1000", "--retention-days", "7", "--backup-secret-out", g.path("secret"))
	require.EqualValues(t, 7, in["retentionDays"])
	require.Equal(t, "PBKDF2-HMAC-SHA256", in["kdf"])
	require.Equal(t, false, in["purgeProtection"])
	secret, err := os.ReadFile(g.path("secret"))
	require.NoError(t, err)
	require.Len(t, secret, 32)
	g.fails(exitFailure, "exists already", "vault", "init", "--kdf", "pbkdf2", "--kdf-passes", "1000")

	g.ok("key", "import", "customer", importable+"rsa2048.pem")
	g.ok("vault", "purge-protection")
	require.Equal(t, true, g.object("vault", "info")["purgeProtection"])
	g.ok("key", "delete", "customer")
	g.fails(exitRefused, "access denied", "key", "purge", "customer")
	require.Equal(t, "customer", g.list("key", "list", "--deleted")[0].(map[string]any)["name"])
	g.ok("key", "recover", "customer")

	g.fails(exitFailure, "not a vault", "vault", "info", "--vault", g.dir)
}

// What is lost comes back from the escrow file and the backups, under its old name.
func TestRebuild(t *testing.T) {
	t.Parallel()
	g := newRig(t)
	dir := g.store("s", 1)
	id := g.object("vault", "info")["id"]
	g.env["BLOCKSEAL_ESCROW_PASSPHRASE"] = "a passphrase in the safe"
	g.ok("vault", "escrow", "--out", g.path("escrow"), "--kdf", "pbkdf2", "--kdf-passes", "1000")
	g.ok("key", "rotate", "customer")
	backup := g.object("key", "backup", "customer", "--out", g.path("customer"))
	require.NotZero(t, backup["size"])
	require.NoError(t, os.RemoveAll(g.path("vault")))

	cheap := []string{"vault", "init", "--kdf", "pbkdf2", "--kdf-passes", "1000"}
	g.ok(append(cheap, "--vault", g.path("foreign"))...)
	g.fails(exitRefused, "another backup secret", "key", "restore", g.path("customer"), "--vault", g.path("foreign"))
	g.env["BLOCKSEAL_ESCROW_PASSPHRASE"] = "wrong"
	g.fails(exitRefused, "wrong passphrase", append(cheap, "--escrow-file", g.path("escrow"))...)
	g.env["BLOCKSEAL_ESCROW_PASSPHRASE"] = "a passphrase in the safe"
	require.Equal(t, id, g.object(append(cheap, "--escrow-file", g.path("escrow"))...)["id"])
	g.fails(exitRefused, "key not found", "store", "get", dir, "a")
	g.ok("key", "restore", g.path("customer"))
	g.fails(exitRefused, "key exists", "key", "restore", g.path("customer"))
	require.Len(t, g.object("key", "show", "customer")["versions"], 2)
	require.Equal(t, "record a", g.ok("store", "get", dir, "a"))
}

func TestImport(t *testing.T) {
	t.Parallel()
	g := newRig(t)
	made := false
	for _, c := range []struct {
		file, password string
		status         int
		says           string
	}{
		{"rsa2048-pkcs1.pem", "", exitOK, "usable"},
		{"rsa2048.pem", "", exitOK, "usable"},
		{"rsa1024.pem", "", exitRefused, "unsupported key"},
		{"two-keys.pem", "", exitFailure, "several private keys"},
		{"rsa2048-encrypted-salt16.pem", "test-only-password", exitOK, "usable"},
		{"rsa2048-encrypted-salt16.pem", "not-it-at-all", exitRefused, "wrong password"},
		{"modern.pfx", "test-only-password", exitOK, "usable"},
		{"modern.pfx", "not-it-at-all", exitRefused, "wrong password"},
		{"rsa2048.byok", "", exitRefused, "another vault"},
	} {
		name := c.file + " " + c.password
		if fips140.Enforced() && !strings.HasSuffix(c.file, ".pem") {
			c.status, c.says = exitRefused, "fips140=only"
		}
		g.env["BLOCKSEAL_IMPORT_PASSWORD"] = c.password
		args := []string{"key", "import", "other", importable + c.file}
		if made && c.status == exitOK {
			g.fails(exitRefused, "key exists", args...)
			args = append(args, "--new-version")
		}
		status, out := g.run(args...)
		made = made || status == exitOK
		require.Equal(t, c.status, status, "%s: %s%s", name, out, g.stderr)
		require.Contains(t, out+g.stderr, c.says, name)
		if c.password != "" {
			require.NotContains(t, out+g.stderr, c.password, name)
		}
	}

	// A person is asked only if the file is encrypted.
	g.env["BLOCKSEAL_IMPORT_PASSWORD"] = ""
	g.asked, g.typed = nil, []string{"test-only-password"}
	g.ok("key", "import", "asked", importable+"rsa2048.pem")
	require.Empty(t, g.asked)
	g.ok("key", "import", "asked", importable+"rsa2048-encrypted-salt16.pem", "--new-version")
	require.Equal(t, []string{"password of " + importable + "rsa2048-encrypted-salt16.pem"}, g.asked)
	g.fails(exitRefused, "wrong password", "key", "import", "asked", importable+"rsa2048-encrypted-salt16.pem")

	g.ok("key", "create", "transfer", "--import-only")
	require.Contains(t, g.ok("key", "show", "transfer"), "import only")
	require.Contains(t, g.ok("key", "public", "transfer"), "-----BEGIN PUBLIC KEY-----")
}

func TestKeyProperties(t *testing.T) {
	t.Parallel()
	g := newRig(t)
	k := g.object("key", "import", "dated", importable+"rsa2048.pem", "--not-before", "1d", "--expires", "2999-01-01", "--rotate-before-expiry", "30d", "--expires-after", "365d")
	require.Equal(t, "not yet valid", k["state"])
	require.Equal(t, "2999-01-01T00:00:00Z", k["expires"])
	require.Equal(t, map[string]any{"rotateBeforeExpiry": "30d", "expiresAfter": "365d"}, withoutNotice(g.object("key", "policy", "dated")))
	require.Equal(t, map[string]any{"rotateBeforeExpiry": "30d", "expiresAfter": "90d"}, withoutNotice(g.object("key", "policy", "dated", "--expires-after", "90d")))
	require.Equal(t, map[string]any{"rotateAfter": "60d"}, withoutNotice(g.object("key", "policy", "dated", "--clear", "--rotate-after", "60d")))
	require.Contains(t, g.ok("key", "policy", "dated", "--clear"), "by hand")
	g.fails(exitUsage, "invalid", "key", "policy", "dated", "--rotate-after", "1m")
	g.fails(exitRefused, "key not found", "key", "policy", "nobody")

	require.Equal(t, "disabled", g.object("key", "import", "off", importable+"rsa2048.pem", "--disabled")["state"])
	g.ok("key", "enable", "off")
	require.Equal(t, "expired", g.object("key", "expire", "off")["state"])
	out := g.ok("key", "list")
	require.Contains(t, out, "NAME")
	for _, name := range []string{"customer", "dated", "off"} {
		require.Contains(t, out, name)
	}
	g.ok("vault", "maintain")
}

func withoutNotice(p map[string]any) map[string]any {
	delete(p, "notifyBefore")
	return p
}

// An identity does what it was granted, and nothing else.
func TestIdentities(t *testing.T) {
	t.Parallel()
	g := newRig(t)
	g.fails(exitRefused, "access denied", "key", "list", "--identity", "auditor")
	g.ok("grant", "add", "auditor", "list", "get")
	g.ok("key", "list", "--identity", "auditor")
	g.ok("key", "show", "customer", "--identity", "auditor")
	g.fails(exitRefused, "access denied", "key", "rotate", "customer", "--identity", "auditor")
	g.fails(exitRefused, "access denied", "key", "disable", "customer", "--identity", "auditor")
	g.fails(exitRefused, "access denied", "store", "init", g.path("s"), "--key", "customer", "--identity", "auditor")
	require.NoDirExists(t, g.path("s"))
	g.ok("grant", "add", "keeper", "control")
	g.ok("key", "rotate", "customer", "--identity", "keeper")
	require.Len(t, g.list("grant", "list"), 3)
	require.Empty(t, g.list("grant", "remove", "auditor"))
	g.fails(exitRefused, "access denied", "key", "list", "--identity", "auditor")
}
