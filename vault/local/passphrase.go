package local

import (
	"context"
	"crypto/rand"
	"errors"
	"time"

	"github.com/blockseal/blockseal/vault"
)

// ChangePassphrase puts another passphrase, and another KDF, in the place of those
// there are; the zero KDF is the default. Handles that are open stay open. The caller
// clears the passphrase.
//
// The master key stays the same: an old copy of the vault's file opens with the old
// passphrase, and so shows the keys that were in it. If the old passphrase is known
// to others, make new keys in a new vault.
func (v *Vault) ChangePassphrase(ctx context.Context, passphrase []byte, kdf KDF) error {
	c, id := v.core, vault.KeyID{Vault: v.core.name}
	if err := c.enter(ctx, opPassphrase, id); err != nil {
		return err
	}
	defer c.leave()
	if len(passphrase) == 0 {
		return c.invalid(opPassphrase, id, errors.New("the passphrase is empty"))
	}
	kdf = kdf.withDefaults()
	if err := kdf.validate(); err != nil {
		return c.invalid(opPassphrase, id, err)
	}
	// The slow part, outside of the lock. Nothing that others change goes into it.
	next := header{id: c.id, kdf: kdf}
	rand.Read(next.salt[:])
	if err := next.sealMaster(passphrase, c.master[:]); err != nil {
		return c.unavailable(opPassphrase, id, err)
	}
	return c.rewrite(ctx, opPassphrase, id, c.opts.LockWait, func(h *header, _ *state, _ time.Time) error {
		h.kdf, h.salt, h.master = next.kdf, next.salt, next.master
		return nil
	})
}
