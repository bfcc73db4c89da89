package reader_test

import (
	"bytes"
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"os"
	"path/filepath"
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/blockseal/blockseal/block"
	"github.com/blockseal/blockseal/kek"
	"github.com/blockseal/blockseal/vault"
)

// TestSealedFiles holds that the reader gives back what is in the golden files of keyring/sealfs, of each
// layout, and refuses what was altered, cut off or put under another name.
func TestSealedFiles(t *testing.T) {
	const golden = "../../keyring/sealfs/testdata/golden"
	b, err := os.ReadFile(filepath.Join(golden, "golden.json"))
	require.NoError(t, err)
	var files []struct {
		Name, Layout, SHA256 string
		Size                 int
		Torn                 bool
	}
	require.NoError(t, json.Unmarshal(b, &files))
	require.Len(t, files, 6)
	backends(t)
	args := func(path string, more ...string) []string {
		return append([]string{"file", filepath.Join(golden, "KEYRING"), "--kek", filepath.Join(golden, "kek.pem"), path}, more...)
	}
	dir := t.TempDir()
	for _, g := range files {
		path := filepath.Join(golden, "files", g.Name)
		got := read(t, args(path)...)
		if g.Torn {
			require.Equal(t, bytes.Repeat([]byte{0xff}, 32), got[g.Size:])
			got = got[:g.Size]
		}
		sum := sha256.Sum256(got)
		require.Equal(t, g.SHA256, hex.EncodeToString(sum[:]), g.Name)
		if g.Name == "OPTIONS-000007" || g.Layout == "log" {
			continue
		}
		sealed, err := os.ReadFile(path)
		require.NoError(t, err)
		sealed[4096+30] ^= 1
		refused(t, "does not authenticate", args(write(t, dir, g.Name, sealed))...)
	}
	refused(t, "another file's content", args(filepath.Join(golden, "files", "000006.sst"), "--name", "000099.sst")...)
	log, err := os.ReadFile(filepath.Join(golden, "files", "000002.log"))
	require.NoError(t, err)
	torn := bytes.Repeat([]byte{0xff}, 32)
	for _, c := range []struct {
		size, want int
		zero       int
	}{
		{len(log), 700, 0},                                                         // as it is
		{4096 + 168, 132, 0}, {4096 + 168 + 68, 132, 0}, {4096 + 168 + 69, 133, 0}, // cut off behind a frame, and in one
		{4096 + 167, 32, 0}, {4096, 32, 0}, {4096, 32, 512}, {100, 32, 100}, {0, 0, 0}, // in the first, and in the head
	} {
		is := bytes.Clone(log[:c.size])
		clear(is[:c.zero])
		got := read(t, args(write(t, dir, "000002.log", is))...)
		require.Len(t, got, c.want, "%+v", c)
		require.Equal(t, c.size != len(log) && c.size > 0, bytes.HasSuffix(got, torn), "%+v", c)
	}
	// A frame that later ones say was durable, and a head that was zeroed.
	for _, at := range []int{4096 + 3, 4096 + 30, 4096 + 60} {
		is := bytes.Clone(log)
		is[at] ^= 1
		refused(t, "is damaged or missing", args(write(t, dir, "000002.log", is))...)
	}
	clear(log[:4096])
	refused(t, "no sealed file", args(write(t, dir, "000002.log", log))...)
	// Either size record will do, and none will not.
	pages, err := os.ReadFile(filepath.Join(golden, "files", "pages"))
	require.NoError(t, err)
	clear(pages[3328:3396])
	clear(pages[3840:3908])
	refused(t, "neither size record opens", args(write(t, dir, "pages", pages))...)
}

