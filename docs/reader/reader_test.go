// Package reader_test holds the independent reader, a Python script, against
// stores that this library wrote. The script follows docs/format.md and shares no
// code with the library: what it opens, anyone can.
package reader_test

import (
	"bytes"
	"context"
	"crypto/fips140"
	"crypto/rsa"
	"crypto/x509"
	"encoding/binary"
	"encoding/hex"
	"encoding/json"
	"encoding/pem"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"github.com/cockroachdb/pebble/v2"
	"github.com/stretchr/testify/require"

	"github.com/blockseal/blockseal/block"
	"github.com/blockseal/blockseal/kek"
	"github.com/blockseal/blockseal/keyring"
	"github.com/blockseal/blockseal/vault"
	"github.com/blockseal/blockseal/vault/local"
)

// backends returns those of the script's backends that can run here. They differ in how they open AES-GCM, decrypt
// with RSA-OAEP and read a key, which TestFromPassphraseToPlaintext has both do. Other tests run the first:
// the second takes 45 ms to read a key.
func backends(t *testing.T) []string {
	if _, err := exec.LookPath("python3"); err != nil {
		t.Skip("python3 is not installed: the independent reader was NOT run")
	}
	var found []string
	if exec.Command("python3", "-c", "import _ssl").Run() == nil {
		found = append(found, "libcrypto")
	}
	if exec.Command("python3", "-c", "import cryptography").Run() == nil {
		found = append(found, "cryptography")
	}
	if len(found) == 0 {
		t.Skip("Python has neither cryptography nor ssl: the independent reader was NOT run")
	}
	// The result depends on the script: this makes go test's cache know it.
	_, err := os.ReadFile("blockseal_read.py")
	require.NoError(t, err)
	t.Log("running the independent reader on", found)
	return found
}

func read(t *testing.T, args ...string) []byte {
	t.Helper()
	out, complaint, err := run(t, args...)
	require.NoError(t, err, complaint)
	return out
}

// refused runs the script on something that is damaged or does not fit.
func refused(t *testing.T, why string, args ...string) {
	t.Helper()
	out, complaint, err := run(t, args...)
	require.Error(t, err)
	require.Contains(t, complaint, "blockseal_read: ")
	require.Contains(t, complaint, why)
	require.NotContains(t, complaint, "Traceback")
	require.Empty(t, out, "nothing is printed that has not been authenticated")
}

func write(t *testing.T, dir, name string, data []byte) string {
	t.Helper()
	path := filepath.Join(dir, name)
	require.NoError(t, os.WriteFile(path, data, 0o600))
	return path
}

// export reads the keys of a partition of a closed directory with Pebble itself and returns its
// keyring document and, by block id, its DEK records and sealed blocks.
func export(t *testing.T, dir string, partition uint32) (document []byte, records, sealed map[string][]byte) {
	db, err := pebble.Open(dir, &pebble.Options{ReadOnly: true, Logger: quiet{t}})
	require.NoError(t, err)
	defer func() { require.NoError(t, db.Close()) }()
	it, err := db.NewIter(nil)
	require.NoError(t, err)
	defer it.Close()
	records, sealed = map[string][]byte{}, map[string][]byte{}
	for ok := it.First(); ok; ok = it.Next() {
		key, value := string(it.Key()), bytes.Clone(it.Value())
		switch {
		case binary.BigEndian.Uint32(it.Key()[1:]) != partition:
		case key[0] == 1 && key[5:] == "keyring":
			document = value
		case key[0] == 2:
			records[key[5:]] = value
		case key[0] == 3:
			sealed[key[5:]] = value
		}
	}
	require.NoError(t, it.Error())
	require.NotNil(t, document)
	return document, records, sealed
}

type quiet struct{ t *testing.T }

func (quiet) Infof(string, ...any)        {}
func (q quiet) Errorf(f string, a ...any) { q.t.Errorf(f, a...) }
func (q quiet) Fatalf(f string, a ...any) { q.t.Fatalf(f, a...) }

// testKey returns one of the golden files' private keys, since making one is slow.
func testKey(t *testing.T, name string) *rsa.PrivateKey {
	b, err := os.ReadFile(filepath.Join("..", "..", "keyring", "testdata", "golden", name))
	require.NoError(t, err)
	block, _ := pem.Decode(b)
	key, err := x509.ParsePKCS8PrivateKey(block.Bytes)
	require.NoError(t, err)
	return key.(*rsa.PrivateKey)
}

