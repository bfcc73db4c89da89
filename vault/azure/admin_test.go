package azure_test

import (
	"net/http"
	"strings"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/blockseal/blockseal/internal/keyvaulttest"
	"github.com/blockseal/blockseal/vault"
	"github.com/blockseal/blockseal/vault/azure"
	"github.com/blockseal/blockseal/vault/local"
	"github.com/blockseal/blockseal/vault/vaulttest"
)

const officer = "officer" // the identity of the key administrator

// admin returns the control plane of an identity with grants, all that an
// administrator has unless told.
func (r *rig) admin(grants ...local.Permission) *azure.Admin {
	r.t.Helper()
	if grants == nil {
		grants = append(local.ControlPlane(), vault.OpGet)
	}
	_, err := r.AddIdentity(officer, grants...)
	require.NoError(r.t, err)
	a, err := azure.NewAdmin(r.URL(), r.Credential(officer), r.options())
	require.NoError(r.t, err)
	return a
}

// A key's whole life, as the administrator's client sees it.
func TestAdminKeyLife(t *testing.T) {
	t.Parallel()
	clock := vaulttest.NewClock(time.Now())
	r := newRig(t, &keyvaulttest.Options{Clock: clock})
	a, ctx := r.admin(), t.Context()
	require.Equal(t, r.URL(), a.URL())
	require.Equal(t, a.URL(), r.client().URL())
	expires := clock.Now().Add(100 * 24 * time.Hour).Truncate(time.Second)

	first, err := a.CreateKey(ctx, "life", &azure.KeyOptions{Expires: expires, Tags: map[string]string{"for": "tests"}})
	require.NoError(t, err)
	require.Equal(t, r.URL(), first.ID.Vault)
	require.Equal(t, "life", first.ID.Name)
	require.Len(t, first.ID.Version, 32)
	require.True(t, first.Enabled)
	require.True(t, first.Expires.Equal(expires))
	require.ElementsMatch(t, []vault.Operation{vault.OpGet, vault.OpWrapKey, vault.OpUnwrapKey}, first.Operations)
	require.Equal(t, 2048, first.Public.N.BitLen())

	// Its store wraps under the first version, the key is rotated, and both versions serve.
	v := r.client()
	w, err := v.WrapKey(ctx, first.ID.Versionless(), []byte("secret"))
	require.NoError(t, err)
	clock.Advance(time.Hour)
	second, err := a.RotateKey(ctx, "life")
	require.NoError(t, err)
	require.NotEqual(t, first.ID, second.ID)
	got, err := v.UnwrapKey(ctx, w)
	require.NoError(t, err)
	require.Equal(t, "secret", string(got))
	versions, err := a.Versions(ctx, "life")
	require.NoError(t, err)
	require.Len(t, versions, 2)
	require.Equal(t, first.ID, versions[0].ID)
	require.Equal(t, second.ID, versions[1].ID)
	require.True(t, versions[0].Created.Before(versions[1].Created))

	// Properties, one version at a time.
	off := false
	k, err := a.UpdateKey(ctx, first.ID, azure.Update{Enabled: &off})
	require.NoError(t, err)
	require.False(t, k.Enabled)
	require.True(t, k.Expires.Equal(expires), "what is not named stays")
	_, err = v.UnwrapKey(ctx, w)
	require.ErrorIs(t, err, vault.ErrKeyDisabled)
	on, never, later := true, time.Time{}, clock.Now().Add(time.Hour).Truncate(time.Second)
	k, err = a.UpdateKey(ctx, first.ID, azure.Update{Enabled: &on, Expires: &never, NotBefore: &later, Operations: []vault.Operation{vault.OpUnwrapKey}})
	require.NoError(t, err)
	require.True(t, k.Enabled)
	require.Zero(t, k.Expires, "a zero time unsets")
	require.True(t, k.NotBefore.Equal(later))
	require.False(t, k.Permits(vault.OpWrapKey))
	k, err = a.GetKey(ctx, first.ID)
	require.NoError(t, err)
	require.True(t, k.NotBefore.Equal(later))

	// Backup, deletion, recovery, purge, restoration.
	backup, err := a.BackupKey(ctx, "life")
	require.NoError(t, err)
	require.NotEmpty(t, backup)
	_, err = a.RestoreKey(ctx, backup)
	require.ErrorIs(t, err, vault.ErrKeyExists)
	at, err := a.DeleteKey(ctx, "life")
	require.NoError(t, err)
	require.True(t, at.Equal(clock.Now().Truncate(time.Second).Add(90*24*time.Hour)), at)
	_, err = v.UnwrapKey(ctx, w)
	require.ErrorIs(t, err, vault.ErrKeyNotFound)
	deleted, err := a.ListDeleted(ctx)
	require.NoError(t, err)
	require.Len(t, deleted, 1)
	require.Equal(t, "life", deleted[0].ID.Name)
	require.True(t, deleted[0].PurgeAt.Equal(at))
	one, err := a.GetDeleted(ctx, "life")
	require.NoError(t, err)
	require.True(t, one.Deleted.Equal(deleted[0].Deleted))
	_, err = a.CreateKey(ctx, "life", nil)
	require.ErrorIs(t, err, vault.ErrKeyDeleted)
	require.ErrorContains(t, err, "recover the key to use it, or purge it to free its name")
	_, err = a.RestoreKey(ctx, backup)
	require.ErrorIs(t, err, vault.ErrKeyDeleted)
	k, err = a.RecoverKey(ctx, "life")
	require.NoError(t, err)
	require.Equal(t, second.ID, k.ID)
	got, err = v.UnwrapKey(ctx, w)
	require.NoError(t, err)
	require.Equal(t, "secret", string(got))
	_, err = a.DeleteKey(ctx, "life")
	require.NoError(t, err)
	require.NoError(t, a.PurgeKey(ctx, "life"))
	require.ErrorIs(t, a.PurgeKey(ctx, "life"), vault.ErrKeyNotFound)
	_, err = a.RecoverKey(ctx, "life")
	require.ErrorIs(t, err, vault.ErrKeyNotFound)
	_, err = a.Versions(ctx, "life")
	require.ErrorIs(t, err, vault.ErrKeyNotFound)
	k, err = a.RestoreKey(ctx, backup)
	require.NoError(t, err)
	require.Equal(t, second.ID, k.ID, "all versions, under the ids that they had")
	got, err = v.UnwrapKey(ctx, w)
	require.NoError(t, err)
	require.Equal(t, "secret", string(got))
	keys, err := a.ListKeys(ctx)
	require.NoError(t, err)
	require.Len(t, keys, 2)
	require.Equal(t, "kek", keys[0].ID.Name)
	require.Equal(t, "life", keys[1].ID.Name)
}

