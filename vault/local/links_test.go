//go:build unix

package local_test

import (
	"os"
	"path/filepath"
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/blockseal/blockseal/vault"
	"github.com/blockseal/blockseal/vault/local"
)

// Whoever can write to the vault's directory puts names there that lead elsewhere. What
// they lead to is neither written nor emptied nor made.
func TestNoLinkIsWrittenThrough(t *testing.T) {
	for what, plant := range map[string]func(name, elsewhere string) error{
		"symbolic link":    func(name, elsewhere string) error { return os.Symlink(elsewhere, name) },
		"hard link":        func(name, elsewhere string) error { return os.Link(elsewhere, name) },
		"dangling link":    func(name, elsewhere string) error { return os.Symlink(elsewhere+".missing", name) },
		"what a kill left": func(name, elsewhere string) error { return os.WriteFile(name, []byte("half a vault"), 0o600) },
	} {
		t.Run(what, func(t *testing.T) {
			r := newRig(t)
			elsewhere := filepath.Join(t.TempDir(), "precious")
			require.NoError(t, os.WriteFile(elsewhere, []byte("precious"), 0o644))
			require.NoError(t, plant(filepath.Join(r.dir, "vault.tmp"), elsewhere))
			require.NoError(t, r.Grant(t.Context(), "ingest", vault.OpGet))
			require.NoError(t, r.ChangePassphrase(t.Context(), passphrase, cheap))
			content, err := os.ReadFile(elsewhere)
			require.NoError(t, err)
			require.Equal(t, "precious", string(content))
			info, err := os.Stat(elsewhere)
			require.NoError(t, err)
			require.Equal(t, os.FileMode(0o644), info.Mode().Perm())
			require.NoFileExists(t, elsewhere+".missing")
			info, err = os.Lstat(filepath.Join(r.dir, "vault"))
			require.NoError(t, err)
			require.True(t, info.Mode().IsRegular())
		})
	}
}

func TestTheLockIsNoLink(t *testing.T) {
	r := newRig(t)
	lock, elsewhere := filepath.Join(r.dir, "lock"), filepath.Join(t.TempDir(), "missing")
	require.NoError(t, os.Remove(lock))
	require.NoError(t, os.Symlink(elsewhere, lock))
	err := r.Grant(t.Context(), "ingest", vault.OpGet)
	require.ErrorIs(t, err, vault.ErrUnavailable)
	require.ErrorContains(t, err, lock)
	require.NoFileExists(t, elsewhere)
}

func TestADirectoryInTheWay(t *testing.T) {
	r := newRig(t)
	temp := filepath.Join(r.dir, "vault.tmp")
	require.NoError(t, os.Mkdir(temp, 0o700))
	err := r.Grant(t.Context(), "ingest", vault.OpGet)
	require.ErrorContains(t, err, temp+" is a directory, where the vault's next file is to be written: remove it")
	require.DirExists(t, temp)
	require.NoError(t, os.Remove(temp))
	require.NoError(t, r.Grant(t.Context(), "ingest", vault.OpGet))
}

// Of a directory that cannot be opened the sync says so: it is not passed over.
func TestADirectoryIsSynced(t *testing.T) {
	require.NoError(t, local.SyncDir(t.TempDir()))
	require.ErrorIs(t, local.SyncDir(filepath.Join(t.TempDir(), "missing")), os.ErrNotExist)
}
