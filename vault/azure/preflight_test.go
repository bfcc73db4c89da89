package azure_test

import (
	"encoding/json"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/blockseal/blockseal/internal/keyvaulttest"
	"github.com/blockseal/blockseal/vault"
	"github.com/blockseal/blockseal/vault/azure"
	"github.com/blockseal/blockseal/vault/local"
	"github.com/blockseal/blockseal/vault/vaulttest"
)

// outcomes returns the outcome of each check by its name.
func outcomes(r azure.Report) map[string]string {
	m := map[string]string{}
	for _, c := range r.Checks {
		m[c.Name] = c.Status.String()
	}
	return m
}

func check(t *testing.T, r azure.Report, name string) azure.Check {
	t.Helper()
	for _, c := range r.Checks {
		if c.Name == name {
			return c
		}
	}
	require.Fail(t, "no check "+name, r.String())
	return azure.Check{}
}

func TestPreflightPasses(t *testing.T) {
	t.Parallel()
	r := newRig(t, &keyvaulttest.Options{PurgeProtection: true, RetentionDays: 30})
	before := r.Requests("")
	// By a clock that stands still no call is slow.
	v := r.client(func(o *azure.Options) { o.WrapLocally, o.Clock = true, vaulttest.NewClock(time.Now()) })
	report := v.Preflight(t.Context(), r.key.Versionless(), &azure.PreflightOptions{Tenant: r.Tenant()})
	require.True(t, report.OK(), report)
	require.Equal(t, azure.Pass, report.Worst())
	require.Equal(t, 3, r.Requests("")-before, "get, wrapKey, unwrapKey")
	require.Equal(t, 1, r.Requests("wrapKey"), "a real wrap, whatever the options")
	require.Equal(t, r.key.String(), report.Key)
	require.Equal(t, r.Tenant(), report.Tenant)
	var names []string
	for _, c := range report.Checks {
		names = append(names, c.Name)
		require.Empty(t, c.Remedy)
		require.NotEmpty(t, c.Detail)
	}
	require.Equal(t, []string{"tenant", "get", "soft delete", "purge protection", "key type", "key operations", "enabled", "dates", "wrap", "unwrap", "latency"}, names)
	require.Contains(t, report.String(), "pass  soft delete        on: a deleted key can be recovered for 30 days\n")
	b, err := json.Marshal(report)
	require.NoError(t, err)
	require.Contains(t, string(b), `{"name":"purge protection","status":"pass","detail":"on"}`)

	a := r.admin()
	require.Equal(t, "warn", outcomes(a.Preflight(t.Context(), v, r.key.Versionless(), nil))["rotation policy"])
	require.NoError(t, a.SetRotationPolicy(t.Context(), "kek", azure.RotationPolicy{RotateAfter: 90 * 24 * time.Hour}))
	report = a.Preflight(t.Context(), v, r.key.Versionless(), nil)
	require.Equal(t, azure.Pass, report.Worst(), report)
	require.Equal(t, "1, of which 1 are enabled", check(t, report, "versions").Detail)
	require.Contains(t, check(t, a.Preflight(t.Context(), v, r.key, nil), "rotation policy").Detail, "pinned to one version")
}

