package sealfs_test

import (
	"context"
	"crypto/rand"
	"crypto/rsa"
	"crypto/sha256"
	"crypto/x509"
	"encoding/hex"
	"encoding/json"
	"encoding/pem"
	"flag"
	"os"
	"path/filepath"
	"testing"

	"github.com/cockroachdb/pebble/v2/vfs"
	"github.com/stretchr/testify/require"

	"github.com/blockseal/blockseal/internal/test/testkeys"
	"github.com/blockseal/blockseal/kek"
	"github.com/blockseal/blockseal/keyring"
	"github.com/blockseal/blockseal/keyring/sealfs"
	"github.com/blockseal/blockseal/vault"
)

// The golden files in testdata/golden are a keyring document under a test key, files of each layout
// that were sealed under it, and golden.json with what is in them. They are made with -update and
// then stay: a test that fails here says that stored data can no longer be read.
var update = flag.Bool("update", false, "write the golden files anew; only ever right for a format that was not released")

const goldenDir = "testdata/golden"

// goldenFile is what is in a file.
type goldenFile struct {
	Name   string `json:"name"`
	Layout string `json:"layout"`
	Size   int    `json:"size"`
	SHA256 string `json:"sha256"`
	Torn   bool   `json:"torn,omitempty"` // a log that was not closed
}

// goldenVault has one key, under a fixed version.
type goldenVault struct{ private *rsa.PrivateKey }

var goldenKey = vault.KeyID{Vault: "file:golden", Name: "operator", Version: "a1"}

func (v *goldenVault) GetKey(context.Context, vault.KeyID) (vault.Key, error) {
	return vault.Key{ID: goldenKey, Public: &v.private.PublicKey, Enabled: true,
		Operations: []vault.Operation{vault.OpGet, vault.OpWrapKey, vault.OpUnwrapKey}}, nil
}

func (v *goldenVault) WrapKey(_ context.Context, _ vault.KeyID, secret []byte) (vault.Wrapped, error) {
	c, err := rsa.EncryptOAEP(sha256.New(), rand.Reader, &v.private.PublicKey, secret, nil)
	return vault.Wrapped{KeyID: goldenKey, Ciphertext: c}, err
}

func (v *goldenVault) UnwrapKey(_ context.Context, w vault.Wrapped) ([]byte, error) {
	return rsa.DecryptOAEP(sha256.New(), nil, v.private, w.Ciphertext, nil)
}

func goldenKEK(t testing.TB) *kek.KEK {
	k, err := fixedKEK(goldenDir)
	require.NoError(t, err)
	return k
}

// fixedKEK is a KEK that is the same in every process.
func fixedKEK(dir string) (*kek.KEK, error) {
	b, err := os.ReadFile(filepath.Join(dir, "kek.pem"))
	if err != nil {
		return nil, err
	}
	block, _ := pem.Decode(b)
	private, err := x509.ParsePKCS8PrivateKey(block.Bytes)
	if err != nil {
		return nil, err
	}
	return kek.New(&goldenVault{private.(*rsa.PrivateKey)}, vault.KeyID{Name: "operator"}), nil
}

// goldenFiles opens the golden keyring on a copy of the golden files, and returns what is in them.
func goldenFiles(t testing.TB) (dir string, fs *sealfs.FS, files []goldenFile) {
	t.Helper()
	dir = t.TempDir()
	require.NoError(t, os.CopyFS(dir, os.DirFS(goldenDir)))
	b, err := os.ReadFile(filepath.Join(dir, "golden.json"))
	require.NoError(t, err)
	require.NoError(t, json.Unmarshal(b, &files))
	r, err := keyring.Open(t.Context(), keyring.FileStorage(filepath.Join(dir, "KEYRING")), goldenKEK(t), &keyring.Options{RequireAccess: true})
	require.NoError(t, err)
	t.Cleanup(func() { r.Close() })
	fs, err = sealfs.New(vfs.Default, r, nil)
	require.NoError(t, err)
	return dir, fs, files
}

