package block_test

import (
	"encoding/pem"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/blockseal/blockseal/internal/test/accesstest"
	"github.com/blockseal/blockseal/internal/test/testkeys"
	"github.com/blockseal/blockseal/vault"
	"github.com/blockseal/blockseal/vault/local"
	"github.com/blockseal/blockseal/vault/vaulttest"
)

// Every way of losing access, and the way back, with a vault in memory that behaves
// like Key Vault.
func TestAccess(t *testing.T) {
	accesstest.Run(t, memWorld)
}

// The same with the vault in a directory, as far as it can lose its ways.
func TestAccessWithFileVault(t *testing.T) {
	accesstest.Run(t, fileWorld)
}

func memWorld(t *testing.T, clock *vaulttest.Clock) accesstest.World {
	v := vaulttest.New(&vaulttest.Options{Clock: clock})
	id := v.CreateKey("customer")
	after := func(d string) time.Time { return clock.Now().Add(duration(t, d)) }
	remove := func() {}
	inject := func(f vaulttest.Fault) { remove = v.Inject(f) }
	outage := func(err func() *vault.Error) func(string) { return func(string) { v.SetOutage(err()) } }
	return accesstest.World{
		Name: "mem", Vault: v, Key: id,
		Verbs: map[string]func(string){
			"revoke":          func(op string) { v.Revoke(vault.Operation(op)) },
			"grant":           func(op string) { v.Restore(vault.Operation(op)) },
			"disable":         func(string) { v.SetEnabled(id, false) },
			"enable":          func(string) { v.SetEnabled(id, true) },
			"expire":          func(d string) { v.SetDates(id, time.Time{}, after(d)) },
			"activate":        func(d string) { v.SetDates(id, after(d), time.Time{}) },
			"undate":          func(string) { v.SetDates(id, time.Time{}, time.Time{}) },
			"delete":          func(string) { v.Delete(id.Name) },
			"recover":         func(string) { v.Recover(id.Name) },
			"purge":           func(string) { v.Purge(id.Name) },
			"destroy":         func(string) { v.DestroyVersion(id) },
			"rotate":          func(string) { v.Rotate(id.Name) },
			"swap":            func(string) { v.ReplaceMaterial(id) },
			"delete-vault":    outage(vaulttest.VaultDeleted),
			"firewall":        outage(vaulttest.ForbiddenByFirewall),
			"delete-identity": outage(vaulttest.IdentityDeleted),
			"wrong-tenant":    outage(vaulttest.WrongTenant),
			"throttle":        func(d string) { v.SetOutage(vaulttest.Throttled(duration(t, d))) },
			"unreachable":     outage(vaulttest.NetworkGone),
			"break": func(op string) {
				inject(vaulttest.Fault{Op: vault.Operation(op), Err: vaulttest.Unavailable()})
			},
			"hang":   func(string) { inject(vaulttest.Fault{Hang: true}) },
			"stick":  func(string) { inject(vaulttest.Fault{Stuck: true}) },
			"answer": func(string) { v.SetOutage(nil); remove() },
		},
	}
}

func duration(t *testing.T, s string) time.Duration {
	d, err := time.ParseDuration(s)
	require.NoError(t, err)
	return d
}

// fileWorld is a vault in a directory, which the store uses as the identity
// "ingest". It is out of reach when its directory is.
func fileWorld(t *testing.T, clock *vaulttest.Clock) accesstest.World {
	ctx := t.Context()
	dir := filepath.Join(t.TempDir(), "vault")
	v, err := local.Create(dir, []byte("only a test"), &local.Options{
		Clock: clock, InsecureKDF: true, KDF: local.KDF{Algorithm: local.PBKDF2, Passes: 10}})
	require.NoError(t, err)
	t.Cleanup(func() { require.NoError(t, v.Close()) })
	pool := testkeys.PEM()
	var opts local.KeyOptions
	newVersion := func() vault.KeyID { // reading a key pair takes a thousandth of making one
		first, rest := pem.Decode(pool)
		pool = rest
		private, err := local.ParsePEM(pem.EncodeToMemory(first), nil)
		require.NoError(t, err)
		k, err := v.ImportKey(ctx, "customer", private, &opts)
		require.NoError(t, err)
		opts.NewVersion = true
		return k.ID
	}
	id := newVersion()
	grant := func(string) { require.NoError(t, v.Grant(ctx, "ingest", local.DataPlane()...)) }
	grant("")
	update := func(u local.Update) {
		_, err := v.UpdateKey(ctx, id, u)
		require.NoError(t, err)
	}
	after := func(d string) *time.Time {
		at := clock.Now().Add(duration(t, d))
		return &at
	}
	enabled, disabled, never := true, false, time.Time{}
	moveAway := func(string) { require.NoError(t, os.Rename(dir, dir+" away")) }
	const noNetwork = "a vault in a directory is reached without a network"
	return accesstest.World{
		Name: "local", Vault: v.As("ingest"), Key: id,
		Verbs: map[string]func(string){
			"revoke":   func(op string) { require.NoError(t, v.Revoke(ctx, "ingest", vault.Operation(op))) },
			"grant":    func(op string) { require.NoError(t, v.Grant(ctx, "ingest", vault.Operation(op))) },
			"disable":  func(string) { update(local.Update{Enabled: &disabled}) },
			"enable":   func(string) { update(local.Update{Enabled: &enabled}) },
			"expire":   func(d string) { update(local.Update{Expires: after(d)}) },
			"activate": func(d string) { update(local.Update{NotBefore: after(d)}) },
			"undate":   func(string) { update(local.Update{NotBefore: &never, Expires: &never}) },
			"delete": func(string) {
				_, err := v.DeleteKey(ctx, id.Name)
				require.NoError(t, err)
			},
			"recover": func(string) {
				_, err := v.RecoverKey(ctx, id.Name)
				require.NoError(t, err)
			},
			"purge":           func(string) { require.NoError(t, v.PurgeKey(ctx, id.Name)) },
			"rotate":          func(string) { newVersion() },
			"delete-identity": func(string) { require.NoError(t, v.Revoke(ctx, "ingest")) },
			"delete-vault":    moveAway,
			"unreachable":     moveAway,
			"answer": func(string) {
				if _, err := os.Stat(dir); err != nil {
					require.NoError(t, os.Rename(dir+" away", dir))
				}
				grant("")
			},
		},
		NotApplicable: map[string]string{
			"destroy":      "a version is not removed alone",
			"swap":         "the material of a version is never exchanged",
			"firewall":     noNetwork,
			"throttle":     noNetwork,
			"break":        noNetwork,
			"hang":         noNetwork,
			"stick":        noNetwork,
			"wrong-tenant": "identities are the vault's own",
		},
		Hide: strings.NewReplacer(dir, "<dir>"),
	}
}
