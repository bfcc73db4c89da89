package local_test

import (
	"bytes"
	"crypto/fips140"
	"encoding/binary"
	"fmt"
	"os"
	"path/filepath"
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/blockseal/blockseal/vault/local"
)

// The floor: what OWASP recommends at the least, and a bit less.
func TestKDFFloor(t *testing.T) {
	argon := func(passes, memory uint32) local.KDF {
		return local.KDF{Algorithm: local.Argon2id, Passes: passes, Memory: memory, Lanes: 1}
	}
	pbkdf2 := func(n uint32) local.KDF { return local.KDF{Algorithm: local.PBKDF2, Passes: n} }
	r := newRig(t)
	strict, err := local.Create(filepath.Join(t.TempDir(), "v"), passphrase, nil)
	require.NoError(t, err)
	defer strict.Close()
	for _, tt := range []struct{ least, weak local.KDF }{
		{argon(1, 47_104), argon(1, 47_103)},
		{argon(2, 19_456), argon(2, 19_455)},
		{argon(3, 12_288), argon(3, 12_287)},
		{argon(4, 9_216), argon(4, 9_215)},
		{argon(5, 7_168), argon(5, 7_167)},
		{argon(64, 7_168), argon(64, 7_167)},
		{pbkdf2(600_000), pbkdf2(599_999)},
	} {
		t.Run(fmt.Sprint(tt.least), func(t *testing.T) {
			refused := func(err error) {
				t.Helper()
				require.ErrorIs(t, err, local.ErrWeakKDF)
				require.ErrorContains(t, err, "Options.InsecureKDF")
			}
			fresh := filepath.Join(t.TempDir(), "v")
			_, err := local.Create(fresh, passphrase, &local.Options{KDF: tt.weak})
			refused(err)
			require.ErrorIs(t, err, local.ErrInvalid)
			require.NoDirExists(t, fresh)
			refused(strict.ChangePassphrase(t.Context(), passphrase, tt.weak))
			_, err = strict.EscrowBackupSecret(t.Context(), passphrase, tt.weak)
			refused(err)

			// In a file: refused before the passphrase is given to it.
			file, err := os.ReadFile(filepath.Join(r.dir, "vault"))
			require.NoError(t, err)
			open := func(k local.KDF, o *local.Options) error {
				b := bytes.Clone(file)
				b[26], b[35] = byte(k.Algorithm), k.Lanes
				binary.BigEndian.PutUint32(b[27:], k.Passes)
				binary.BigEndian.PutUint32(b[31:], k.Memory)
				dir := t.TempDir()
				require.NoError(t, os.WriteFile(filepath.Join(dir, "vault"), resum(b), 0o600))
				_, err := local.Open(dir, passphrase, o)
				return err
			}
			refused(open(tt.weak, nil))
			wrong := local.ErrWrongPassphrase // the file is made for another KDF
			if fips140.Enforced() && tt.least.Algorithm == local.Argon2id {
				wrong = local.ErrFIPS
			}
			require.ErrorIs(t, open(tt.least, nil), wrong)
			require.ErrorIs(t, open(tt.weak, insecure), wrong)
		})
	}
}

// A vault that was made below the floor is opened once, to change that.
func TestAVaultBelowTheFloorIsMended(t *testing.T) {
	r := newRig(t)
	w, secret := r.wrap(r, r.create("kek"))
	_, err := local.Open(r.dir, passphrase, nil)
	require.ErrorIs(t, err, local.ErrWeakKDF)
	v, err := local.Open(r.dir, passphrase, insecure)
	require.NoError(t, err)
	require.NoError(t, v.ChangePassphrase(t.Context(), passphrase, local.KDF{}))
	require.NoError(t, v.Close())
	v, err = local.Open(r.dir, passphrase, nil)
	require.NoError(t, err)
	r.unwraps(v, w, secret)
	require.NoError(t, v.Close())
}
