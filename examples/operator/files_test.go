package main

import (
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/cockroachdb/pebble/v2"
	"github.com/cockroachdb/pebble/v2/sstable"
	"github.com/cockroachdb/pebble/v2/vfs"
	"github.com/stretchr/testify/require"

	"github.com/blockseal/blockseal/kek"
	"github.com/blockseal/blockseal/keyring"
	"github.com/blockseal/blockseal/keyring/sealfs"
	"github.com/blockseal/blockseal/vault"
	"github.com/blockseal/blockseal/vault/local"
)

const inClear = "a value of somebody else's program"

func filesOptions(fs vfs.FS) *pebble.Options {
	o := &pebble.Options{FS: fs, FormatMajorVersion: pebble.FormatNewest, Logger: silent{}}
	for i := range o.Levels {
		o.Levels[i].Compression = func() *sstable.CompressionProfile { return sstable.NoCompression }
	}
	return o
}

type silent struct{}

func (silent) Infof(string, ...any)              {}
func (silent) Errorf(string, ...any)             {}
func (silent) Fatalf(format string, args ...any) { panic(fmt.Sprintf(format, args...)) }

// somebodysDatabase is a Pebble on plain files.
func somebodysDatabase(t *testing.T, dir string) {
	t.Helper()
	db, err := pebble.Open(dir, filesOptions(vfs.Default))
	require.NoError(t, err)
	for i := range 100 {
		require.NoError(t, db.Set(fmt.Appendf(nil, "%03d", i), []byte(inClear), pebble.Sync))
		if i == 50 {
			require.NoError(t, db.Flush())
		}
	}
	require.NoError(t, db.Close())
}

func readDatabase(t *testing.T, fs vfs.FS, dir string) {
	t.Helper()
	db, err := pebble.Open(dir, filesOptions(fs))
	require.NoError(t, err)
	for i := range 100 {
		v, closer, err := db.Get(fmt.Appendf(nil, "%03d", i))
		require.NoError(t, err)
		require.Equal(t, inClear, string(v))
		require.NoError(t, closer.Close())
	}
	require.NoError(t, db.Close())
}

func foundInClear(t *testing.T, dir string) (n int) {
	t.Helper()
	entries, err := os.ReadDir(dir)
	require.NoError(t, err)
	for _, e := range entries {
		b, err := os.ReadFile(filepath.Join(dir, e.Name()))
		require.NoError(t, err)
		if strings.Contains(string(b), inClear) {
			n++
		}
	}
	return n
}

// A database of somebody else's is sealed in place, opens with the keyring beside it, and is unsealed.
func TestFiles(t *testing.T) {
	t.Parallel()
	g := newRig(t)
	dir := g.path("some [db]")
	somebodysDatabase(t, dir)
	require.Positive(t, foundInClear(t, dir), "the search finds nothing")
	g.fails(exitUsage, "on which key? give --key", "files", "seal", dir)
	g.fails(exitFailure, "no such file", "files", "unseal", dir)
	g.fails(exitFailure, "no manifest", "files", "seal", g.dir, "--key", "customer")
	g.fails(exitFailure, "no manifest", "files", "seal", g.path("nothing"), "--key", "customer")
	require.NoFileExists(t, g.path("nothing.keyring"))
	g.fails(exitRefused, "no grant", "files", "seal", dir, "--key", "customer", "--identity", "nobody")

	sealed := g.object("files", "seal", dir, "--key", "customer", "--identity", "store")
	require.Greater(t, sealed["files"], 3.0)
	require.Zero(t, foundInClear(t, dir))
	require.Contains(t, sealed["kek"], "/keys/customer/")
	require.Contains(t, g.ok("files", "seal", dir, "--identity", "store"), "0 files")

	// As the program does it.
	v, err := local.Open(g.path("vault"), []byte(g.env["BLOCKSEAL_PASSPHRASE"]), &local.Options{InsecureKDF: true})
	require.NoError(t, err)
	r, err := keyring.Open(t.Context(), keyring.FileStorage(dir+".keyring"), kek.New(v.As("store"), vault.KeyID{Name: "customer"}), nil)
	require.NoError(t, err)
	fs, err := sealfs.New(vfs.Default, r, nil)
	require.NoError(t, err)
	readDatabase(t, fs, dir)
	db, err := pebble.Open(dir, filesOptions(fs))
	require.NoError(t, err)
	g.fails(exitBusy, "a process has the database open", "files", "unseal", dir)
	require.NoError(t, db.Close())
	require.NoError(t, r.Close())
	require.NoError(t, v.Close())

	// What cannot be right, or is not permitted.
	g.fails(exitFailure, "is no file of Pebble's", "files", "unseal", g.withFile(dir, "notes.txt"))
	require.NoError(t, os.Remove(filepath.Join(dir, "notes.txt")))
	g.ok("key", "create", "another")
	g.fails(exitRefused, "leave out --key", "files", "seal", dir, "--key", "another")
	g.ok("key", "disable", "customer", "--force")
	g.fails(exitRefused, "disabled", "files", "unseal", dir, "--identity", "store")
	g.ok("key", "enable", "customer")

	// A file whose head is gone is found before anything is changed.
	names, err := filepath.Glob(filepath.Join(globbed(dir), "*.sst"))
	require.NoError(t, err)
	good, err := os.ReadFile(names[0])
	require.NoError(t, err)
	require.NoError(t, os.WriteFile(names[0], append(make([]byte, 200), good[200:]...), 0o600))
	g.fails(exitVerification, filepath.Base(names[0]), "files", "unseal", dir)
	require.NoError(t, os.WriteFile(names[0], good, 0o600))

	require.Contains(t, g.ok("files", "unseal", dir, "--identity", "store"), "unsealed")
	readDatabase(t, vfs.Default, dir)
	require.Positive(t, foundInClear(t, dir))

	// Logs elsewhere, the document elsewhere.
	g.ok("files", "seal", dir, "--keyring", g.path("elsewhere"), "--key", "customer", "--also", g.withDir("logs"))
	require.Zero(t, foundInClear(t, dir))
	g.ok("files", "unseal", dir, "--keyring", g.path("elsewhere"))
	readDatabase(t, vfs.Default, dir)
}

func (g *rig) withFile(dir, name string) string {
	require.NoError(g.t, os.WriteFile(filepath.Join(dir, name), []byte("x"), 0o600))
	return dir
}

func (g *rig) withDir(name string) string {
	require.NoError(g.t, os.MkdirAll(g.path(name), 0o700))
	return g.path(name)
}
