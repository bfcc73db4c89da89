package local

import (
	"bytes"
	"context"
	"crypto/hkdf"
	"crypto/rand"
	"crypto/sha256"
	"crypto/subtle"
	"encoding/binary"
	"encoding/json"
	"errors"
	"fmt"
	"time"

	"github.com/blockseal/blockseal/internal/keyfile"
	"github.com/blockseal/blockseal/vault"
)

// A backup, version 1, is one key with all its versions. Integers are big-endian.
// These bytes are kept by people and must not change; docs/format.md is normative.
//
//	offset  size  field
//	     0     8  magic "BSKEYBAK"
//	     8     2  format version, 1
//	    10    16  vault id of the vault that made it
//	    26    16  tells backup secrets apart: HKDF-SHA256-Expand of the secret, info "blockseal/local/backup-check/1"
//	    42    32  salt
//	    74     4  B, the size of the sealed body in bytes
//	    78     B  the body, sealed under the backup key; AAD: bytes 0 to 77
//
// The backup key has 32 bytes: HKDF-SHA256 (RFC 5869) of the backup secret, 32
// bytes, with the salt, info "blockseal/local/backup-key/1".
//
// The body is JSON: {"created": time, "key": as an element of "keys" in a vault file,
// not deleted}. "private" in it is sealed under the backup key, with the AAD that
// seal.go gives, for the vault id above.
const (
	backupMagic   = "BSKEYBAK"
	backupVersion = 1

	backupCheckSize  = 16
	backupCheckAt    = 10 + idSize
	backupSaltAt     = backupCheckAt + backupCheckSize
	backupSizeAt     = backupSaltAt + saltSize
	backupHeaderSize = backupSizeAt + 4 // 78

	backupCheckInfo = "blockseal/local/backup-check/1"
	backupKeyInfo   = "blockseal/local/backup-key/1"
)

type backupBody struct {
	Created int64 `json:"created"`
	Key     *key  `json:"key"`
}

// backupCheck says which secret it is, and nothing about it.
func backupCheck(secret []byte) []byte {
	return mustHKDF(hkdf.Expand(sha256.New, secret, backupCheckInfo, backupCheckSize))
}

func backupKey(secret, salt []byte) []byte {
	return mustHKDF(hkdf.Key(sha256.New, secret, salt, backupKeyInfo, keySize))
}

func mustHKDF(b []byte, err error) []byte {
	if err != nil {
		// It fails on too long an output, and under fips140=only on a short secret.
		panic("local: HKDF-SHA256 refused sizes of this package: " + err.Error())
	}
	return b
}

// backupSecret returns the vault's backup secret. The caller clears it.
func (c *core) backupSecret(st *state) ([]byte, error) {
	secret, err := open(c.master(), st.BackupSecret, backupSecretAAD(c.id))
	if err != nil || len(secret) != BackupSecretSize {
		return nil, corrupt("the backup secret in the vault file")
	}
	return secret, nil
}

// BackupSecret returns the secret, 32 bytes, that the vault's backups are encrypted
// under. The caller clears it.
//
// It is for escrow (as it is, or under a passphrase: [Vault.EscrowBackupSecret]): kept where the backups are not (in a safe, shared out among
// people), it is what opens them when the vault and its passphrase are lost. Give it
// as [Options.BackupSecret] when the vault is made anew, with [Options.ID] if what was
// wrapped is to be found under its old name, and restore the backups. Whoever has it
// and a backup has the key.
func (v *Vault) BackupSecret(ctx context.Context) ([]byte, error) {
	c, id := v.core, vault.KeyID{Vault: v.core.name}
	if err := c.enter(ctx, opSecret, id); err != nil {
		return nil, err
	}
	defer c.leave()
	st, err := c.current()
	if err != nil {
		return nil, c.unavailable(opSecret, id, err)
	}
	secret, err := c.backupSecret(st)
	if err != nil {
		return nil, c.unavailable(opSecret, id, err)
	}
	return secret, nil
}

// BackupKey returns a key with all its versions, their properties and its rotation
// policy, encrypted under the vault's backup secret. It is the only way in which a
// private key leaves the vault.
func (a *Administrator) BackupKey(ctx context.Context, name string) ([]byte, error) {
	c, id := a.core, vault.KeyID{Name: name}
	st, err := a.begin(ctx, OpBackup, &id)
	if err != nil {
		return nil, err
	}
	defer c.leave()
	k, err := c.lookup(st, OpBackup, &id)
	if err != nil {
		return nil, err
	}
	secret, err := c.backupSecret(st)
	if err != nil {
		return nil, c.unavailable(OpBackup, id, err)
	}
	defer clear(secret)
	head := append([]byte(backupMagic), 0, backupVersion)
	head = append(head, c.id[:]...)
	head = append(head, backupCheck(secret)...)
	salt := make([]byte, saltSize)
	rand.Read(salt)
	head = append(head, salt...)
	sealing := backupKey(secret, salt)
	defer clear(sealing)

	k = k.clone()
	for _, v := range k.Versions {
		// Not through the cache: a backup is no reason to keep a key in memory.
		private, err := openPrivate(c.master(), c.id, name, v)
		if err != nil {
			return nil, c.unavailable(OpBackup, id, err)
		}
		if v.Private, err = sealPrivate(sealing, c.id, name, v.ID, private); err != nil {
			return nil, c.unavailable(OpBackup, id, err)
		}
	}
	body, err := json.Marshal(backupBody{c.now().Unix(), k})
	if err != nil {
		return nil, c.unavailable(OpBackup, id, err)
	}
	return sealBackupBody(head, sealing, body), nil
}

