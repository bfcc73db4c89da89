package local_test

import (
	"context"
	"crypto/rsa"
	"strings"
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/blockseal/blockseal/vault"
	"github.com/blockseal/blockseal/vault/local"
)

// calls are one call for each permission, in an order in which each can succeed
// after the one before. a and d are the two planes of one identity.
func calls(r *rig, a *local.Administrator, d *local.Identity) []struct {
	op   local.Permission
	call func(ctx context.Context) error
} {
	w := vault.Wrapped{KeyID: vault.KeyID{Name: "kek", Version: strings.Repeat("0", 32)}}
	var backup []byte
	kek := vault.KeyID{Name: "kek"}
	return []struct {
		op   local.Permission
		call func(ctx context.Context) error
	}{
		{local.OpCreate, func(ctx context.Context) error { _, err := a.CreateKey(ctx, "kek", nil); return err }},
		{local.OpImport, func(ctx context.Context) error {
			key, err := r.keys.generate()
			require.NoError(r.t, err)
			_, err = a.ImportKey(ctx, "kek", key, &local.KeyOptions{NewVersion: true})
			return err
		}},
		{local.OpUpdate, func(ctx context.Context) error { _, err := a.UpdateKey(ctx, kek, local.Update{}); return err }},
		{local.OpUpdate, func(ctx context.Context) error {
			return a.SetRotationPolicy(ctx, "kek", local.RotationPolicy{RotateAfter: day})
		}},
		{local.OpRotate, func(ctx context.Context) error { _, err := a.RotateKey(ctx, "kek"); return err }},
		{local.OpRotate, func(ctx context.Context) error { _, err := a.Maintain(ctx); return err }},
		{vault.OpGet, func(ctx context.Context) error { _, err := d.GetKey(ctx, kek); return err }},
		{vault.OpWrapKey, func(ctx context.Context) (err error) { w, err = d.WrapKey(ctx, kek, []byte("secret")); return err }},
		{vault.OpUnwrapKey, func(ctx context.Context) error { _, err := d.UnwrapKey(ctx, w); return err }},
		{local.OpList, func(ctx context.Context) error { _, err := a.ListKeys(ctx); return err }},
		{local.OpList, func(ctx context.Context) error { _, err := a.ListDeleted(ctx); return err }},
		{local.OpList, func(ctx context.Context) error { _, err := a.Versions(ctx, "kek"); return err }},
		{local.OpBackup, func(ctx context.Context) (err error) { backup, err = a.BackupKey(ctx, "kek"); return err }},
		{local.OpDelete, func(ctx context.Context) error { _, err := a.DeleteKey(ctx, "kek"); return err }},
		{local.OpRecover, func(ctx context.Context) error { _, err := a.RecoverKey(ctx, "kek"); return err }},
		{local.OpDelete, func(ctx context.Context) error { _, err := a.DeleteKey(ctx, "kek"); return err }},
		{local.OpPurge, func(ctx context.Context) error { return a.PurgeKey(ctx, "kek") }},
		{local.OpRestore, func(ctx context.Context) error { _, err := a.RestoreKey(ctx, backup); return err }},
	}
}

// Each call needs its own permission and no other: it is refused to an identity that
// has all the others, and done for one that has it alone.
func TestEachCallNeedsItsPermission(t *testing.T) {
	r := newRig(t)
	ctx := t.Context()
	all := local.Permissions()
	covered := map[local.Permission]bool{}
	other := r.another() // grants are made by one handle and bind the other's
	for i := range calls(r, nil, nil) {
		op := calls(r, nil, nil)[i].op
		covered[op] = true
		require.NoError(t, r.Grant(ctx, "all-but-one", all...))
		require.NoError(t, r.Revoke(ctx, "all-but-one", op))
		refused := calls(r, other.Administer("all-but-one"), other.As("all-but-one"))[i]
		err := refused.call(ctx)
		require.ErrorIs(t, err, vault.ErrAccessDenied, op)
		require.ErrorContains(t, err, `identity "all-but-one" has no grant for `+string(op))
		var e *vault.Error
		require.ErrorAs(t, err, &e)
		require.Equal(t, op, e.Op)
	}
	for _, op := range all {
		require.True(t, covered[op], op)
	}

	a, d := other.Administer("one"), other.As("one")
	for _, c := range calls(r, a, d) {
		require.NoError(t, r.Revoke(ctx, "one"))
		require.ErrorIs(t, c.call(ctx), vault.ErrAccessDenied, c.op)
		require.NoError(t, r.Grant(ctx, "one", c.op))
		require.NoError(t, c.call(ctx), c.op)
	}
}