// TestFromPassphraseToPlaintext takes a store and a file vault, and with the
// vault's passphrase alone, and none of this library, gets the blocks back: the
// private keys out of the vault's file, the epochs out of the keyring document, the
// DEKs out of the records, the blocks out of what is sealed.
func TestFromPassphraseToPlaintext(t *testing.T) {
	found := backends(t)
	passphrase := []byte("correct horse battery staple\n")
	blocks := map[string][]byte{
		"\x00":                        {},
		"block 1":                     []byte("plaintext of block 1"),
		strings.Repeat("long id ", 9): bytes.Repeat([]byte("0123456789"), 500),
	}
	argon, pbkdf2 := local.KDF{Algorithm: local.Argon2id, Passes: 1, Memory: 64, Lanes: 2}, local.KDF{Algorithm: local.PBKDF2, Passes: 1000}
	if fips140.Enforced() {
		argon = pbkdf2 // argon2id is outside the FIPS 140-3 module
	}
	for _, c := range []struct {
		kdf      local.KDF
		wrapping keyring.Wrapping
	}{{argon, keyring.ByKeyring}, {pbkdf2, keyring.ByKEK}} {
		t.Run(c.kdf.Algorithm.String()+", "+c.wrapping.String(), func(t *testing.T) {
			ctx, work := context.Background(), t.TempDir()
			vaultDir, storeDir := filepath.Join(work, "vault"), filepath.Join(work, "store")
			v, err := local.Create(vaultDir, passphrase, &local.Options{InsecureKDF: true, KDF: c.kdf})
			require.NoError(t, err)
			defer v.Close()
			_, err = v.ImportKey(ctx, "customer", testKey(t, "kek-a1.pem"), nil)
			require.NoError(t, err)
			s, err := block.Open(ctx, storeDir, kek.New(v, vault.KeyID{Name: "customer"}),
				&block.Options{ManualRewrap: true, Keyring: keyring.Options{Wrapping: c.wrapping}})
			require.NoError(t, err)
			defer s.Close()
			put := func(id string) { require.NoError(t, s.Put(ctx, []byte(id), blocks[id])) }
			put("\x00")
			require.NoError(t, s.RotateEpoch(ctx, nil))
			put("block 1")
			_, err = v.ImportKey(ctx, "customer", testKey(t, "kek-a2.pem"), &local.KeyOptions{NewVersion: true})
			require.NoError(t, err)
			require.NoError(t, s.RotateKEK(ctx))
			put(strings.Repeat("long id ", 9))
			fingerprint, id := s.Fingerprint(), s.StoreID().String()
			require.NoError(t, s.Close())

			document, records, sealed := export(t, storeDir, 0)
			require.Len(t, records, len(blocks))
			require.Len(t, sealed, len(blocks))
			doc := write(t, work, "document", document)
			secret := write(t, work, "passphrase", passphrase)
			for _, backend := range found {
				t.Run(backend, func(t *testing.T) {
					file := filepath.Join(vaultDir, "vault")
					keys := t.TempDir()
					args := []string{"--backend", backend, "vault", file, "--passphrase-file", secret, "--out", keys}
					if c.kdf.Algorithm == local.Argon2id && !slices.Contains(found, "cryptography") {
						refused(t, "argon2id, which needs the Python package cryptography", args...)
						for _, name := range []string{"kek-a1.pem", "kek-a2.pem"} {
							b, err := os.ReadFile(filepath.Join("..", "..", "keyring", "testdata", "golden", name))
							require.NoError(t, err)
							write(t, keys, name, b)
						}
					} else {
						require.Len(t, strings.Fields(string(read(t, args...))), 2)
						wrong := write(t, t.TempDir(), "wrong", []byte("wrong"))
						refused(t, "is it the right passphrase?", "--backend", backend, "vault", file, "--passphrase-file", wrong, "--out", keys)
					}
					pems, err := filepath.Glob(filepath.Join(keys, "*.pem"))
					require.NoError(t, err)
					require.Len(t, pems, 2)
					with := func(command string, more ...string) []string {
						a := append([]string{"--backend", backend, command, doc}, more...)
						for _, p := range pems {
							a = append(a, "--kek", p)
						}
						return a
					}

					var ring struct {
						Store       string `json:"store"`
						Fingerprint string `json:"store_fingerprint"`
						Wrapping    int    `json:"wrapping"`
					}
					require.NoError(t, json.Unmarshal(read(t, with("keyring")...), &ring))
					require.Equal(t, id, ring.Store)
					require.Equal(t, fingerprint, ring.Fingerprint)
					require.EqualValues(t, c.wrapping, ring.Wrapping)

					parts := t.TempDir()
					open := func(id string) []string {
						return with("block", "--id", hex.EncodeToString([]byte(id)), "--record", write(t, parts, "record", records[id]),
							"--sealed", write(t, parts, "sealed", sealed[id]))
					}
					for id, want := range blocks {
						require.True(t, bytes.Equal(want, read(t, open(id)...)), "block %q", id)
					}

					// The reader authenticates: what was altered, it refuses.
					const victim = "block 1"
					for _, part := range []struct {
						bytes []byte
						why   string
					}{{records[victim], "the DEK record does not authenticate"}, {sealed[victim], "the block does not authenticate"}} {
						last := len(part.bytes) - 1
						part.bytes[last] ^= 1
						refused(t, part.why, open(victim)...)
						part.bytes[last] ^= 1
					}
					bad := bytes.Clone(document)
					bad[30] ^= 1 // the generation, in clear and part of the AAD
					write(t, work, "document", bad)
					refused(t, "the document does not authenticate", with("keyring")...)
					write(t, work, "document", document)
				})
			}
		})
	}
}