func TestGolden(t *testing.T) {
	if *update {
		updateGolden(t)
	}
	dir, fs, files := goldenFiles(t)
	require.Len(t, files, 6)
	layouts := map[string]int{}
	for _, g := range files {
		path := filepath.Join(dir, "files", g.Name)
		b := mustRead(t, fs, path)
		if g.Torn {
			require.Equal(t, string(make32(0xff)), string(b[g.Size:]), g.Name)
			b = b[:g.Size]
		}
		sum := sha256.Sum256(b)
		require.Equal(t, g.SHA256, hex.EncodeToString(sum[:]), g.Name)
		require.Len(t, b, g.Size)
		fi, err := fs.Stat(path)
		require.NoError(t, err)
		require.EqualValues(t, g.Size, fi.Size(), g.Name)
		layouts[g.Layout]++
	}
	require.Equal(t, map[string]int{"log": 3, "once": 2, "pages": 1}, layouts)
}

func make32(b byte) (out []byte) {
	for range 32 {
		out = append(out, b)
	}
	return out
}

func updateGolden(t *testing.T) {
	require.NoError(t, os.RemoveAll(goldenDir))
	require.NoError(t, os.MkdirAll(goldenDir, 0o755))
	pairs, err := testkeys.Pairs()
	require.NoError(t, err)
	der, err := x509.MarshalPKCS8PrivateKey(pairs[0])
	require.NoError(t, err)
	put := func(name string, b []byte) {
		require.NoError(t, os.WriteFile(filepath.Join(goldenDir, name), b, 0o644))
	}
	require.NoError(t, os.Mkdir(filepath.Join(goldenDir, "files"), 0o755))
	put("kek.pem", pem.EncodeToMemory(&pem.Block{Type: "PRIVATE KEY", Bytes: der}))
	r, err := keyring.Create(t.Context(), keyring.FileStorage(filepath.Join(goldenDir, "KEYRING")), goldenKEK(t), nil)
	require.NoError(t, err)
	fs, err := sealfs.New(vfs.Default, r, &sealfs.Options{ChunkSize: 512})
	require.NoError(t, err)
	path := func(name string) string { return filepath.Join(goldenDir, "files", name) }
	var files []goldenFile
	add := func(name, layout string, b []byte, torn bool) {
		sum := sha256.Sum256(b)
		files = append(files, goldenFile{name, layout, len(b), hex.EncodeToString(sum[:]), torn})
	}

	b := content(1, 700)
	write(t, fs, path("000002.log"), b[:100], b[100:101], b[101:])
	add("000002.log", "log", b, false)
	// One that was not closed, and one in the bytes of another.
	f, err := fs.Create(path("000003.log"), vfs.WriteCategoryUnspecified)
	require.NoError(t, err)
	_, err = f.Write(content(2, 300))
	require.NoError(t, err)
	cut, err := os.ReadFile(path("000003.log"))
	require.NoError(t, err)
	require.NoError(t, f.Close())
	put("files/000003.log", cut)
	add("000003.log", "log", content(2, 300), true)
	write(t, fs, path("000004.log"), content(3, 900))
	f, err = fs.ReuseForWrite(path("000004.log"), path("000005.log"), vfs.WriteCategoryUnspecified)
	require.NoError(t, err)
	_, err = f.Write(content(4, 50))
	require.NoError(t, err)
	require.NoError(t, f.Close())
	add("000005.log", "log", content(4, 50), false)

	write(t, fs, path("000006.sst"), content(5, 1500))
	add("000006.sst", "once", content(5, 1500), false)
	write(t, fs, path("temporary.000007.dbtmp"), content(6, 2*(512-28)))
	require.NoError(t, fs.Rename(path("temporary.000007.dbtmp"), path("OPTIONS-000007")))
	add("OPTIONS-000007", "once", content(6, 2*(512-28)), false)

	p, err := fs.OpenFile(path("pages"), &sealfs.FileOptions{PageSize: 64})
	require.NoError(t, err)
	_, err = p.WriteAt(content(7, 300), 0)
	require.NoError(t, err)
	_, err = p.WriteAt(content(8, 100), 30)
	require.NoError(t, err)
	require.NoError(t, p.Truncate(290))
	require.NoError(t, p.Sync())
	require.NoError(t, p.Close())
	want := content(7, 290)
	copy(want[30:], content(8, 100))
	add("pages", "pages", want, false)

	_, err = fs.RotateEpoch(t.Context(), filepath.Join(goldenDir, "files"))
	require.NoError(t, err)
	require.NoError(t, r.Close())
	require.NoError(t, os.Remove(filepath.Join(goldenDir, "KEYRING.lock")))
	b, err = json.MarshalIndent(files, "", "  ")
	require.NoError(t, err)
	put("golden.json", append(b, '\n'))
}