// Success that did not do what was asked for is an error, which names what is not as it
// should be. Key Vault is known to leave a date that was to be unset.
func TestUpdateThatIsIgnored(t *testing.T) {
	t.Parallel()
	r := newRig(t, nil)
	a, ctx := r.admin(), t.Context()
	never, soon, later, off := time.Time{}, time.Now().Add(time.Minute), time.Now().Add(time.Hour), false
	k, err := a.UpdateKey(ctx, r.key, azure.Update{Expires: &later})
	require.NoError(t, err)
	expires := float64(k.Expires.Unix())
	attributes := func(change func(map[string]any)) func() {
		return r.Inject(keyvaulttest.Fault{Op: "update", Times: 1, Mutate: func(b map[string]any) { change(b["attributes"].(map[string]any)) }})
	}
	for name, tt := range map[string]struct {
		update azure.Update
		ignore func()
		says   string
	}{
		"a date that stays":    {azure.Update{Expires: &never}, func() { attributes(func(m map[string]any) { m["exp"] = expires }) }, "Expires is " + k.Expires.Format(time.RFC3339) + ", as before"},
		"a date that is unset": {azure.Update{NotBefore: &soon}, func() { attributes(func(m map[string]any) { delete(m, "nbf") }) }, "NotBefore is not set, as before"},
		"not disabled":         {azure.Update{Enabled: &off}, func() { attributes(func(m map[string]any) { m["enabled"] = true }) }, "Enabled is true, as before"},
		"operations": {azure.Update{Operations: []vault.Operation{vault.OpUnwrapKey}}, func() {
			r.Inject(keyvaulttest.Fault{Op: "update", Times: 1, Mutate: func(b map[string]any) {
				b["key"].(map[string]any)["key_ops"] = []any{"wrapKey", "unwrapKey"}
			}})
		}, "Operations are [get wrapKey unwrapKey], as before"},
	} {
		t.Run(name, func(t *testing.T) {
			tt.ignore()
			k, err := a.UpdateKey(ctx, r.key, tt.update)
			require.ErrorIs(t, err, azure.ErrIgnored)
			require.False(t, vault.Denied(err))
			require.ErrorContains(t, err, tt.says)
			require.Equal(t, r.key, k.ID, "the key as it is")
		})
	}
}

