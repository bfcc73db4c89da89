package local_test

import (
	"os"
	"path/filepath"
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/blockseal/blockseal/vault"
	"github.com/blockseal/blockseal/vault/local"
)

// An old state is put back, and changed by a process that has not seen the newer one:
// the generation is what it was, and the state is not. To a handle that has seen the
// key disabled it must not become enabled again.
func TestForkOfAnOldState(t *testing.T) {
	r := newRig(t)
	id := r.create("kek")
	w, _ := r.wrap(r, id)
	file := filepath.Join(r.dir, "vault")
	old, err := os.ReadFile(file)
	require.NoError(t, err)
	no := false
	_, err = r.UpdateKey(t.Context(), id, local.Update{Enabled: &no})
	require.NoError(t, err)
	before, err := r.Info(t.Context())
	require.NoError(t, err)

	require.NoError(t, os.WriteFile(file+".old", old, 0o600))
	require.NoError(t, os.Rename(file+".old", file))
	other := r.another()
	require.NoError(t, other.Grant(t.Context(), "ingest", vault.OpGet))
	after, err := other.Info(t.Context())
	require.NoError(t, err)
	require.Equal(t, before.Generation, after.Generation)

	_, err = r.UnwrapKey(t.Context(), w)
	require.ErrorIs(t, err, local.ErrRolledBack)
	require.ErrorContains(t, err, "another state of the generation")
	require.True(t, vault.Transient(err))
	require.ErrorIs(t, r.Grant(t.Context(), "ingest", vault.OpWrapKey), local.ErrRolledBack, "and it writes nothing over it")
}

// The same bytes in another file, as after a restore of the newest backup, are no rollback.
func TestSameStateInAnotherFile(t *testing.T) {
	r := newRig(t)
	w, secret := r.wrap(r, r.create("kek"))
	file := filepath.Join(r.dir, "vault")
	b, err := os.ReadFile(file)
	require.NoError(t, err)
	require.NoError(t, os.WriteFile(file+".copy", b, 0o600))
	require.NoError(t, os.Rename(file+".copy", file))
	r.unwraps(r, w, secret)
	require.NoError(t, r.Grant(t.Context(), "ingest", vault.OpGet))
}

// The same where the two files have one size, and one time of change: what is compared is
// what they say.
func TestForkOfTheSameSize(t *testing.T) {
	r := newRig(t)
	r.create("kek")
	file := filepath.Join(r.dir, "vault")
	old, err := os.ReadFile(file)
	require.NoError(t, err)
	require.NoError(t, r.Grant(t.Context(), "ingest", vault.OpGet))
	seen, err := os.Stat(file)
	require.NoError(t, err)

	fork := filepath.Join(t.TempDir(), "fork")
	require.NoError(t, os.Mkdir(fork, 0o700))
	require.NoError(t, os.WriteFile(filepath.Join(fork, "vault"), old, 0o600))
	other, err := local.Open(fork, passphrase, r.options(local.Options{}))
	require.NoError(t, err)
	require.NoError(t, other.Grant(t.Context(), "attack", vault.OpGet))
	require.NoError(t, other.Close())
	b, err := os.ReadFile(filepath.Join(fork, "vault"))
	require.NoError(t, err)
	require.EqualValues(t, seen.Size(), len(b))
	require.NoError(t, os.WriteFile(file+".fork", b, 0o600))
	require.NoError(t, os.Chtimes(file+".fork", seen.ModTime(), seen.ModTime()))
	require.NoError(t, os.Rename(file+".fork", file))

	_, err = r.Identities(t.Context())
	require.ErrorIs(t, err, local.ErrRolledBack)
	require.ErrorIs(t, r.Grant(t.Context(), "ingest", vault.OpWrapKey), local.ErrRolledBack)
}
