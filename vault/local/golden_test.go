package local_test

import (
	"bytes"
	"crypto/aes"
	"crypto/cipher"
	"crypto/fips140"
	"crypto/hkdf"
	"crypto/pbkdf2"
	"crypto/rsa"
	"crypto/sha256"
	"crypto/x509"
	"encoding/binary"
	"encoding/hex"
	"encoding/json"
	"flag"
	"os"
	"path/filepath"
	"testing"

	"github.com/stretchr/testify/require"
	"golang.org/x/crypto/argon2"

	"github.com/blockseal/blockseal/vault"
	"github.com/blockseal/blockseal/vault/local"
)

// Files that were written once, and that every later release must read. To make them
// anew, which is a change of the format: go test -run TestMakeGolden -golden ./vault/local
var makeGolden = flag.Bool("golden", false, "write testdata/golden anew")

const goldenID = "local:000102030405060708090a0b0c0d0e0f"

var (
	goldenEscrow = bytes.Repeat([]byte{0x5a}, local.BackupSecretSize)
	goldenSecret = []byte("a secret that was wrapped once")
	goldenKDFs   = map[string]local.KDF{
		"argon2id": {Algorithm: local.Argon2id, Passes: 2, Memory: 64, Lanes: 2},
		"pbkdf2":   {Algorithm: local.PBKDF2, Passes: 1000},
	}
)

func golden(t *testing.T, name string) []byte {
	t.Helper()
	b, err := os.ReadFile(filepath.Join("testdata", "golden", name))
	require.NoError(t, err)
	return b
}

func TestMakeGolden(t *testing.T) {
	if !*makeGolden {
		return // the files are there, and TestGolden reads them
	}
	require.NoError(t, os.MkdirAll(filepath.Join("testdata", "golden"), 0o755))
	save := func(name string, b []byte) {
		require.NoError(t, os.WriteFile(filepath.Join("testdata", "golden", name), b, 0o644))
	}
	for name, kdf := range goldenKDFs {
		ctx, dir := t.Context(), filepath.Join(t.TempDir(), "v")
		r := &rig{t: t, dir: dir}
		no := false
		v, err := local.Create(dir, passphrase, local.WithGenerate(local.Options{InsecureKDF: true, KDF: kdf, ID: goldenID, BackupSecret: goldenEscrow, RetentionDays: 30}, r.keys.generate))
		require.NoError(t, err)
		first, err := v.CreateKey(ctx, "kek", &local.KeyOptions{NotBefore: start, Expires: start.AddDate(50, 0, 0),
			Policy: &local.RotationPolicy{RotateAfter: 9000 * day, RotateBeforeExpiry: day, ExpiresAfter: 3 * day, NotifyBefore: 2 * day}})
		require.NoError(t, err)
		w, err := v.WrapKey(ctx, first.ID, goldenSecret)
		require.NoError(t, err)
		_, err = v.RotateKey(ctx, "kek")
		require.NoError(t, err)
		_, err = v.UpdateKey(ctx, vault.KeyID{Name: "kek"}, local.Update{Enabled: &no, Operations: []vault.Operation{vault.OpUnwrapKey}})
		require.NoError(t, err)
		_, err = v.CreateKey(ctx, "transfer", &local.KeyOptions{Operations: []vault.Operation{local.OpImport}})
		require.NoError(t, err)
		_, err = v.DeleteKey(ctx, "transfer")
		require.NoError(t, err)
		require.NoError(t, v.Grant(ctx, "ingest", local.DataPlane()...))
		backup, err := v.BackupKey(ctx, "kek")
		require.NoError(t, err)
		require.NoError(t, v.Close())
		file, err := os.ReadFile(filepath.Join(dir, "vault"))
		require.NoError(t, err)
		save(name+".vault", file)
		save(name+".wrapped", []byte(w.KeyID.Version+hex.EncodeToString(w.Ciphertext)))
		save(name+".backup", backup)
		body, _ := readVaultFile(t, file, kdf)
		save(name+".body.json", body)
	}
}

// openAES opens what is sealed, by the standard library alone.
func openAES(t *testing.T, key, sealed, aad []byte) []byte {
	t.Helper()
	b, err := aes.NewCipher(key)
	require.NoError(t, err)
	a, err := cipher.NewGCMWithRandomNonce(b) // takes the first 12 bytes as the nonce
	require.NoError(t, err)
	plaintext, err := a.Open(nil, nil, sealed, aad)
	require.NoError(t, err)
	return plaintext
}

// readVaultFile reads a vault file as format.go draws it, with nothing of this
// package: what anybody could write who has the file and the passphrase.
func readVaultFile(t *testing.T, file []byte, kdf local.KDF) (body, master []byte) {
	t.Helper()
	require.Equal(t, "BSLVAULT", string(file[:8]))
	require.EqualValues(t, 2, binary.BigEndian.Uint16(file[8:]))
	require.Equal(t, goldenID[len("local:"):], hex.EncodeToString(file[10:26]))
	require.EqualValues(t, kdf.Algorithm, file[26])
	require.Equal(t, kdf.Passes, binary.BigEndian.Uint32(file[27:]))
	require.Equal(t, kdf.Memory, binary.BigEndian.Uint32(file[31:]))
	require.Equal(t, kdf.Lanes, file[35])
	sum := sha256.Sum256(file[:140])
	require.Equal(t, sum[:], file[140:172])
	require.EqualValues(t, len(file)-172, binary.BigEndian.Uint32(file[136:]))

	var key []byte
	if kdf.Algorithm == local.Argon2id {
		key = argon2.IDKey(passphrase, file[36:68], kdf.Passes, kdf.Memory, kdf.Lanes, 32)
	} else {
		var err error
		key, err = pbkdf2.Key(sha256.New, string(passphrase), file[36:68], int(kdf.Passes), 32)
		require.NoError(t, err)
	}
	master = openAES(t, key, file[68:128], file[:68])
	return openAES(t, master, file[172:], file[:172]), master
}

