package local_test

import (
	"os"
	"path/filepath"
	"sync"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/blockseal/blockseal/vault"
	"github.com/blockseal/blockseal/vault/local"
)

func TestOpenOrCreate(t *testing.T) {
	dir := filepath.Join(t.TempDir(), "a", "v")
	made, err := local.OpenOrCreate(dir, passphrase, &local.Options{InsecureKDF: true, KDF: cheap, RetentionDays: 7})
	require.NoError(t, err)
	_, err = made.EnsureKey(t.Context(), "kek", nil)
	require.NoError(t, err)
	require.NoError(t, made.Close())

	again, err := local.OpenOrCreate(dir, passphrase, &local.Options{InsecureKDF: true, RetentionDays: 8})
	require.NoError(t, err)
	t.Cleanup(func() { require.NoError(t, again.Close()) })
	require.Equal(t, made.ID(), again.ID())
	info, err := again.Info(t.Context())
	require.NoError(t, err)
	require.Equal(t, 7, info.RetentionDays, "it is a property of the vault that is there")
	_, err = again.GetKey(t.Context(), vault.KeyID{Name: "kek"})
	require.NoError(t, err)
}

func TestOpenOrCreateRefuses(t *testing.T) {
	r := newRig(t)
	foreign := t.TempDir()
	require.NoError(t, os.WriteFile(filepath.Join(foreign, "notes"), nil, 0o600))
	file := filepath.Join(t.TempDir(), "file")
	require.NoError(t, os.WriteFile(file, nil, 0o600))
	noVault := t.TempDir()
	require.NoError(t, os.Mkdir(filepath.Join(noVault, "vault"), 0o700))
	empty := filepath.Join(t.TempDir(), "v")
	before, err := os.ReadFile(filepath.Join(r.dir, "vault"))
	require.NoError(t, err)
	for _, tt := range []struct {
		what, dir  string
		passphrase string
		kind       error // nil: of the system
		says       string
	}{
		{"a wrong passphrase", r.dir, "wrong", local.ErrWrongPassphrase, "open "},
		{"a directory of something else", foreign, string(passphrase), local.ErrExists, `the directory is not empty: it has "notes"`},
		{"a directory in the vault file's place", noVault, string(passphrase), local.ErrNotVault, "is not a regular file"},
		{"a file in the directory's place", file, string(passphrase), nil, "not a directory"},
		{"no passphrase for a new vault", empty, "", local.ErrInvalid, "the passphrase is empty"},
	} {
		t.Run(tt.what, func(t *testing.T) {
			_, err := local.OpenOrCreate(tt.dir, []byte(tt.passphrase), insecure)
			require.Error(t, err)
			if tt.kind != nil {
				require.ErrorIs(t, err, tt.kind)
			}
			require.ErrorContains(t, err, tt.says)
		})
	}
	after, err := os.ReadFile(filepath.Join(r.dir, "vault"))
	require.NoError(t, err)
	require.Equal(t, before, after)
	require.NoDirExists(t, empty)
}

// Several handles at once, as several processes would be: there is one vault, with one key
// of one version.
func TestOpenOrCreateAtOnce(t *testing.T) {
	dir := filepath.Join(t.TempDir(), "v")
	const callers = 8
	ids, errs := make([]vault.KeyID, callers), make([]error, callers)
	var all sync.WaitGroup
	for i := range callers {
		all.Go(func() {
			v, err := local.OpenOrCreate(dir, passphrase, &local.Options{InsecureKDF: true, KDF: cheap, LockWait: time.Minute})
			if err != nil {
				errs[i] = err
				return
			}
			defer v.Close()
			key, err := v.EnsureKey(t.Context(), "kek", nil)
			ids[i], errs[i] = key.ID, err
		})
	}
	all.Wait()
	for i := range callers {
		require.NoError(t, errs[i])
		require.Equal(t, ids[0], ids[i])
	}
	v, err := local.Open(dir, passphrase, insecure)
	require.NoError(t, err)
	t.Cleanup(func() { require.NoError(t, v.Close()) })
	versions, err := v.Versions(t.Context(), "kek")
	require.NoError(t, err)
	require.Len(t, versions, 1)
}
