package local

import (
	"context"
	"fmt"
	"time"

	"github.com/blockseal/blockseal/vault"
)

// withKey runs a change on a key, deleted or not.
func (a *Administrator) withKey(ctx context.Context, op Permission, name string, f func(st *state, k *key, id vault.KeyID, now time.Time) error) error {
	c, id := a.core, vault.KeyID{Name: name}
	if _, err := a.begin(ctx, op, &id); err != nil {
		return err
	}
	defer c.leave()
	if err := checkName(name); err != nil {
		return c.invalid(op, id, err)
	}
	return a.do(ctx, op, id, func(st *state, now time.Time) error {
		k := st.key(name)
		if k == nil {
			return &vault.Error{Op: op, Key: id, Kind: vault.ErrKeyNotFound, Code: codeNotFound, Detail: "there is no such key, or it was purged"}
		}
		return f(st, k, id, now)
	})
}

// DeleteKey deletes a key with all its versions, softly: nothing can be done with it
// until RecoverKey, for the vault's retention at least. It returns until when that is:
// from then on [Administrator.Maintain] purges it. All processes refuse the key from
// their next call on.
func (a *Administrator) DeleteKey(ctx context.Context, name string) (purgeAt time.Time, err error) {
	err = a.withKey(ctx, OpDelete, name, func(st *state, k *key, id vault.KeyID, now time.Time) error {
		if k.Deleted != 0 {
			return &vault.Error{Op: OpDelete, Key: id, Kind: vault.ErrKeyDeleted, Code: codeDeleted, Detail: "it is deleted already, and can be recovered until it is purged, at least until " + formatUnix(k.PurgeAt)}
		}
		k.Deleted, k.Kept = now.Unix(), 0
		k.PurgeAt = now.Unix() + int64(st.RetentionDays)*24*60*60
		purgeAt = fromUnix(k.PurgeAt)
		return nil
	})
	if err != nil {
		return time.Time{}, err
	}
	return purgeAt, nil
}

// RecoverKey undoes DeleteKey. The key's versions are as they were, and usable if
// they were.
func (a *Administrator) RecoverKey(ctx context.Context, name string) (vault.Key, error) {
	var recovered vault.Key
	err := a.withKey(ctx, OpRecover, name, func(_ *state, k *key, id vault.KeyID, _ time.Time) error {
		if k.Deleted == 0 {
			return a.core.invalid(OpRecover, id, fmt.Errorf("the key is not deleted"))
		}
		k.Deleted, k.PurgeAt, k.Kept = 0, 0, 0
		recovered = k.current().describe(id)
		return nil
	})
	if err != nil {
		return vault.Key{}, err
	}
	return recovered, nil
}

// PurgeKey removes a deleted key with all its versions, for good: what was wrapped
// by it can be opened by nobody, unless a backup of the key exists. It frees the
// name. With purge protection it is refused, with an error that matches
// [vault.ErrAccessDenied], until the retention is over, by the clock and by what the
// vault has seen of it; see [Administrator.Maintain].
//
// The vault's file is replaced by one without the key. The old file's bytes may
// stay on the disk, or in a backup of it, where the passphrase opens them.
func (a *Administrator) PurgeKey(ctx context.Context, name string) error {
	return a.withKey(ctx, OpPurge, name, func(st *state, k *key, id vault.KeyID, now time.Time) error {
		switch {
		case k.Deleted == 0:
			return a.core.invalid(OpPurge, id, fmt.Errorf("the key is not deleted; delete it before it is purged"))
		case st.PurgeProtection && !k.over(now):
			return &vault.Error{Op: OpPurge, Key: id, Kind: vault.ErrAccessDenied, Code: codeForbidden,
				Detail: "the vault has purge protection; the key can be purged when the vault has seen its retention pass, not before " + formatUnix(k.PurgeAt)}
		}
		st.drop(name)
		return nil
	})
}

// EnablePurgeProtection forbids purging keys before their retention is over. It
// cannot be undone.
func (v *Vault) EnablePurgeProtection(ctx context.Context) error {
	c, id := v.core, vault.KeyID{Vault: v.core.name}
	if err := c.enter(ctx, opProtect, id); err != nil {
		return err
	}
	defer c.leave()
	return c.change(ctx, opProtect, id, c.opts.LockWait, func(st *state, _ time.Time) error {
		st.PurgeProtection = true
		return nil
	})
}

// Info is what a vault is.
type Info struct {
	ID              string    `json:"id"`
	Created         time.Time `json:"created"`
	Generation      uint64    `json:"generation"` // 1 more at each change
	KDF             KDF       `json:"kdf"`
	RetentionDays   int       `json:"retentionDays"`
	PurgeProtection bool      `json:"purgeProtection"`
}

// Info returns the vault's properties.
func (v *Vault) Info(ctx context.Context) (Info, error) {
	c, id := v.core, vault.KeyID{Vault: v.core.name}
	if err := c.enter(ctx, OpList, id); err != nil {
		return Info{}, err
	}
	defer c.leave()
	if _, err := c.current(); err != nil {
		return Info{}, c.unavailable(OpList, id, err)
	}
	s := c.snap.Load()
	return Info{
		ID:              c.name,
		Created:         fromUnix(s.state.Created),
		Generation:      s.header.generation,
		KDF:             s.header.kdf,
		RetentionDays:   s.state.RetentionDays,
		PurgeProtection: s.state.PurgeProtection,
	}, nil
}
