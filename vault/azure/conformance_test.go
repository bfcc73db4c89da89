package azure_test

import (
	"context"
	"crypto/rsa"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/blockseal/blockseal/internal/keyvaulttest"
	"github.com/blockseal/blockseal/vault"
	"github.com/blockseal/blockseal/vault/azure"
	"github.com/blockseal/blockseal/vault/local"
	"github.com/blockseal/blockseal/vault/vaulttest"
)

func TestConforms(t *testing.T) {
	t.Parallel()
	vaulttest.Run(t, func(t *testing.T) vaulttest.Subject { return subject(t, newRig(t, nil)) })
}

// Under the name that a vault has in Azure, the client checks that the challenge is
// for Key Vault's domain.
func TestConformsUnderAnAzureName(t *testing.T) {
	t.Parallel()
	vaulttest.Run(t, func(t *testing.T) vaulttest.Subject {
		r := newRig(t, &keyvaulttest.Options{URL: "https://contoso.vault.azure.net", AccessPolicies: true})
		return subject(t, r)
	})
}

// With WrapLocally the suite's parts hold but for two, which the option's documentation
// leaves out: what is known of a key is used for its age, which is next to nothing here,
// and wrapKey is not asked of the vault, so that its permission is not needed.
func TestWrappingLocallyConforms(t *testing.T) {
	t.Parallel()
	vaulttest.Run(t, func(t *testing.T) vaulttest.Subject {
		r := newRig(t, nil)
		s := subject(t, r)
		s.Vault = r.client(func(o *azure.Options) { o.WrapLocally, o.LocalWrapAge = true, 1 })
		s.Revoke, s.Grant = nil, nil
		return s
	})
}

func TestManagedHSMConforms(t *testing.T) {
	t.Parallel()
	vaulttest.Run(t, func(t *testing.T) vaulttest.Subject {
		r := newRig(t, &keyvaulttest.Options{URL: "https://contoso.managedhsm.azure.net", Audience: "https://managedhsm.azure.net"})
		return subject(t, r)
	})
}

func subject(t *testing.T, r *rig) vaulttest.Subject {
	v, ctx := r.Server.Vault(), t.Context()
	return vaulttest.Subject{
		Vault: r.client(),
		Key:   r.key.Versionless(),
		SetEnabled: func(id vault.KeyID, enabled bool) {
			r.update(id, local.Update{Enabled: &enabled})
		},
		SetDates: func(id vault.KeyID, notBefore, expires time.Time) {
			r.update(id, local.Update{NotBefore: &notBefore, Expires: &expires})
		},
		Rotate: func(name string) vault.KeyID { return r.newVersion(name) },
		Delete: func(name string) {
			_, err := v.DeleteKey(ctx, name)
			require.NoError(t, err)
		},
		Recover: func(name string) {
			_, err := v.RecoverKey(ctx, name)
			require.NoError(t, err)
		},
		Purge:             func(name string) { require.NoError(t, v.PurgeKey(ctx, name)) },
		Revoke:            func(op vault.Operation) { require.NoError(t, v.Revoke(ctx, store, op)) },
		Grant:             func(op vault.Operation) { require.NoError(t, v.Grant(ctx, store, op)) },
		DeletedIsNotFound: true,
	}
}

// The lists come in pages of two.
func TestAdminConforms(t *testing.T) {
	t.Parallel()
	vaulttest.RunAdmin(t, func(t *testing.T) vaulttest.AdminSubject {
		r := newRig(t, &keyvaulttest.Options{PageSize: 2})
		require.NoError(t, second(r.Server.Vault().DeleteKey(t.Context(), "kek")))
		require.NoError(t, r.Server.Vault().PurgeKey(t.Context(), "kek"))
		a := r.admin()
		names := func(keys []azure.KeyInfo, err error) (all []string, _ error) {
			for _, k := range keys {
				all = append(all, k.ID.Name)
			}
			return all, err
		}
		return vaulttest.AdminSubject{
			Vault: r.client(),
			Create: func(ctx context.Context, name string, newVersion bool) (vault.Key, error) {
				return a.CreateKey(ctx, name, &azure.KeyOptions{NewVersion: newVersion})
			},
			Ensure: func(ctx context.Context, name string) (vault.Key, error) { return a.EnsureKey(ctx, name, nil) },
			Import: func(ctx context.Context, name string, key *rsa.PrivateKey, newVersion bool) (vault.Key, error) {
				return a.ImportKey(ctx, name, key, &azure.KeyOptions{NewVersion: newVersion})
			},
			Rotate: a.RotateKey,
			Update: func(ctx context.Context, id vault.KeyID, u vaulttest.AdminUpdate) (vault.Key, error) {
				return a.UpdateKey(ctx, id, azure.Update{Enabled: u.Enabled, NotBefore: u.NotBefore, Expires: u.Expires})
			},
			Delete:  func(ctx context.Context, name string) error { return second(a.DeleteKey(ctx, name)) },
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
			Many: 5,
		}
	})
}