func TestGoldenVaultFiles(t *testing.T) {
	for name, kdf := range goldenKDFs {
		t.Run(name, func(t *testing.T) {
			file, want := golden(t, name+".vault"), golden(t, name+".body.json")
			body, master := readVaultFile(t, file, kdf)
			require.Equal(t, string(want), string(body))
			var parsed struct {
				BackupSecret []byte `json:"backup_secret"`
				Keys         []struct {
					Name     string
					Versions []struct {
						Version         string
						Public, Private []byte
					}
				}
			}
			require.NoError(t, json.Unmarshal(body, &parsed))
			require.Equal(t, goldenEscrow, openAES(t, master, parsed.BackupSecret, append([]byte("blockseal/local/backup-secret/1\x00"), file[10:26]...)))
			for _, k := range parsed.Keys {
				for _, v := range k.Versions {
					aad := append([]byte("blockseal/local/private-key/1\x00"), file[10:26]...)
					private, err := x509.ParsePKCS8PrivateKey(openAES(t, master, v.Private, append(aad, k.Name+"/"+v.Version...)))
					require.NoError(t, err)
					public, err := x509.ParsePKIXPublicKey(v.Public)
					require.NoError(t, err)
					require.True(t, private.(*rsa.PrivateKey).PublicKey.Equal(public))
				}
			}

			// What this release writes is what stands there.
			head, recoded, err := local.Recode(file, master)
			require.NoError(t, err)
			require.Equal(t, file[:172], head)
			require.Equal(t, string(want), string(recoded))

			dir := t.TempDir()
			require.NoError(t, os.WriteFile(filepath.Join(dir, "vault"), file, 0o600))
			v, err := local.Open(dir, passphrase, insecure)
			if fips140.Enforced() && kdf.Algorithm == local.Argon2id {
				require.ErrorIs(t, err, local.ErrFIPS)
				require.ErrorContains(t, err, "ChangePassphrase")
				return
			}
			require.NoError(t, err)
			require.Equal(t, goldenID, v.ID())
			unwrapsGolden(t, v, name)
			require.NoError(t, v.Close())
		})
	}
}

func unwrapsGolden(t *testing.T, v vault.Vault, name string) {
	t.Helper()
	w := golden(t, name+".wrapped")
	ciphertext, err := hex.DecodeString(string(w[32:]))
	require.NoError(t, err)
	got, err := v.UnwrapKey(t.Context(), vault.Wrapped{
		KeyID:      vault.KeyID{Vault: goldenID, Name: "kek", Version: string(w[:32])},
		Ciphertext: ciphertext,
	})
	require.NoError(t, err)
	require.Equal(t, goldenSecret, got)
}

func TestGoldenBackups(t *testing.T) {
	for name := range goldenKDFs {
		t.Run(name, func(t *testing.T) {
			file := golden(t, name+".backup")
			// As backup.go draws it, with nothing of this package.
			require.Equal(t, "BSKEYBAK", string(file[:8]))
			require.EqualValues(t, 1, binary.BigEndian.Uint16(file[8:]))
			require.Equal(t, goldenID[len("local:"):], hex.EncodeToString(file[10:26]))
			check, err := hkdf.Expand(sha256.New, goldenEscrow, "blockseal/local/backup-check/1", 16)
			require.NoError(t, err)
			require.Equal(t, check, file[26:42])
			require.EqualValues(t, len(file)-78, binary.BigEndian.Uint32(file[74:]))
			key, err := hkdf.Key(sha256.New, goldenEscrow, file[42:74], "blockseal/local/backup-key/1", 32)
			require.NoError(t, err)
			var body struct {
				Created int64
				Key     struct {
					Name     string
					Versions []struct {
						Version string
						Private []byte
					}
				}
			}
			require.NoError(t, json.Unmarshal(openAES(t, key, file[78:], file[:78]), &body))
			require.Len(t, body.Key.Versions, 2)
			for _, v := range body.Key.Versions {
				aad := append([]byte("blockseal/local/private-key/1\x00"), file[10:26]...)
				_, err := x509.ParsePKCS8PrivateKey(openAES(t, key, v.Private, append(aad, "kek/"+v.Version...)))
				require.NoError(t, err)
			}

			v, err := local.Create(filepath.Join(t.TempDir(), "v"), passphrase, &local.Options{InsecureKDF: true, KDF: cheap, ID: goldenID, BackupSecret: goldenEscrow})
			require.NoError(t, err)
			_, err = v.RestoreKey(t.Context(), file)
			require.NoError(t, err)
			unwrapsGolden(t, v, name)
			require.NoError(t, v.Close())
		})
	}
}
