package block_test

import (
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/blockseal/blockseal/internal/accesstest"
	"github.com/blockseal/blockseal/vault"
	"github.com/blockseal/blockseal/vault/vaulttest"
)

// Every way of losing access, and the way back, with a vault in memory that behaves
// like Key Vault.
func TestAccess(t *testing.T) {
	accesstest.Run(t, memWorld)
}

func memWorld(t *testing.T, clock *vaulttest.Clock) accesstest.World {
	v := vaulttest.New(&vaulttest.Options{Clock: clock})
	id := v.CreateKey("customer")
	duration := func(s string) time.Duration {
		d, err := time.ParseDuration(s)
		require.NoError(t, err)
		return d
	}
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
			"expire":          func(d string) { v.SetDates(id, time.Time{}, clock.Now().Add(duration(d))) },
			"activate":        func(d string) { v.SetDates(id, clock.Now().Add(duration(d)), time.Time{}) },
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
			"throttle":        func(d string) { v.SetOutage(vaulttest.Throttled(duration(d))) },
			"unreachable":     outage(vaulttest.NetworkGone),
			"hang":            func(string) { inject(vaulttest.Fault{Hang: true}) },
			"stick":           func(string) { inject(vaulttest.Fault{Stuck: true}) },
			"answer":          func(string) { v.SetOutage(nil); remove() },
		},
	}
}
