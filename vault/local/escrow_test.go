package local_test

import (
	"bytes"
	"crypto/pbkdf2"
	"crypto/sha256"
	"encoding/binary"
	"encoding/json"
	"fmt"
	"os"
	"path/filepath"
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/blockseal/blockseal/vault"
	"github.com/blockseal/blockseal/vault/local"
)

var escrowPassphrase = []byte("kept in another building")

// The vault is lost. What is left is a backup, the escrow file and its passphrase.
func TestEscrowRebuildsALostVault(t *testing.T) {
	r := newRig(t)
	ctx := t.Context()
	w, secret := r.wrap(r, r.create("kek"))
	backup, err := r.BackupKey(ctx, "kek")
	require.NoError(t, err)
	file, err := r.EscrowBackupSecret(ctx, escrowPassphrase, cheap)
	require.NoError(t, err)
	require.Len(t, file, 160)
	raw, err := r.BackupSecret(ctx)
	require.NoError(t, err)
	require.False(t, bytes.Contains(file, raw[:8]))
	require.NoError(t, r.Close())

	e, err := local.OpenEscrow(file, escrowPassphrase)
	require.NoError(t, err)
	require.Equal(t, r.ID(), e.VaultID)
	require.Equal(t, local.Secret(raw), e.BackupSecret)
	again := newRigWith(t, local.Options{ID: e.VaultID, BackupSecret: e.BackupSecret})
	e.Destroy()
	require.Equal(t, make(local.Secret, local.BackupSecretSize), e.BackupSecret)
	_, err = again.RestoreKey(ctx, backup)
	require.NoError(t, err)
	again.unwraps(again, w, secret)
}

func TestEscrowRefuses(t *testing.T) {
	r := newRig(t)
	file, err := r.EscrowBackupSecret(t.Context(), escrowPassphrase, cheap)
	require.NoError(t, err)

	_, err = local.OpenEscrow(file, passphrase)
	require.ErrorIs(t, err, local.ErrWrongPassphrase)
	require.NotErrorIs(t, err, local.ErrCorrupt)
	require.NotContains(t, err.Error(), string(passphrase))
	for n := range file {
		_, err := local.OpenEscrow(file[:n], escrowPassphrase)
		require.ErrorIs(t, err, local.ErrCorrupt, "truncated to %d bytes", n)
	}
	_, err = local.OpenEscrow(append(bytes.Clone(file), 0), escrowPassphrase)
	require.ErrorIs(t, err, local.ErrCorrupt)
	for i := range file {
		flipped := bytes.Clone(file)
		flipped[i] ^= 1 << (i % 8)
		_, err := local.OpenEscrow(flipped, escrowPassphrase)
		if i == 8 || i == 9 {
			require.ErrorIs(t, err, local.ErrVersion)
		} else {
			require.ErrorIs(t, err, local.ErrCorrupt, "byte %d", i)
		}
		// Edited with care: the checksum is right again.
		if i >= 10 && i < 128 {
			sum := sha256.Sum256(flipped[:128])
			copy(flipped[128:], sum[:])
			if i < 26 || i >= 36 { // the KDF's costs are looked at first
				_, err = local.OpenEscrow(flipped, escrowPassphrase)
				require.ErrorIs(t, err, local.ErrWrongPassphrase, "byte %d", i)
			}
		}
	}
	huge := bytes.Clone(file)
	binary.BigEndian.PutUint32(huge[27:], 1<<31)
	sum := sha256.Sum256(huge[:128])
	copy(huge[128:], sum[:])
	_, err = local.OpenEscrow(huge, escrowPassphrase)
	require.ErrorIs(t, err, local.ErrCorrupt, "an edited file must not cost hours")

	_, err = r.EscrowBackupSecret(t.Context(), nil, cheap)
	require.ErrorIs(t, err, local.ErrInvalid)
	_, err = r.EscrowBackupSecret(t.Context(), escrowPassphrase, local.KDF{Algorithm: 9})
	require.ErrorIs(t, err, local.ErrInvalid)
	require.False(t, vault.Denied(err))
	require.NoError(t, r.Close())
	_, err = r.EscrowBackupSecret(t.Context(), escrowPassphrase, cheap)
	require.ErrorIs(t, err, local.ErrClosed)
}

func TestEscrowDoesNotPrint(t *testing.T) {
	secret := []byte("0123456789abcdef0123456789abcdef")
	e := local.Escrow{VaultID: goldenID, BackupSecret: secret}
	for _, verb := range []string{"%v", "%+v", "%#v", "%s", "%x", "%q", "%d"} {
		for _, what := range []any{e, &e, []local.Escrow{e}} {
			text := fmt.Sprintf(verb, what)
			require.NotContains(t, text, string(secret[:6]), verb)
			require.NotContains(t, text, "303132333435", verb)
			require.NotContains(t, text, "48 49 50", verb)
		}
	}
	b, err := json.Marshal(e)
	require.NoError(t, err)
	require.NotContains(t, string(b), "MDEyMzQ1")
	require.Contains(t, string(b), goldenID)
}

// TestEscrowFormat reads an escrow file as escrow.go draws it, with the standard
// library alone.
func TestEscrowFormat(t *testing.T) {
	file := golden(t, "pbkdf2.escrow")
	require.Equal(t, "BSESCROW\x00\x01", string(file[:10]))
	e, err := local.OpenEscrow(file, escrowPassphrase)
	require.NoError(t, err)
	require.Equal(t, local.Escrow{VaultID: goldenID, BackupSecret: goldenEscrow}, e)
	require.Equal(t, goldenEscrow, openAES(t, pbkdf2Key(t, escrowPassphrase, file[36:68], 1000), file[68:128], file[:68]))
}

func TestMakeGoldenEscrow(t *testing.T) {
	if !*makeGolden {
		return // TestEscrowFormat reads it
	}
	r := newRigWith(t, local.Options{ID: goldenID, BackupSecret: bytes.Clone(goldenEscrow)})
	file, err := r.EscrowBackupSecret(t.Context(), escrowPassphrase, goldenKDFs["pbkdf2"])
	require.NoError(t, err)
	saveGolden(t, "pbkdf2.escrow", file)
}

func FuzzOpenEscrow(f *testing.F) {
	file, err := os.ReadFile(filepath.Join("testdata", "golden", "pbkdf2.escrow")) // the same in each of the fuzzer's processes
	require.NoError(f, err)
	f.Add(file)
	f.Add(file[:40])
	f.Fuzz(func(t *testing.T, b []byte) {
		if len(b) > 36 {
			b = bytes.Clone(b)
			copy(b[26:36], file[26:36]) // the fuzzer would find the costliest KDF
		}
		if len(b) == len(file) {
			sum := sha256.Sum256(b[:128])
			copy(b[128:], sum[:])
		}
		e, err := local.OpenEscrow(b, escrowPassphrase)
		if err == nil {
			require.Equal(t, file[:128], b[:128], "only what was sealed opens")
			require.Len(t, e.BackupSecret, local.BackupSecretSize)
		}
	})
}

func pbkdf2Key(t *testing.T, passphrase, salt []byte, n int) []byte {
	t.Helper()
	key, err := pbkdf2.Key(sha256.New, string(passphrase), salt, n, 32)
	require.NoError(t, err)
	return key
}

func saveGolden(t *testing.T, name string, b []byte) {
	t.Helper()
	require.NoError(t, os.WriteFile(filepath.Join("testdata", "golden", name), b, 0o644))
}
