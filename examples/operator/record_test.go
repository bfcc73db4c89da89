package main

import (
	"bytes"
	"errors"
	"io"
	"os"
	"strings"
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/blockseal/blockseal/vault"
	"github.com/blockseal/blockseal/vault/audit"
	"github.com/blockseal/blockseal/vault/local"
)

// recorded is the operations of a log that rig.log was given.
func recorded(t *testing.T, log *bytes.Buffer) (ops []string) {
	for r, err := range audit.Records(bytes.NewReader(log.Bytes()), nil) {
		require.NoError(t, err)
		ops = append(ops, string(r.Operation)+" "+string(r.Outcome))
	}
	return ops
}

// Every command of the control plane is recorded, once, whether it succeeds or not.
func TestEveryCommandIsRecorded(t *testing.T) {
	t.Parallel()
	g := newRig(t)
	dir := g.store("s", 0)
	g.env["BLOCKSEAL_NEW_PASSPHRASE"] = g.env["BLOCKSEAL_PASSPHRASE"]
	g.env["BLOCKSEAL_ESCROW_PASSPHRASE"] = "a passphrase in the safe"
	g.env["BLOCKSEAL_AUDIT"] = "in memory"
	for _, c := range []struct{ args, want string }{
		{"vault init --vault V --kdf pbkdf2 --kdf-passes 1000 --backup-secret-out SECRET", "initVault ok, readBackupSecret ok"},
		{"vault init --vault V --kdf pbkdf2 --kdf-passes 1000", "initVault failed"},
		{"vault info", "readInfo ok"},
		{"vault passphrase --kdf pbkdf2 --kdf-passes 1000", "changePassphrase ok"},
		{"vault passphrase --kdf pbkdf2 --kdf-lanes 1", "changePassphrase failed"},
		{"vault backup-secret --out OUT", "readBackupSecret ok"},
		{"vault escrow --kdf pbkdf2 --kdf-passes 1000 --out OUT", "escrowBackupSecret ok"},
		{"vault maintain", "maintain ok"},
		{"vault maintain --identity nobody", "maintain denied"},
		{"grant add auditor list", "grant ok"},
		{"grant add auditor\u00fc list", "grant failed"},
		{"grant remove auditor", "revoke ok"},
		{"grant list", "listGrants ok"},
		{"key create customer", "create failed"},
		{"key import customer PEM", "import failed"},
		{"key import customer PEM --new-version", "import ok"},
		{"key import customer PEM --identity nobody", "import denied"},
		{"key list", "list ok"},
		{"key list --identity nobody", "list denied"},
		{"key show customer", "list ok"},
		{"key show nothing", "list denied"},
		{"key public customer", "get ok"},
		{"key policy customer", "list ok"},
		{"key policy customer --rotate-after 90d", "update ok"},
		{"key policy customer --rotate-after 1m", "update failed"},
		{"key disable customer/VERSION", "update denied"},
		{"key disable customer --identity nobody", "update denied"},
		{"key expire customer --at 90d", "update ok"},
		{"key enable customer", "update ok"},
		{"key delete customer", "delete denied"},
		{"key delete customer --force", "delete ok"},
		{"key purge customer", "purge denied"},
		{"key recover customer", "recover ok"},
		{"key recover customer", "recover failed"},
		{"key backup customer --out OUT", "backup ok"},
		{"key backup nothing --out OUT", "backup denied"},
		{"key restore OUT", "restore failed"},
		{"vault purge-protection", "enablePurgeProtection ok"},
	} {
		var log bytes.Buffer
		g.log = &log
		if !strings.Contains(c.args, "restore") {
			require.NoError(t, os.RemoveAll(g.path("out")))
		}
		args := strings.NewReplacer("VERSION", keyVersion(g, dir), "V", g.path("v"), "OUT", g.path("out"), "SECRET", g.path("secret"), "PEM", importable+"rsa2048.pem")
		if strings.Contains(c.args, "nothing --out") {
			g.run(strings.Fields(args.Replace(c.args))...)
			require.NoFileExists(t, g.path("out"))
			g.file("out", "no backup")
		} else {
			g.run(strings.Fields(args.Replace(c.args))...)
		}
		require.Equal(t, c.want, strings.Join(recorded(t, &log), ", "), "%s: %s", c.args, g.stderr)
	}
}

