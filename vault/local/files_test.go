package local_test

import (
	"os"
	"path/filepath"
	"runtime"
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/blockseal/blockseal/vault"
	"github.com/blockseal/blockseal/vault/local"
)

// A handle holds one file open, however often the vault is changed, here or elsewhere.
func TestOneFileIsHeldOpen(t *testing.T) {
	if runtime.GOOS != "linux" {
		t.Skip("it counts the entries of /proc/self/fd")
	}
	count := func() int {
		entries, err := os.ReadDir("/proc/self/fd")
		require.NoError(t, err)
		return len(entries)
	}
	before := count()
	r := newRig(t)
	other := r.another()
	require.Equal(t, before+2, count())
	for range 20 {
		require.NoError(t, r.Grant(t.Context(), "ingest", vault.OpGet))
		_, err := other.Identities(t.Context())
		require.NoError(t, err)
	}
	_, err := local.Open(r.dir, []byte("wrong"), insecure)
	require.ErrorIs(t, err, local.ErrWrongPassphrase)
	_, err = local.Open(t.TempDir(), passphrase, insecure)
	require.ErrorIs(t, err, local.ErrNotVault)
	require.Equal(t, before+2, count())
	require.NoError(t, other.Close())
	require.NoError(t, r.Close())
	require.Equal(t, before, count())
}

func TestRelativeDirectory(t *testing.T) {
	t.Chdir(t.TempDir())
	v, err := local.Create(filepath.Join("some", "where", "v"), passphrase, &local.Options{InsecureKDF: true, KDF: cheap})
	require.NoError(t, err)
	same, err := local.Open("some/where/v/", passphrase, insecure)
	require.NoError(t, err)
	t.Chdir(t.TempDir())
	for _, v := range []*local.Vault{v, same} {
		require.NoError(t, v.Grant(t.Context(), "ingest", vault.OpGet))
		require.NoError(t, v.Close())
	}
}
