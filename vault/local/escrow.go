package local

import (
	"bytes"
	"context"
	"crypto/rand"
	"crypto/sha256"
	"encoding/binary"
	"errors"
	"fmt"

	"github.com/blockseal/blockseal/vault"
)

// An escrow file, version 1, is a vault's backup secret under a passphrase of its
// own. It has 160 bytes. Integers are big-endian. These bytes are kept by people and
// must not change.
//
//	offset  size  field
//	     0     8  magic "BSESCROW"
//	     8     2  format version, 1
//	    10    16  vault id
//	    26    10  passphrase KDF and its costs, as in a vault file
//	    36    32  salt
//	    68    60  the backup secret, 32 bytes, sealed under the KDF's key; AAD: bytes 0 to 67
//	   128    32  SHA-256 of bytes 0 to 127
//
// As in a vault file, the SHA-256 tells damage from a wrong passphrase, and nothing more.
const (
	escrowMagic   = "BSESCROW"
	escrowVersion = 1

	escrowSumAt = wrapOffset + keySize + overhead // 128
	escrowSize  = escrowSumAt + sha256.Size       // 160
)

// Escrow is the content of an escrow file: what it takes, besides the backups, to
// rebuild a vault that is lost, as [Options.ID] and [Options.BackupSecret].
type Escrow struct {
	VaultID      string // "local:" and 32 hexadecimal digits
	BackupSecret Secret // 32 bytes; see [Escrow.Destroy]
}

// Destroy overwrites the secret.
func (e Escrow) Destroy() { clear(e.BackupSecret) }

// EscrowBackupSecret returns the secret that the vault's backups are encrypted under,
// itself encrypted under a passphrase, to be kept where neither the vault nor its
// backups are: 160 bytes, which [OpenEscrow] reads. The passphrase has at least 1
// byte and should not be the vault's: who opens the vault needs no escrow. The zero
// KDF is the default. The caller clears the passphrase.
//
// Whoever has the file, its passphrase and a backup has the key in the backup. The
// vault is not changed, and a later ChangePassphrase does not change the file.
func (v *Vault) EscrowBackupSecret(ctx context.Context, passphrase []byte, kdf KDF) ([]byte, error) {
	c, id := v.core, vault.KeyID{Vault: v.core.name}
	if len(passphrase) == 0 {
		return nil, c.invalid(opSecret, id, errors.New("the passphrase of the escrow is empty"))
	}
	kdf = kdf.withDefaults()
	if err := kdf.admit(&c.opts); err != nil {
		return nil, c.invalid(opSecret, id, err)
	}
	secret, err := v.BackupSecret(ctx)
	if err != nil {
		return nil, err
	}
	defer clear(secret)

	b := binary.BigEndian.AppendUint16([]byte(escrowMagic), escrowVersion)
	b = append(b, c.id[:]...)
	b = append(b, byte(kdf.Algorithm))
	b = binary.BigEndian.AppendUint32(b, kdf.Passes)
	b = binary.BigEndian.AppendUint32(b, kdf.Memory)
	b = append(b, kdf.Lanes)
	salt := make([]byte, saltSize)
	rand.Read(salt)
	b = append(b, salt...)
	key, err := kdf.derive(passphrase, salt)
	if err != nil {
		return nil, c.invalid(opSecret, id, err)
	}
	defer clear(key)
	b = append(b, seal(key, secret, b)...)
	sum := sha256.Sum256(b)
	return append(b, sum[:]...), nil
}

// OpenEscrow reads what [Vault.EscrowBackupSecret] returned. The error matches
// [ErrWrongPassphrase], [ErrCorrupt], [ErrVersion] or [ErrFIPS]. A file whose KDF is below
// the floor opens: its secret is as safe as it is whoever opens it, and it may be all
// that is left of a vault. The caller clears the passphrase and calls Destroy when a
// vault was made with the result.
func OpenEscrow(file, passphrase []byte) (Escrow, error) {
	e, err := openEscrow(file, passphrase)
	if err != nil {
		return Escrow{}, fmt.Errorf("local: open the escrow of a backup secret: %w", err)
	}
	return e, nil
}

func openEscrow(file, passphrase []byte) (Escrow, error) {
	n := min(len(file), len(escrowMagic))
	if !bytes.Equal(file[:n], []byte(escrowMagic)[:n]) {
		return Escrow{}, corrupt("it does not start as an escrow file does")
	}
	if len(file) < 10 {
		return Escrow{}, corrupt("it ends after %d bytes", len(file))
	}
	if v := binary.BigEndian.Uint16(file[8:]); v != escrowVersion {
		return Escrow{}, fmt.Errorf("it has format version %d, this release reads %d: %w", v, escrowVersion, ErrVersion)
	}
	if len(file) != escrowSize {
		return Escrow{}, corrupt("it has %d bytes, want %d", len(file), escrowSize)
	}
	if [sha256.Size]byte(file[escrowSumAt:]) != sha256.Sum256(file[:escrowSumAt]) {
		return Escrow{}, corrupt("its checksum is wrong")
	}
	kdf := KDF{
		Algorithm: KDFAlgorithm(file[kdfOffset]),
		Passes:    binary.BigEndian.Uint32(file[kdfOffset+1:]),
		Memory:    binary.BigEndian.Uint32(file[kdfOffset+5:]),
		Lanes:     file[kdfOffset+9],
	}
	if err := kdf.validate(); err != nil {
		return Escrow{}, corrupt("its passphrase KDF: %w", err)
	}
	key, err := kdf.derive(passphrase, file[saltOffset:wrapOffset])
	if err != nil {
		return Escrow{}, err
	}
	defer clear(key)
	secret, err := open(key, file[wrapOffset:escrowSumAt], file[:wrapOffset])
	if err != nil {
		return Escrow{}, ErrWrongPassphrase
	}
	return Escrow{VaultID: vaultName16([idSize]byte(file[10:kdfOffset])), BackupSecret: secret}, nil
}