// TestFilesUnderAFileKEK gets from a directory under a file KEK to a block with two private keys and none of
// this library: the file KEK's opens the document in the directory and with it all files, which Pebble reads then,
// and the store's opens what is in there.
func TestFilesUnderAFileKEK(t *testing.T) {
	backends(t)
	ctx, work := t.Context(), t.TempDir()
	v, pem := importing(t, work, map[string]string{"store": "kek-a1.pem", "files": "kek-a2.pem"})
	dir := filepath.Join(work, "db")
	db, err := block.OpenDB(ctx, dir, &block.DBOptions{FileKEK: kek.New(v, vault.KeyID{Name: "files"})})
	require.NoError(t, err)
	defer db.Close()
	s, err := db.Create(ctx, "a", kek.New(v, vault.KeyID{Name: "store"}), nil)
	require.NoError(t, err)
	blocks := map[string][]byte{"block 1": []byte("plaintext of block 1"), "block 2": bytes.Repeat([]byte("0123456789"), 500)}
	require.NoError(t, s.Put(ctx, []byte("block 1"), blocks["block 1"]))
	_, err = s.Erase(ctx, nil) // which puts it into a table
	require.NoError(t, err)
	_, err = db.RotateFileEpoch(ctx)
	require.NoError(t, err)
	require.NoError(t, s.Put(ctx, []byte("block 2"), blocks["block 2"])) // which stays in the log
	require.NoError(t, db.Close())

	parts := t.TempDir()
	args := func(dir, key string) []string {
		return []string{"files", dir, "--kek", pem[key], "--out", filepath.Join(parts, "out")}
	}
	refused(t, "whose private key was not given", args(dir, "store")...)
	require.NoDirExists(t, filepath.Join(parts, "out"))
	require.Empty(t, read(t, args(dir, "files")...))
	refused(t, "is there already", args(dir, "files")...)
	tables, err := filepath.Glob(filepath.Join(parts, "out", "*.sst"))
	require.NoError(t, err)
	require.NotEmpty(t, tables)
	document, records, sealed := export(t, filepath.Join(parts, "out"), 0)
	doc := write(t, parts, "document", document)
	require.Len(t, records, len(blocks))
	for id, want := range blocks {
		require.Equal(t, want, read(t, "block", doc, "--kek", pem["store"], "--id", hex.EncodeToString([]byte(id)),
			"--record", write(t, parts, "record", records[id]), "--sealed", write(t, parts, "sealed", sealed[id])))
	}

	logs, err := filepath.Glob(filepath.Join(dir, "*.log"))
	require.NoError(t, err)
	require.NotEmpty(t, logs)
	for why, change := range map[string]func(dir string) error{
		"its files are not sealed":       func(dir string) error { return os.Remove(filepath.Join(dir, "BLOCKSEAL.keyring")) },
		"is missing, which the identity": func(dir string) error { return os.Remove(filepath.Join(dir, filepath.Base(logs[0]))) },
		"it is not what the identity":    func(dir string) error { return os.Truncate(filepath.Join(dir, filepath.Base(logs[0])), 4096) },
		"it is another file's content": func(dir string) error {
			return os.Rename(filepath.Join(dir, filepath.Base(tables[0])), filepath.Join(dir, "999999.sst"))
		},
		"marker.new: it is not empty": func(dir string) error { return os.WriteFile(filepath.Join(dir, "marker.new"), []byte("x"), 0o600) },
		"000001.sst: this is no sealed file": func(dir string) error {
			return os.WriteFile(filepath.Join(dir, "000001.sst"), []byte("in clear"), 0o600)
		},
		"the document does not authenticate":    func(dir string) error { return flip(filepath.Join(dir, "BLOCKSEAL.keyring"), 30) },
		"chunk 0 of ":                           func(dir string) error { return flip(filepath.Join(dir, filepath.Base(tables[0])), 4096) },
		"the identity file is cut off or damag": func(dir string) error { return flip(filepath.Join(dir, "BLOCKSEAL"), 40) },
	} {
		changed := filepath.Join(t.TempDir(), "db")
		require.NoError(t, os.CopyFS(changed, os.DirFS(dir)))
		require.NoError(t, change(changed))
		require.NoError(t, os.RemoveAll(filepath.Join(parts, "out")))
		refused(t, why, args(changed, "files")...)
	}
}

// flip changes one bit of a file.
func flip(path string, at int) error {
	b, err := os.ReadFile(path)
	if err != nil {
		return err
	}
	b[at] ^= 1
	return os.WriteFile(path, b, 0o600)
}
