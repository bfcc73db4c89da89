package local_test

import (
	"bytes"
	"encoding/binary"
	"path/filepath"
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/blockseal/blockseal/vault"
	"github.com/blockseal/blockseal/vault/local"
)

// sharing returns a rig whose vault has r's backup secret.
func (r *rig) sharing(o local.Options) *rig {
	r.t.Helper()
	var err error
	o.BackupSecret, err = r.BackupSecret(r.t.Context())
	require.NoError(r.t, err)
	return newRigWith(r.t, o)
}

// A backup has all versions, with their properties, and the policy.
func TestBackupAndRestore(t *testing.T) {
	r := newRig(t)
	ctx := t.Context()
	no, until := false, start.Add(day)
	first := r.create("kek")
	w1, secret1 := r.wrap(r, first)
	_, err := r.UpdateKey(ctx, first, local.Update{Expires: &until})
	require.NoError(t, err)
	second, err := r.RotateKey(ctx, "kek")
	require.NoError(t, err)
	w2, secret2 := r.wrap(r, second.ID)
	third, err := r.RotateKey(ctx, "kek")
	require.NoError(t, err)
	_, err = r.UpdateKey(ctx, third.ID, local.Update{Enabled: &no, Operations: []vault.Operation{vault.OpUnwrapKey}})
	require.NoError(t, err)
	r.policy("kek", local.RotationPolicy{RotateAfter: 50 * day})
	backup, err := r.BackupKey(ctx, "kek")
	require.NoError(t, err)
	again, err := r.BackupKey(ctx, "kek")
	require.NoError(t, err)
	require.NotEqual(t, backup, again, "each has a salt of its own")
	require.False(t, bytes.Contains(backup, []byte("kek")), "the name is not in clear")

	s := r.sharing(local.Options{})
	restored, err := s.RestoreKey(ctx, backup)
	require.NoError(t, err)
	require.Equal(t, vault.KeyID{Vault: s.ID(), Name: "kek", Version: third.ID.Version}, restored.ID)
	want, err := r.Versions(ctx, "kek")
	require.NoError(t, err)
	got, err := s.Versions(ctx, "kek")
	require.NoError(t, err)
	for i := range want {
		want[i].ID.Vault = s.ID()
	}
	require.Equal(t, want, got)
	keys, err := s.ListKeys(ctx)
	require.NoError(t, err)
	require.Equal(t, 50*day, keys[0].Policy.RotateAfter)
	for _, c := range []struct {
		w      vault.Wrapped
		secret []byte
	}{{w1, secret1}, {w2, secret2}} {
		c.w.KeyID.Vault = s.ID()
		s.unwraps(s, c.w, c.secret)
	}

	_, err = s.RestoreKey(ctx, backup)
	require.ErrorIs(t, err, vault.ErrKeyExists)
	_, err = s.DeleteKey(ctx, "kek")
	require.NoError(t, err)
	_, err = s.RestoreKey(ctx, backup)
	require.ErrorIs(t, err, vault.ErrKeyDeleted)
	require.NoError(t, s.PurgeKey(ctx, "kek"))
	_, err = s.RestoreKey(ctx, again)
	require.NoError(t, err)
	s.unwraps(s.another(), vault.Wrapped{KeyID: vault.KeyID{Vault: s.ID(), Name: "kek", Version: second.ID.Version}, Ciphertext: w2.Ciphertext}, secret2)
}

func TestRestoreRefuses(t *testing.T) {
	r := newRig(t)
	ctx := t.Context()
	r.create("kek")
	backup, err := r.BackupKey(ctx, "kek")
	require.NoError(t, err)

	stranger := newRig(t)
	_, err = stranger.RestoreKey(ctx, backup)
	require.ErrorIs(t, err, local.ErrBackupSecret)
	require.ErrorContains(t, err, r.ID()[len("local:"):], "it names the vault that made it")

	s := r.sharing(local.Options{})
	newer := bytes.Clone(backup)
	binary.BigEndian.PutUint16(newer[8:], 2)
	_, err = s.RestoreKey(ctx, newer)
	require.ErrorIs(t, err, local.ErrVersion)
	for n := range backup {
		_, err := s.RestoreKey(ctx, backup[:n])
		require.ErrorIs(t, err, local.ErrCorrupt, "truncated to %d bytes", n)
	}
	_, err = s.RestoreKey(ctx, append(bytes.Clone(backup), 0))
	require.ErrorIs(t, err, local.ErrCorrupt)
	for i := range backup {
		flipped := bytes.Clone(backup)
		flipped[i] ^= 1 << (i % 8)
		_, err := s.RestoreKey(ctx, flipped)
		require.Error(t, err, "byte %d", i)
		var e *vault.Error
		require.ErrorAs(t, err, &e, "byte %d", i)
	}
	keys, err := s.ListKeys(ctx)
	require.NoError(t, err)
	require.Empty(t, keys)
}

// Everything is lost but a backup, the backup secret from escrow and the vault's id,
// which every backup and every wrapped secret names: what was wrapped opens again.
func TestRebuildALostVault(t *testing.T) {
	r := newRig(t)
	ctx := t.Context()
	w, secret := r.wrap(r, r.create("kek"))
	backup, err := r.BackupKey(ctx, "kek")
	require.NoError(t, err)
	escrow, err := r.BackupSecret(ctx)
	require.NoError(t, err)
	require.Len(t, escrow, local.BackupSecretSize)

	v, err := local.Create(filepath.Join(t.TempDir(), "v"), []byte("a new passphrase"), &local.Options{InsecureKDF: true, KDF: cheap, ID: w.KeyID.Vault, BackupSecret: escrow})
	require.NoError(t, err)
	_, err = v.RestoreKey(ctx, backup)
	require.NoError(t, err)
	r.unwraps(v, w, secret)
	again, err := v.BackupSecret(ctx)
	require.NoError(t, err)
	require.Equal(t, escrow, again)
	require.NoError(t, v.Close())
}