// Each finding by itself: what is changed, and which check says so.
func TestPreflightFinds(t *testing.T) {
	t.Parallel()
	soon := func(d time.Duration) *time.Time { at := time.Now().Add(d); return &at }
	jwk := func(change func(map[string]any)) func(*rig) {
		return func(r *rig) { r.Inject(mutateKey(change)) }
	}
	attributes := func(name string, value any) func(*rig) {
		return func(r *rig) {
			r.Inject(keyvaulttest.Fault{Op: "get", Mutate: func(b map[string]any) { b["attributes"].(map[string]any)[name] = value }})
		}
	}
	for _, tt := range []struct {
		name   string
		change func(r *rig)
		check  string
		status azure.Status
		detail string
		remedy string
		ends   bool // the report ends there
	}{
		{"no purge protection", attributes("recoveryLevel", "Recoverable+Purgeable"), "purge protection", azure.Fail, "can be purged at once, and everything under it is lost", "az keyvault update --enable-purge-protection true", false},
		{"no soft delete", attributes("recoveryLevel", "Purgeable"), "soft delete", azure.Fail, "gone at once", "--enable-soft-delete true", false},
		{"no recovery level", attributes("recoveryLevel", nil), "purge protection", azure.Fail, "off", "", false},
		{"a short key", jwk(func(k map[string]any) { k["n"] = k["n"].(string)[:171] }), "key type", azure.Fail, "does not have 2048 bits", "--size 2048", false},
		{"no unwrap", func(r *rig) { r.update(r.key, local.Update{Operations: []vault.Operation{vault.OpWrapKey}}) }, "key operations", azure.Fail, "does not permit both", "--ops wrapKey unwrapKey", false},
		{"decrypt too", jwk(func(k map[string]any) { k["key_ops"] = []string{"wrapKey", "unwrapKey", "decrypt", "encrypt"} }), "key operations", azure.Warn, "decrypt, encrypt too: whoever may decrypt", "--ops", false},
		{"sign too", jwk(func(k map[string]any) { k["key_ops"] = []string{"wrapKey", "unwrapKey", "sign"} }), "key operations", azure.Warn, "one use", "--ops", false},
		{"disabled", func(r *rig) { r.setEnabled(false) }, "enabled", azure.Fail, "is disabled", "--enabled true", false},
		{"expired", func(r *rig) { r.update(r.key, local.Update{Expires: soon(-time.Hour)}) }, "dates", azure.Fail, "expired at", "rotate", false},
		{"expires soon", func(r *rig) { r.update(r.key, local.Update{Expires: soon(73 * time.Hour)}) }, "dates", azure.Warn, "in 3 days", "rotation policy", false},
		{"expires late", func(r *rig) { r.update(r.key, local.Update{Expires: soon(1000 * time.Hour)}) }, "dates", azure.Pass, "in 41 days", "", false},
		{"not yet valid", func(r *rig) { r.update(r.key, local.Update{NotBefore: soon(time.Hour)}) }, "dates", azure.Fail, "valid from", "wait", false},
		{"not yet valid, so no wrap", func(r *rig) { r.update(r.key, local.Update{NotBefore: soon(time.Hour)}) }, "wrap", azure.Fail, "key not yet valid", "it is valid from", true},
		{"no permission to get", func(r *rig) { r.revoke(vault.OpGet) }, "get", azure.Fail, "has no role that permits it", "assign one", true},
		{"no permission to wrap", func(r *rig) { r.revoke(vault.OpWrapKey) }, "wrap", azure.Fail, "wrapKey", "Key Vault Crypto Service Encryption User", false},
		{"no permission to unwrap", func(r *rig) { r.revoke(vault.OpUnwrapKey) }, "unwrap", azure.Fail, "unwrapKey", "Key Vault Crypto Service Encryption User", false},
		{"another secret back", func(r *rig) {
			r.Inject(keyvaulttest.Fault{Op: "unwrapKey", Mutate: func(b map[string]any) { b["value"] = "AAAA" }})
		}, "unwrap", azure.Fail, "something else", "do not use this vault", false},
		{"no such key", func(r *rig) { require.NoError(r.t, second(r.Server.Vault().DeleteKey(r.t.Context(), "kek"))) }, "get", azure.Fail, "key not found", "there is no such key", true},
		{"no such vault", func(r *rig) { r.NoSuchHost() }, "get", azure.Fail, "does not resolve", "private DNS zone", true},
		{"no tenant", func(r *rig) { r.NoSuchHost() }, "tenant", azure.Warn, "named none", "look at what stands between", false},
	} {
		t.Run(tt.name, func(t *testing.T) {
			r := newRig(t, &keyvaulttest.Options{PurgeProtection: true})
			tt.change(r)
			report := r.client().Preflight(t.Context(), r.key.Versionless(), nil)
			c := check(t, report, tt.check)
			require.Equal(t, tt.status, c.Status, report)
			require.Contains(t, c.Detail, tt.detail)
			require.Contains(t, c.Remedy, tt.remedy)
			require.Equal(t, tt.status == azure.Fail || tt.name == "no tenant", !report.OK(), report)
			require.Equal(t, tt.remedy == "" && tt.status == azure.Pass, c.Remedy == "")
			if tt.ends {
				require.NotContains(t, outcomes(report), "unwrap")
			} else if tt.name != "no tenant" {
				require.Contains(t, outcomes(report), "latency")
			}
			require.NotContains(t, report.String(), "eyJ", "no token")
		})
	}
}

func (r *rig) revoke(op vault.Operation) {
	require.NoError(r.t, r.Server.Vault().Revoke(r.t.Context(), store, op))
}

func TestPreflightOptions(t *testing.T) {
	t.Parallel()
	r := newRig(t, nil)
	ctx := t.Context()
	report := r.client().Preflight(ctx, r.key, &azure.PreflightOptions{AllowPurge: true})
	require.True(t, report.OK(), report)
	require.Equal(t, azure.Warn, report.Worst())
	report = r.client().Preflight(ctx, r.key, &azure.PreflightOptions{AllowPurge: true, Tenant: otherTenant})
	require.Equal(t, "fail", outcomes(report)["tenant"])
	in := time.Now().Add(50 * 24 * time.Hour)
	r.update(r.key, local.Update{Expires: &in})
	report = r.client().Preflight(ctx, r.key, &azure.PreflightOptions{ExpiryHorizon: 60 * 24 * time.Hour})
	require.Equal(t, "warn", outcomes(report)["dates"])
	report = r.client().Preflight(ctx, vault.KeyID{Vault: "https://fabrikam.vault.azure.net", Name: "kek"}, nil)
	require.Equal(t, map[string]string{"key": "fail"}, outcomes(report))
	report = r.admin().Preflight(ctx, r.client(), vault.KeyID{Vault: "https://fabrikam.vault.azure.net", Name: "kek"}, nil)
	require.Equal(t, "fail", outcomes(report)["administrator"])

	clock := vaulttest.NewClock(time.Now())
	slow := r.client(func(o *azure.Options) { o.Clock = clock })
	r.Inject(keyvaulttest.Fault{Op: "wrapKey", Mutate: func(map[string]any) { clock.Advance(1500 * time.Millisecond) }})
	c := check(t, slow.Preflight(ctx, r.key, nil), "latency")
	require.Equal(t, azure.Warn, c.Status)
	require.Equal(t, "the slowest of the calls took 1.5s", c.Detail)
	require.Equal(t, "pass", check(t, slow.Preflight(ctx, r.key, &azure.PreflightOptions{Slow: 2 * time.Second}), "latency").Status.String())
	require.Equal(t, "Status(0)", azure.Status(0).String())
}

// An administrator whose identity may not look is told so, and the rest stands.
func TestPreflightOfAnAdministratorWithoutPermissions(t *testing.T) {
	t.Parallel()
	r := newRig(t, &keyvaulttest.Options{PurgeProtection: true})
	report := r.admin(vault.OpWrapKey).Preflight(t.Context(), r.client(), r.key, nil)
	require.True(t, report.OK(), report)
	require.Equal(t, "warn", outcomes(report)["rotation policy"])
	require.Equal(t, "warn", outcomes(report)["versions"])
}
