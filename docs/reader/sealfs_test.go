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
	for i, backend := range backends(t) {
		t.Run(backend, func(t *testing.T) {
			args := func(path string, more ...string) []string {
				return append([]string{"--backend", backend, "file", filepath.Join(golden, "KEYRING"), "--kek", filepath.Join(golden, "kek.pem"), path}, more...)
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
				// What is refused is the script's affair, not the backend's; each run takes a while.
				if i > 0 || g.Name == "OPTIONS-000007" || g.Layout == "log" {
					continue
				}
				sealed, err := os.ReadFile(path)
				require.NoError(t, err)
				sealed[4096+30] ^= 1
				refused(t, "does not authenticate", args(write(t, dir, g.Name, sealed))...)
			}
			if i > 0 {
				return
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
		})
	}
}