func TestAdminRotationPolicy(t *testing.T) {
	t.Parallel()
	r := newRig(t, nil)
	a, ctx := r.admin(), t.Context()
	const day = 24 * time.Hour
	for _, p := range []azure.RotationPolicy{
		{RotateAfter: 90 * day, ExpiresAfter: 730 * day, NotifyBefore: 30 * day},
		{RotateBeforeExpiry: 30 * day, ExpiresAfter: 365 * day, NotifyBefore: 30 * day},
		{NotifyBefore: 30 * day},
		{RotateAfter: 90 * day, ExpiresAfter: 730 * day, NotifyBefore: 60 * day},
	} {
		require.NoError(t, a.SetRotationPolicy(ctx, "kek", p))
		got, err := a.RotationPolicy(ctx, "kek")
		require.NoError(t, err)
		require.Equal(t, p, got)
	}
	for want, p := range map[string]azure.RotationPolicy{
		"RotateAfter is 24h0m0s, want whole days, at least 7":    {RotateAfter: day},
		"RotateAfter is 169h0m0s, want whole days":               {RotateAfter: 7*day + time.Hour},
		"ExpiresAfter is 648h0m0s, want whole days, at least 28": {ExpiresAfter: 27 * day},
		"exclude each other":                                     {RotateAfter: 30 * day, RotateBeforeExpiry: 30 * day, ExpiresAfter: 90 * day},
		"RotateBeforeExpiry needs ExpiresAfter":                  {RotateBeforeExpiry: 30 * day},
		"would expire after 30 days, before the policy":          {RotateAfter: 30 * day, ExpiresAfter: 30 * day},
	} {
		err := a.SetRotationPolicy(ctx, "kek", p)
		require.ErrorIs(t, err, azure.ErrInvalid)
		require.ErrorContains(t, err, want)
	}
	_, err := a.RotationPolicy(ctx, "none")
	require.ErrorIs(t, err, vault.ErrKeyNotFound)
	remove := r.Inject(keyvaulttest.Fault{Op: "getrotationpolicy", Replace: `{"attributes":{"expiryTime":"P1Y2M"},"lifetimeActions":[{"action":{"type":"ROTATE"},"trigger":{"timeAfterCreate":"PT240H"}}]}`})
	got, err := a.RotationPolicy(ctx, "kek")
	require.NoError(t, err)
	require.Equal(t, azure.RotationPolicy{RotateAfter: 10 * day, ExpiresAfter: (365 + 60) * day}, got)
	remove()
	r.Inject(keyvaulttest.Fault{Op: "getrotationpolicy", Replace: `{"attributes":{"expiryTime":"soon"}}`})
	_, err = a.RotationPolicy(ctx, "kek")
	require.ErrorIs(t, err, vault.ErrUnavailable)
	require.ErrorContains(t, err, "a duration that cannot be read")
}