// keyVersion is the version of the key that a store is on.
func keyVersion(g *rig, dir string) string {
	kek := g.object("store", "inspect", dir)["kek"].(string)
	return kek[strings.LastIndex(kek, "/")+1:]
}

// What a vault does by itself is recorded too, and told if it could not be.
func TestVaultsOwnWorkIsRecorded(t *testing.T) {
	t.Parallel()
	g := newRig(t)
	g.ok("key", "import", "due", importable+"rsa2048.pem", "--expires", "30m", "--rotate-before-expiry", "1h", "--expires-after", "90d")
	var log bytes.Buffer
	g.log, g.env["BLOCKSEAL_AUDIT"] = &log, "in memory"
	g.ok("key", "public", "due") // asks without a version, as a store does
	require.Equal(t, []string{"rotate ok", "get ok"}, recorded(t, &log))
	require.Contains(t, log.String(), `"detail":"by its rotation policy"`)

	log.Reset()
	s := &session{app: &app{err: io.Discard}, ctx: audit.WithRequestID(t.Context(), "of the command"), log: audit.NewLog(&log, nil)}
	on := s.vaultOptions("keeper").OnEvent
	id := vault.KeyID{Vault: "local:0", Name: "old"}
	on(local.Event{Kind: local.KeyNearExpiry, Key: id})
	on(local.Event{Kind: local.KeyPurged, Key: id})
	on(local.Event{Kind: local.RotationFailed, Key: id, Err: vault.ErrUnavailable})
	require.Equal(t, []string{"purge ok", "rotate unavailable"}, recorded(t, &log))
	for r := range audit.Records(&log, nil) {
		require.Equal(t, "keeper", r.Identity)
		require.Equal(t, id.String(), r.Key)
		require.Equal(t, "of the command", r.RequestID)
	}
	s.log = audit.NewLog(&full{}, nil)
	on(local.Event{Kind: local.KeyPurged, Key: id})
	require.ErrorIs(t, s.close(), audit.ErrNotRecorded)
}

// full is a disk that has room for some writes.
type full struct{ room int }

func (f *full) Write(p []byte) (int, error) {
	if f.room--; f.room < 0 {
		return 0, errors.New("no space left on device")
	}
	return len(p), nil
}

// A secret that is not on record as handed out is in no file; nor is anything done that
// is known not to be recorded.
func TestWhatIsNotRecordedIsNotHandedOut(t *testing.T) {
	t.Parallel()
	g := newRig(t)
	g.env["BLOCKSEAL_ESCROW_PASSPHRASE"] = "a passphrase in the safe"
	cheap := []string{"--kdf", "pbkdf2", "--kdf-passes", "1000"}
	g.env["BLOCKSEAL_AUDIT"] = "full"
	for _, args := range [][]string{
		{"key", "backup", "customer", "--out", g.path("out")},
		{"vault", "backup-secret", "--out", g.path("out")},
		append([]string{"vault", "escrow", "--out", g.path("out")}, cheap...),
	} {
		g.log = &full{}
		g.fails(exitFailure, "could not be recorded", args...)
		require.NoFileExists(t, g.path("out"), args)
		g.log = &bytes.Buffer{}
		g.fails(exitFailure, "no such file", append(args, "--out", g.path("no/such/out"))...)
		require.Empty(t, g.log, "what cannot be kept is not fetched")
	}
	g.log = &full{room: 1}
	g.fails(exitFailure, "the vault was made, and its backup secret was not written", append([]string{"vault", "init", "--vault", g.path("v"), "--backup-secret-out", g.path("out")}, cheap...)...)
	require.NoFileExists(t, g.path("out"))
	g.log = nil
	delete(g.env, "BLOCKSEAL_AUDIT")
	g.ok("vault", "info", "--vault", g.path("v"))
	g.ok("vault", "backup-secret", "--vault", g.path("v"), "--out", g.path("out"))
}
