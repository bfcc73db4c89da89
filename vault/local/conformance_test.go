package local_test

import (
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