// An administrator without a permission is told which, and with a managed HSM's roles
// for a managed HSM.
func TestAdminPermissions(t *testing.T) {
	t.Parallel()
	for _, tt := range []struct{ url, role, purge string }{
		{"https://contoso.vault.azure.net", "Key Vault Crypto Officer", "Key Vault Crypto Officer"},
		{"https://contoso.managedhsm.azure.net", "Managed HSM Crypto User", "Managed HSM Crypto Officer"},
	} {
		o := &keyvaulttest.Options{URL: tt.url}
		if strings.Contains(tt.url, "managedhsm") {
			o.Audience = "https://managedhsm.azure.net"
		}
		r := newRig(t, o)
		a, ctx := r.admin(vault.OpWrapKey), t.Context()
		_, err := r.Server.Vault().DeleteKey(ctx, r.local(r.newVersion("gone")).Name)
		require.NoError(t, err)
		for op, err := range map[vault.Operation]error{
			azure.OpCreate:            second(a.CreateKey(ctx, "new", nil)),
			azure.OpImport:            second(a.ImportFile(ctx, "new", importable(t, "rsa2048.pem"), nil, nil)),
			azure.OpUpdate:            second(a.UpdateKey(ctx, r.key, azure.Update{})),
			azure.OpRotate:            second(a.RotateKey(ctx, "kek")),
			azure.OpDelete:            second(a.DeleteKey(ctx, "kek")),
			azure.OpRecover:           second(a.RecoverKey(ctx, "gone")),
			azure.OpPurge:             a.PurgeKey(ctx, "gone"),
			azure.OpBackup:            second(a.BackupKey(ctx, "kek")),
			azure.OpRestore:           second(a.RestoreKey(ctx, []byte("backup"))),
			azure.OpList:              second(a.ListKeys(ctx)),
			azure.OpSetRotationPolicy: a.SetRotationPolicy(ctx, "kek", azure.RotationPolicy{}),
			azure.OpGetRotationPolicy: second(a.RotationPolicy(ctx, "kek")),
			vault.OpGet:               second(a.GetKey(ctx, r.key)),
		} {
			role := tt.role
			switch op {
			case vault.OpGet:
				role = "Crypto Service Encryption User"
			case azure.OpPurge, azure.OpRecover:
				role = tt.purge
			}
			require.ErrorIs(t, err, vault.ErrAccessDenied, op)
			require.ErrorContains(t, err, "vault: "+string(op)+" ")
			require.ErrorContains(t, err, role, op)
		}
	}
}

func second[T any](_ T, err error) error { return err }

// What makes no sense, from the administrator or from the vault.
func TestAdminRefuses(t *testing.T) {
	t.Parallel()
	r := newRig(t, nil)
	a, ctx := r.admin(), t.Context()
	_, err := azure.NewAdmin("http://contoso.vault.azure.net", r.Credential(officer), nil)
	require.ErrorContains(t, err, "does not start with https://")
	_, err = azure.NewAdmin(r.URL(), nil, nil)
	require.ErrorContains(t, err, "no credential")
	_, err = a.CreateKey(ctx, "no/name", nil)
	require.Error(t, err)
	_, err = a.GetKey(ctx, vault.KeyID{Vault: "https://other.vault.azure.net", Name: "kek"})
	require.ErrorIs(t, err, vault.ErrKeyNotFound)
	_, err = a.RestoreKey(ctx, nil)
	require.ErrorIs(t, err, azure.ErrInvalid)
	_, err = a.RestoreKey(ctx, []byte("no backup"))
	require.ErrorIs(t, err, azure.ErrInvalid)

	for _, tt := range []struct {
		op, body string
		call     func() error
		kind     error
	}{
		{"list", `{"value":[{"kid":"https://other.vault.azure.net/keys/kek","attributes":{"enabled":true}}]}`, func() error { return second(a.ListKeys(ctx)) }, vault.ErrUnsupportedKey},
		{"list", `{"value":[{"kid":"kek","attributes":{"enabled":true}}]}`, func() error { return second(a.ListKeys(ctx)) }, vault.ErrUnavailable},
		{"list", `{"value":[{"kid":"https://x/keys/kek"}]}`, func() error { return second(a.ListKeys(ctx)) }, vault.ErrUnavailable},
		{"listdeleted", `{"value":[{}]}`, func() error { return second(a.ListDeleted(ctx)) }, vault.ErrUnavailable},
		{"getdeleted", `{}`, func() error { return second(a.GetDeleted(ctx, "kek")) }, vault.ErrUnavailable},
		{"backup", `{}`, func() error { return second(a.BackupKey(ctx, "kek")) }, vault.ErrUnavailable},
		{"restore", `{}`, func() error { return second(a.RestoreKey(ctx, []byte("backup"))) }, vault.ErrUnavailable},
		{"rotate", `{"key":{}}`, func() error { return second(a.RotateKey(ctx, "kek")) }, vault.ErrUnavailable},
	} {
		replace := keyvaulttest.Fault{Op: tt.op, Status: http.StatusOK, Body: tt.body}
		remove := r.Inject(replace)
		require.ErrorIs(t, tt.call(), tt.kind, tt.body)
		remove()
	}
}

