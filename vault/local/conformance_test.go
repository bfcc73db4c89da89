package local_test

import (
	"context"
	"crypto/rsa"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/blockseal/blockseal/vault"
	"github.com/blockseal/blockseal/vault/local"
	"github.com/blockseal/blockseal/vault/vaulttest"
)

// subject offers the whole suite: as is the handle under test, and identity whose
// grants the suite takes away and gives back.
func subject(t *testing.T, as func(*rig) vault.Vault, identity string) vaulttest.Subject {
	r := newRig(t)
	id := r.create("kek")
	s := vaulttest.Subject{
		Vault: as(r),
		Key:   id.Versionless(),
		Now:   r.clock.Now,
		SetEnabled: func(id vault.KeyID, enabled bool) {
			_, err := r.UpdateKey(t.Context(), id, local.Update{Enabled: &enabled})
			require.NoError(t, err)
		},
		SetDates: func(id vault.KeyID, notBefore, expires time.Time) {
			_, err := r.UpdateKey(t.Context(), id, local.Update{NotBefore: &notBefore, Expires: &expires})
			require.NoError(t, err)
		},
		Rotate: func(name string) vault.KeyID {
			k, err := r.RotateKey(t.Context(), name)
			require.NoError(t, err)
			return k.ID
		},
		Delete: func(name string) {
			_, err := r.DeleteKey(t.Context(), name)
			require.NoError(t, err)
		},
		Recover: func(name string) {
			_, err := r.RecoverKey(t.Context(), name)
			require.NoError(t, err)
		},
		Purge: func(name string) { require.NoError(t, r.PurgeKey(t.Context(), name)) },
	}
	if identity != "" {
		require.NoError(t, r.Grant(t.Context(), identity, local.DataPlane()...))
		s.Revoke = func(op vault.Operation) { require.NoError(t, r.Revoke(t.Context(), identity, op)) }
		s.Grant = func(op vault.Operation) { require.NoError(t, r.Grant(t.Context(), identity, op)) }
	}
	return s
}

func TestOwnerConforms(t *testing.T) {
	vaulttest.Run(t, func(t *testing.T) vaulttest.Subject {
		return subject(t, func(r *rig) vault.Vault { return r.Vault }, "")
	})
}

func TestIdentityConforms(t *testing.T) {
	vaulttest.Run(t, func(t *testing.T) vaulttest.Subject {
		return subject(t, func(r *rig) vault.Vault { return r.As("ingest") }, "ingest")
	})
}

// Everything that the suite's hooks change is changed by another handle, as if by
// another process.
func TestOtherProcessConforms(t *testing.T) {
	vaulttest.Run(t, func(t *testing.T) vaulttest.Subject {
		return subject(t, func(r *rig) vault.Vault { return r.another().As("ingest") }, "ingest")
	})
}

// administers offers the control plane, in the owner's hands or an identity's, and the
// data plane of another identity.
func administers(t *testing.T, as func(*rig) *local.Administrator) vaulttest.AdminSubject {
	r := newRig(t)
	a := as(r)
	require.NoError(t, r.Grant(t.Context(), "store", local.DataPlane()...))
	names := func(keys []local.KeyInfo, err error) (all []string, _ error) {
		for _, k := range keys {
			all = append(all, k.Current.ID.Name)
		}
		return all, err
	}
	return vaulttest.AdminSubject{
		Vault: r.another().As("store"), Now: r.clock.Now,
		Create: func(ctx context.Context, name string, newVersion bool) (vault.Key, error) {
			return a.CreateKey(ctx, name, &local.KeyOptions{NewVersion: newVersion})
		},
		Ensure: func(ctx context.Context, name string) (vault.Key, error) { return a.EnsureKey(ctx, name, nil) },
		Import: func(ctx context.Context, name string, key *rsa.PrivateKey, newVersion bool) (vault.Key, error) {
			return a.ImportKey(ctx, name, key, &local.KeyOptions{NewVersion: newVersion})
		},
		Rotate: a.RotateKey,
		Update: func(ctx context.Context, id vault.KeyID, u vaulttest.AdminUpdate) (vault.Key, error) {
			return a.UpdateKey(ctx, id, local.Update{Enabled: u.Enabled, NotBefore: u.NotBefore, Expires: u.Expires})
		},
		Delete: func(ctx context.Context, name string) error {
			_, err := a.DeleteKey(ctx, name)
			return err
		},
		Recover: a.RecoverKey, Purge: a.PurgeKey, Backup: a.BackupKey, Restore: a.RestoreKey,
		Keys:    func(ctx context.Context) ([]string, error) { return names(a.ListKeys(ctx)) },
		Deleted: func(ctx context.Context) ([]string, error) { return names(a.ListDeleted(ctx)) },
		Versions: func(ctx context.Context, name string) (all []vault.KeyID, err error) {
			versions, err := a.Versions(ctx, name)
			for _, v := range versions {
				all = append(all, v.ID)
			}
			return all, err
		},
		Many: 4, // a list has one page
	}
}

func TestOwnerAdministers(t *testing.T) {
	vaulttest.RunAdmin(t, func(t *testing.T) vaulttest.AdminSubject {
		return administers(t, func(r *rig) *local.Administrator { return r.Administrator })
	})
}

func TestIdentityAdministers(t *testing.T) {
	vaulttest.RunAdmin(t, func(t *testing.T) vaulttest.AdminSubject {
		return administers(t, func(r *rig) *local.Administrator {
			require.NoError(t, r.Grant(t.Context(), "officer", local.ControlPlane()...))
			return r.Administer("officer")
		})
	})
}
