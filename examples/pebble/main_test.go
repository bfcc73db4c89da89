package main

import (
	"bytes"
	"errors"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/cockroachdb/pebble/v2/vfs"
	"github.com/stretchr/testify/require"

	"github.com/blockseal/blockseal/kek"
	"github.com/blockseal/blockseal/keyring"
	"github.com/blockseal/blockseal/vault/vaulttest"
)

func TestDemonstration(t *testing.T) {
	temp := t.TempDir()
	t.Setenv("TMPDIR", temp)
	var out bytes.Buffer
	require.NoError(t, run(t.Context(), &out))
	for _, want := range []string{"plain         the word \"plain\" is in ", "no word is in any of them; \"words\" came 2 times", "key revoked   a read says: ", "a write waits", "\"words\" came 3 times"} {
		require.Contains(t, out.String(), want)
	}
	for line := range strings.Lines(out.String()) {
		require.LessOrEqual(t, len(strings.TrimSpace(line)), 80)
	}
	left, err := os.ReadDir(temp)
	require.NoError(t, err)
	require.Empty(t, left)
}

// The program is the same on plain files and on sealed ones; without the key it reads nothing, what it
// wrote meanwhile is there when the key is back, and what it has on disk is not to be found.
func TestWords(t *testing.T) {
	v := vaulttest.New(nil)
	k := kek.New(v, v.CreateKey("customer").Versionless())
	dir := filepath.Join(t.TempDir(), "db")
	fs, r, err := files(t.Context(), dir, k)
	require.NoError(t, err)
	defer func() { require.NoError(t, r.Close()) }()
	for _, c := range []struct {
		name string
		fs   vfs.FS
		keys *keyring.Keyring
		dir  string
	}{{"plain", vfs.Default, nil, dir + "-plain"}, {"sealed", fs, r, dir}} {
		t.Run(c.name, func(t *testing.T) {
			for round := range 3 {
				w, err := open(c.dir, c.fs, c.keys)
				require.NoError(t, err)
				require.NoError(t, w.add("secretive secretive word"))
				n, err := w.get("secretive")
				require.NoError(t, err)
				require.Equal(t, 2*(round+1), n)
				n, err = w.get("nothing")
				require.NoError(t, err)
				require.Zero(t, n)
				require.NoError(t, w.close())
			}
			found, err := search(c.dir, "secretive")
			require.NoError(t, err)
			require.Equal(t, c.keys == nil, found > 0, "%d files", found)
		})
	}

	w, err := open(dir, fs, r)
	require.NoError(t, err)
	v.Revoke()
	require.Error(t, r.Revalidate(t.Context()))
	_, err = w.get("word")
	require.ErrorIs(t, err, keyring.ErrInaccessible)
	added := make(chan error, 1)
	go func() { added <- w.add("word") }()
	select {
	case err := <-added:
		require.NoError(t, errors.Join(err, errors.New("a write did not wait")))
	default:
	}
	v.Restore()
	require.NoError(t, r.Revalidate(t.Context()))
	require.NoError(t, <-added)
	n, err := w.get("word")
	require.NoError(t, err)
	require.Equal(t, 4, n)
	require.NoError(t, w.close())
	_, err = open(dir, vfs.Default, nil)
	require.Error(t, err, "plainly")
}