// A list of several pages is read to its end.
func TestAdminReadsAllPages(t *testing.T) {
	t.Parallel()
	r := newRig(t, nil)
	a, ctx := r.admin(), t.Context()
	r.newVersion("another")
	r.Inject(keyvaulttest.Fault{Op: "list", Times: 1, Status: http.StatusOK,
		Body: `{"value":[{"kid":"` + r.URL() + `/keys/z-first","attributes":{"enabled":false,"created":1700000000}}],"nextLink":"` + r.URL() + `/keys?api-version=` + keyvaulttest.APIVersion + `"}`})
	keys, err := a.ListKeys(ctx)
	require.NoError(t, err)
	var names []string
	for _, k := range keys {
		names = append(names, k.ID.Name)
	}
	require.Equal(t, []string{"another", "kek", "z-first"}, names)
	require.False(t, keys[2].Enabled)
	require.Equal(t, time.Unix(1700000000, 0).UTC(), keys[2].Created)
}

// Key Vault makes a new version of a key that exists, so that it is not asked to.
func TestCreateKeyLooksFirst(t *testing.T) {
	t.Parallel()
	r := newRig(t, nil)
	a, ctx := r.admin(), t.Context()
	before := r.Requests("create") + r.Requests("import")
	_, err := a.CreateKey(ctx, "kek", nil)
	require.ErrorIs(t, err, vault.ErrKeyExists)
	require.EqualError(t, err, "vault: create "+r.key.Versionless().String()+
		": key exists: use it as it is, or ask for a new version of it, to which the stores on it will follow; nothing was changed")
	_, err = a.ImportFile(ctx, "kek", importable(t, "rsa2048.pem"), nil, nil)
	require.ErrorIs(t, err, vault.ErrKeyExists)
	_, err = a.CreateKey(ctx, "new", &azure.KeyOptions{NewVersion: true})
	require.ErrorIs(t, err, vault.ErrKeyNotFound)
	_, err = a.EnsureKey(ctx, "kek", &azure.KeyOptions{NewVersion: true})
	require.ErrorIs(t, err, azure.ErrInvalid)
	k, err := a.EnsureKey(ctx, "kek", nil)
	require.NoError(t, err)
	require.Equal(t, r.key, k.ID)
	require.Equal(t, before, r.Requests("create")+r.Requests("import"))

	_, err = r.AddIdentity("blind", azure.OpCreate)
	require.NoError(t, err)
	blind, err := azure.NewAdmin(r.URL(), r.Credential("blind"), r.options())
	require.NoError(t, err)
	_, err = blind.CreateKey(ctx, "new", nil)
	require.ErrorIs(t, err, vault.ErrAccessDenied)
	require.ErrorContains(t, err, "vault: create ")
	require.ErrorContains(t, err, "it is looked for, which takes the permission get")

	// One that was made in the moment between.
	remove := r.Inject(keyvaulttest.Fault{Op: "get", Times: 1, Status: 404, Code: "KeyNotFound"})
	defer remove()
	k, err = a.EnsureKey(ctx, "kek", nil)
	require.NoError(t, err)
	require.Equal(t, r.key, k.ID)
}