// sealBackupBody completes a header, which ends with its salt, and adds the body.
func sealBackupBody(head, sealing, body []byte) []byte {
	head = binary.BigEndian.AppendUint32(bytes.Clone(head[:backupSizeAt]), uint32(len(body)+overhead))
	return append(head, seal(sealing, body, head)...)
}

// backup is a backup that was opened. Its key's versions are sealed under sealing.
type backup struct {
	origin  [idSize]byte
	sealing []byte
	key     *key
}

func decodeBackup(file, secret []byte) (*backup, error) {
	n := min(len(file), len(backupMagic))
	if !bytes.Equal(file[:n], []byte(backupMagic)[:n]) {
		return nil, corrupt("it does not start as a backup does")
	}
	if len(file) < 10 {
		return nil, corrupt("it ends after %d bytes, within its header", len(file))
	}
	if v := binary.BigEndian.Uint16(file[8:]); v != backupVersion {
		return nil, fmt.Errorf("it has format version %d, this release reads %d: %w", v, backupVersion, ErrVersion)
	}
	if len(file) < backupHeaderSize {
		return nil, corrupt("it ends after %d bytes, within its header", len(file))
	}
	if want := backupHeaderSize + int64(binary.BigEndian.Uint32(file[backupSizeAt:])); int64(len(file)) != want || len(file) > maxVault {
		return nil, corrupt("it has %d bytes, its header says %d, and the most is %d", len(file), want, maxVault)
	}
	if subtle.ConstantTimeCompare(file[backupCheckAt:backupSaltAt], backupCheck(secret)) != 1 {
		return nil, fmt.Errorf("it was made by vault %x: %w", file[10:backupCheckAt], ErrBackupSecret)
	}
	b := &backup{sealing: backupKey(secret, file[backupSaltAt:backupSizeAt])}
	copy(b.origin[:], file[10:])
	body, err := open(b.sealing, file[backupHeaderSize:], file[:backupHeaderSize])
	if err != nil {
		return nil, corrupt("its body: %w", err)
	}
	var parsed backupBody
	if err := decodeJSON(body, &parsed); err != nil {
		return nil, corrupt("its body: %w", err)
	}
	if parsed.Key == nil || parsed.Key.Deleted != 0 || !validTime(parsed.Created) {
		return nil, corrupt("its body has no key, or a deleted one")
	}
	if err := parsed.Key.prepare(); err != nil {
		return nil, corrupt("its body: %w", err)
	}
	b.key = parsed.Key
	return b, nil
}

// RestoreKey adds the key of a backup, with all its versions, under its old name,
// which must be free: neither in use (the error matches [vault.ErrKeyExists]) nor deleted and
// not purged ([vault.ErrKeyDeleted]). The vault needs the backup secret of the vault
// that made the backup ([ErrBackupSecret]). Properties are as they were when the
// backup was made: a version that was disabled since is enabled again.
func (a *Administrator) RestoreKey(ctx context.Context, file []byte) (vault.Key, error) {
	c, id := a.core, vault.KeyID{}
	st, err := a.begin(ctx, OpRestore, &id)
	if err != nil {
		return vault.Key{}, err
	}
	defer c.leave()
	secret, err := c.backupSecret(st)
	if err != nil {
		return vault.Key{}, c.unavailable(OpRestore, id, err)
	}
	defer clear(secret)
	b, err := decodeBackup(file, secret)
	if err != nil {
		return vault.Key{}, restoreError(id, err)
	}
	defer clear(b.sealing)
	k := b.key
	id.Name = k.Name
	for _, v := range k.Versions {
		private, err := openPrivate(b.sealing, b.origin, k.Name, v)
		if err == nil {
			err = keyfile.CheckPrivate(private)
		}
		if err == nil {
			v.Private, err = sealPrivate(c.master(), c.id, k.Name, v.ID, private)
		}
		if err != nil {
			return vault.Key{}, restoreError(id, err)
		}
	}
	err = a.do(ctx, OpRestore, id, func(st *state, _ time.Time) error {
		if have := st.key(k.Name); have != nil && have.Deleted == 0 {
			return &vault.Error{Op: OpRestore, Key: id, Kind: vault.ErrKeyExists, Detail: "delete and purge it to restore another"}
		}
		if err := c.checkFree(st, OpRestore, id, nil); err != nil {
			return err
		}
		st.put(k)
		return nil
	})
	if err != nil {
		return vault.Key{}, err
	}
	return k.current().describe(id), nil
}

func restoreError(id vault.KeyID, err error) error {
	kind := vault.ErrUnsupportedKey
	for _, k := range []error{ErrCorrupt, ErrVersion, ErrBackupSecret} {
		if errors.Is(err, k) {
			kind = k
		}
	}
	return refusal(OpRestore, id, kind, fmt.Errorf("the backup: %w", err))
}
