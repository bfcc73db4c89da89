package local

import (
	"bytes"
	"os"
	"path/filepath"
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/blockseal/blockseal/internal/keyfile"
)

func seedFile(f *testing.F, name string) []byte {
	b, err := os.ReadFile(filepath.Join("testdata", "golden", name))
	require.NoError(f, err)
	return b
}

// FuzzVaultFile gives arbitrary bytes to what reads a vault file: an error, or a
// header that encodes to the same bytes.
func FuzzVaultFile(f *testing.F) {
	for _, name := range []string{"argon2id.vault", "pbkdf2.vault"} {
		b := seedFile(f, name)
		f.Add(b)
		f.Add(b[:headerSize])
		f.Add(b[:headerSize-1])
	}
	f.Fuzz(func(t *testing.T, b []byte) {
		h, err := decodeHeader(b)
		if err != nil {
			return
		}
		require.NoError(t, h.kdf.validate())
		require.Equal(t, b[:headerSize], h.encode())
		_, err = decodeBody(&h, make([]byte, keySize), b)
		require.ErrorIs(t, err, ErrCorrupt, "a body that nobody sealed")
	})
}

// FuzzVaultBody gives arbitrary bytes to what reads the body of a vault file behind
// its tag: an error, or a state that encodes and decodes to itself.
func FuzzVaultBody(f *testing.F) {
	for _, name := range []string{"argon2id.body.json", "pbkdf2.body.json"} {
		f.Add(seedFile(f, name))
	}
	f.Add([]byte(`{"created":1,"retention_days":90,"purge_protection":false,"backup_secret":"","keys":[],"identities":[]}`))
	f.Add([]byte(`{"keys":[null]}`))
	f.Fuzz(func(t *testing.T, b []byte) {
		st, err := decodeState(b)
		if err != nil {
			return
		}
		once, err := st.clone().encode()
		require.NoError(t, err)
		again, err := decodeState(once)
		require.NoError(t, err)
		twice, err := again.encode()
		require.NoError(t, err)
		require.True(t, bytes.Equal(once, twice))
	})
}

// FuzzBackup gives arbitrary bytes to what reads a backup, with the secret of the
// seeds, and arbitrary bodies that are sealed as a backup's is.
func FuzzBackup(f *testing.F) {
	secret := bytes.Repeat([]byte{0x5a}, BackupSecretSize)
	for _, name := range []string{"argon2id.backup", "pbkdf2.backup"} {
		b := seedFile(f, name)
		f.Add(b)
		f.Add(b[:backupHeaderSize])
		body, err := open(backupKey(secret, b[backupSaltAt:backupSizeAt]), b[backupHeaderSize:], b[:backupHeaderSize])
		require.NoError(f, err)
		f.Add(body)
	}
	head := seedFile(f, "pbkdf2.backup")[:backupHeaderSize]
	f.Fuzz(func(t *testing.T, b []byte) {
		for _, file := range [][]byte{b, sealBackupBody(head, backupKey(secret, head[backupSaltAt:backupSizeAt]), b)} {
			got, err := decodeBackup(file, secret)
			if err != nil {
				continue
			}
			require.NotEmpty(t, got.key.Versions)
			require.Zero(t, got.key.Deleted)
			for _, v := range got.key.Versions {
				require.NoError(t, keyfile.CheckPublic(v.public))
			}
		}
	})
}

func goldenBody(t testing.TB) []byte {
	b, err := os.ReadFile(filepath.Join("testdata", "golden", "pbkdf2.body.json"))
	require.NoError(t, err)
	return b
}
