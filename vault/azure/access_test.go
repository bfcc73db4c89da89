package azure_test

import (
	"strings"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/blockseal/blockseal/internal/keyvaulttest"
	"github.com/blockseal/blockseal/internal/test/accesstest"
	"github.com/blockseal/blockseal/internal/test/bubbles"
	"github.com/blockseal/blockseal/vault"
	"github.com/blockseal/blockseal/vault/azure"
	"github.com/blockseal/blockseal/vault/local"
	"github.com/blockseal/blockseal/vault/vaulttest"
)

// Every way of losing access, and the way back: the scripts that the file vault and the
// vault in memory pass, through the real client. The server is on a pipe, because the
// scripts run in bubbles of synctest. It does not run beside other tests: under fips140, who
// reads randomness at the same time as others needs a generator of its own (see bubble).
func TestAccess(t *testing.T) {
	accesstest.Run(t, world)
}

const requestID = "00000000-0000-4000-8000-000000000000"

func world(t *testing.T, clock *vaulttest.Clock) accesstest.World {
	r := newRig(t, &keyvaulttest.Options{InMemory: true, Clock: clock, RequestID: requestID})
	v := r.client(func(o *azure.Options) {
		o.Clock = bubbles.Resting{Clock: clock}
		o.Timeout = time.Minute // the keyring gives up before
	})
	who, err := r.AddIdentity(store)
	require.NoError(t, err)
	owner, ctx := r.Server.Vault(), t.Context()
	remove := func() {}
	inject := func(f keyvaulttest.Fault) func(string) {
		return func(string) { remove(); remove = r.Inject(f) }
	}
	duration := func(s string) time.Duration {
		d, err := time.ParseDuration(s)
		require.NoError(t, err)
		return d
	}
	after := func(d string) *time.Time {
		at := clock.Now().Add(duration(d))
		return &at
	}
	never := time.Time{}
	return accesstest.World{
		Name: "azure", Vault: v, Key: r.key, DeletedIsNotFound: true,
		Hide:          strings.NewReplacer(" [request "+requestID+"]", "", "the caller (application "+who.ClientID+", object "+who.ObjectID+")", "<caller>"),
		NotApplicable: map[string]string{"stick": "a call ends with its caller, whatever its transport does: TestACallEndsWithItsCallerBeforeItsTransport"},
		Verbs: map[string]func(string){
			"revoke":   func(op string) { require.NoError(t, owner.Revoke(ctx, store, vault.Operation(op))) },
			"grant":    func(op string) { require.NoError(t, owner.Grant(ctx, store, vault.Operation(op))) },
			"disable":  func(string) { r.setEnabled(false) },
			"enable":   func(string) { r.setEnabled(true) },
			"expire":   func(d string) { r.update(r.key, local.Update{Expires: after(d)}) },
			"activate": func(d string) { r.update(r.key, local.Update{NotBefore: after(d)}) },
			"undate":   func(string) { r.update(r.key, local.Update{NotBefore: &never, Expires: &never}) },
			"delete": func(string) {
				_, err := owner.DeleteKey(ctx, "kek")
				require.NoError(t, err)
			},
			"recover": func(string) {
				_, err := owner.RecoverKey(ctx, "kek")
				require.NoError(t, err)
			},
			"purge":  func(string) { require.NoError(t, owner.PurgeKey(ctx, "kek")) },
			"rotate": func(string) { r.newVersion("kek") },
			"destroy": inject(keyvaulttest.Fault{Version: r.key.Version, Status: 404, Code: "KeyNotFound",
				Message: "A key with (name/id) kek was not found in this key vault."}),
			"swap": inject(mutateKey(func(k map[string]any) {
				n := k["n"].(string)
				k["n"] = n[:100] + strings.Repeat("A", 10) + n[110:]
			})),
			"delete-vault": func(string) { r.NoSuchHost() },
			"firewall": inject(keyvaulttest.Fault{Status: 403, Code: "Forbidden", Inner: "ForbiddenByFirewall",
				Message: "Client address is not authorized and caller is not a trusted service.\r\nClient address: 203.0.113.7\r\n"}),
			"delete-identity": func(string) { r.DeleteIdentity(store) },
			"wrong-tenant":    func(string) { r.SetTenant(otherTenant) },
			"throttle": func(d string) {
				inject(keyvaulttest.Fault{Status: 429, Code: "Throttled", RetryAfter: seconds(duration(d))})("")
			},
			"break": func(op string) {
				inject(keyvaulttest.Fault{Op: op, Status: 503, Code: "ServiceUnavailable"})("")
			},
			"unreachable": func(string) { r.Unreachable() },
			"hang":        inject(keyvaulttest.Fault{Hang: true}),
			"answer": func(string) {
				remove()
				r.Reachable()
				r.RecoverIdentity(store)
				r.SetTenant(keyvaulttest.DefaultTenant)
			},
		},
	}
}