// An identity that is refused does not learn which keys there are.
func TestRefusalSaysNothingOfTheKey(t *testing.T) {
	r := newRig(t)
	r.create("kek")
	_, err := r.As("ingest").GetKey(t.Context(), vault.KeyID{Name: "kek"})
	require.ErrorIs(t, err, vault.ErrAccessDenied)
	_, err = r.As("ingest").GetKey(t.Context(), vault.KeyID{Name: "nothing"})
	require.ErrorIs(t, err, vault.ErrAccessDenied)
	_, err = r.Administer("ingest").DeleteKey(t.Context(), "nothing")
	require.ErrorIs(t, err, vault.ErrAccessDenied)
}

func TestIdentities(t *testing.T) {
	r := newRig(t)
	ctx := t.Context()
	require.NoError(t, r.Grant(ctx, "ingest", vault.OpWrapKey, vault.OpGet))
	require.NoError(t, r.Grant(ctx, "ingest", vault.OpGet, vault.OpUnwrapKey))
	require.NoError(t, r.Grant(ctx, "backup@example.com", local.OpBackup))
	want := []local.IdentityInfo{
		{Name: "backup@example.com", Grants: []local.Permission{local.OpBackup}},
		{Name: "ingest", Grants: []local.Permission{vault.OpGet, vault.OpUnwrapKey, vault.OpWrapKey}},
	}
	for _, v := range []*local.Vault{r.Vault, r.another()} {
		got, err := v.Identities(ctx)
		require.NoError(t, err)
		require.Equal(t, want, got)
	}
	require.NoError(t, r.Revoke(ctx, "ingest", vault.OpGet, local.OpPurge))
	require.NoError(t, r.Revoke(ctx, "backup@example.com", local.OpBackup))
	require.NoError(t, r.Revoke(ctx, "nobody"))
	got, err := r.Identities(ctx)
	require.NoError(t, err)
	require.Equal(t, []local.IdentityInfo{{Name: "ingest", Grants: []local.Permission{vault.OpUnwrapKey, vault.OpWrapKey}}}, got)

	require.ErrorIs(t, r.Grant(ctx, "ingest", "sign"), local.ErrInvalid)
	for _, name := range []string{"", "two words", `"`, "a\nb", "ü", string(make([]byte, 128))} {
		require.ErrorIs(t, r.Grant(ctx, name, vault.OpGet), local.ErrInvalid, name)
		_, err := r.As(name).GetKey(ctx, vault.KeyID{Name: "kek"})
		require.ErrorIs(t, err, vault.ErrAccessDenied, name)
		_, err = r.Administer(name).CreateKey(ctx, "kek", nil)
		require.ErrorIs(t, err, vault.ErrAccessDenied, name)
	}
	require.NotEmpty(t, r.As("").Name(), "the owner's own name is not given away")
}

// A permission that is taken away while a change is on its way, by another process and
// before the lock is held, is no longer there when the change is made.
func TestARevocationMeanwhile(t *testing.T) {
	r := newRig(t)
	ctx := t.Context()
	require.NoError(t, r.Grant(ctx, "keeper", local.OpUpdate))
	keeper, other := r.Administer("keeper"), r.another()
	require.NoError(t, local.Change(keeper, func() {}))
	var before local.Info
	err := local.Change(keeper, func() {
		require.NoError(t, other.Revoke(ctx, "keeper"))
		var err error
		before, err = r.Info(ctx)
		require.NoError(t, err)
	})
	require.ErrorIs(t, err, vault.ErrAccessDenied)
	after, err := r.Info(ctx)
	require.NoError(t, err)
	require.Equal(t, before.Generation, after.Generation, "and nothing was written")
}

// The same through a real operation, whose slow part is the making of a key pair.
func TestARevocationWhileAKeyIsMade(t *testing.T) {
	r := newRig(t)
	ctx := t.Context()
	require.NoError(t, r.Grant(ctx, "keeper", local.OpCreate, local.OpRotate))
	other := r.another()
	v, err := local.Open(r.dir, passphrase, local.WithGenerate(*insecure, func() (*rsa.PrivateKey, error) {
		require.NoError(t, other.Revoke(ctx, "keeper"))
		return r.keys.generate()
	}))
	require.NoError(t, err)
	_, err = v.Administer("keeper").CreateKey(ctx, "kek", nil)
	require.ErrorIs(t, err, vault.ErrAccessDenied)
	keys, err := r.ListKeys(ctx)
	require.NoError(t, err)
	require.Empty(t, keys)
	require.NoError(t, v.Close())
}
