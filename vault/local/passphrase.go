package local

import (
	"context"
	"crypto/rand"
	"crypto/sha256"
	"errors"
	"slices"
	"time"

	"github.com/blockseal/blockseal/vault"
)

// ChangePassphrase puts another passphrase, and another KDF, in the place of those
// there are; the zero KDF is the default. The caller clears the passphrase.
//
// It makes a fresh master key and seals everything anew under it: each private key, the
// backup secret and the body. So the old passphrase and an old copy of the file open what
// was in that copy, and nothing of what the vault has from then on. A crash in between
// leaves the old file or the new one, whole.
//
// This handle, and what was made from it, stays open; its other calls wait while the file
// is replaced. Every other handle, also in other processes, knows the old master key
// alone: it answers with [vault.ErrUnavailable] and [ErrWrongPassphrase] until it is
// given the new passphrase ([Vault.Unlock]) or opened anew. A store on it then serves
// until its lease ends.
//
// Two things stay what they were. The keys that there are: if the old passphrase is known
// to somebody who may have a copy of the file, rotate them and move the stores on. And the
// backup secret, without which an escrow of it would be void: who has the old file and
// passphrase has it, and opens with it backups that are made later; if those are in such
// hands, make a new vault.
func (v *Vault) ChangePassphrase(ctx context.Context, passphrase []byte, kdf KDF) error {
	c, id := v.core, vault.KeyID{Vault: v.core.name}
	if len(passphrase) == 0 {
		return c.invalid(opPassphrase, id, errors.New("the passphrase is empty"))
	}
	kdf = kdf.withDefaults()
	if err := kdf.admit(&c.opts); err != nil {
		return c.invalid(opPassphrase, id, err)
	}
	// The slow part, while nobody waits. Nothing that others change goes into it.
	next, master := header{id: c.id, kdf: kdf}, new(masterKey)
	rand.Read(next.salt[:])
	rand.Read(master[:])
	if err := next.sealMaster(passphrase, master[:]); err != nil {
		return c.unavailable(opPassphrase, id, err)
	}
	if err := c.enterAlone(ctx, opPassphrase, id); err != nil {
		clear(master[:])
		return err
	}
	defer c.gate.Unlock()
	c.addMaster(master)
	err := c.rewrite(ctx, opPassphrase, id, c.opts.LockWait, func(h *header, st *state, _ time.Time, old *masterKey) (*masterKey, error) {
		if err := st.reseal(old[:], master[:], c.id); err != nil {
			return nil, c.unavailable(opPassphrase, id, err)
		}
		h.kdf, h.salt, h.master = next.kdf, next.salt, next.master
		return master, nil
	})
	// What is on the disk says which key is needed, whatever the outcome was. If it cannot
	// be read, both are kept, and the file is found under one of them when it can be.
	if s, readErr := c.reread(); readErr == nil {
		c.destroyMasters(func(m *masterKey) bool { return m != s.master })
	}
	return err
}

// Unlock gives an open vault its passphrase again after another handle has changed it.
// Until then every call answers with [vault.ErrUnavailable] and [ErrWrongPassphrase].
// The caller clears the passphrase. The error matches what [Open]'s does, and
// [ErrRolledBack]; after an error the handle is as it was.
func (v *Vault) Unlock(ctx context.Context, passphrase []byte) error {
	c, id := v.core, vault.KeyID{Vault: v.core.name}
	master, err := c.readMaster(passphrase)
	if err != nil {
		return c.unavailable(opPassphrase, id, err)
	}
	if err := c.enterAlone(ctx, opPassphrase, id); err != nil {
		clear(master[:])
		return err
	}
	defer c.gate.Unlock()
	c.addMaster(master)
	s, err := c.reread()
	if err != nil {
		c.destroyMasters(func(m *masterKey) bool { return m == master })
		return c.unavailable(opPassphrase, id, err)
	}
	c.destroyMasters(func(m *masterKey) bool { return m != s.master })
	return nil
}

// readMaster opens the master key of the file as it is now.
func (c *core) readMaster(passphrase []byte) (*masterKey, error) {
	f, _, b, err := c.dir.read()
	if err != nil {
		return nil, err
	}
	// It was only read: an error of Close has no meaning.
	_ = f.Close()
	h, err := decodeHeader(b)
	if err != nil {
		return nil, err
	}
	if err := h.kdf.admit(&c.opts); err != nil {
		return nil, err
	}
	return h.openMaster(passphrase)
}

// enterAlone is enter for what no other operation of this handle may see half of; without
// an error, the caller unlocks gate.
func (c *core) enterAlone(ctx context.Context, op Permission, id vault.KeyID) error {
	c.gate.Lock()
	err := ctx.Err()
	if c.closed {
		err = ErrClosed
	}
	if err != nil {
		c.gate.Unlock()
		return c.unavailable(op, id, err)
	}
	return nil
}

func (c *core) addMaster(m *masterKey) {
	c.loading.Lock()
	defer c.loading.Unlock()
	c.masters = append(c.masters, m)
}

// destroyMasters overwrites and forgets master keys. The caller holds gate for writing,
// or has the only handle.
func (c *core) destroyMasters(which func(*masterKey) bool) {
	c.loading.Lock()
	defer c.loading.Unlock()
	c.masters = slices.DeleteFunc(c.masters, func(m *masterKey) bool {
		if !which(m) {
			return false
		}
		clear(m[:])
		return true
	})
}

func everyMaster(*masterKey) bool { return true }

// reseal seals under another master key everything in st that is sealed.
func (st *state) reseal(from, to []byte, vaultID [idSize]byte) error {
	secret, err := open(from, st.BackupSecret, backupSecretAAD(vaultID))
	if err != nil {
		return corrupt("the backup secret in the vault file")
	}
	defer clear(secret)
	st.BackupSecret = seal(to, secret, backupSecretAAD(vaultID))
	for _, k := range st.Keys {
		for _, v := range k.Versions {
			der, err := openSealed(from, vaultID, k.Name, v)
			if err != nil {
				return err
			}
			v.Private = seal(to, der, privateAAD(vaultID, k.Name, v.ID))
			v.digest = sha256.Sum256(v.Private)
			clear(der)
		}
	}
	return nil
}

// proveSealed requires that everything in st that is sealed opens under a master key.
func (st *state) proveSealed(master []byte, vaultID [idSize]byte) error {
	secret, err := open(master, st.BackupSecret, backupSecretAAD(vaultID))
	if err != nil {
		return corrupt("the backup secret would not open")
	}
	clear(secret)
	for _, k := range st.Keys {
		for _, v := range k.Versions {
			der, err := openSealed(master, vaultID, k.Name, v)
			if err != nil {
				return err
			}
			clear(der)
		}
	}
	return nil
}
