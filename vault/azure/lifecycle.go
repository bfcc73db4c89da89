package azure

import (
	"context"
	"errors"
	"time"

	"github.com/Azure/azure-sdk-for-go/sdk/security/keyvault/azkeys"

	"github.com/blockseal/blockseal/vault"
)

// pollEvery is how often a deletion or a recovery under way is looked at.
const pollEvery = 2 * time.Second

// DeleteKey deletes a key with all its versions, softly: nothing can be done with it
// until RecoverKey, and Key Vault purges it when the vault's retention is over. It
// returns when that is, and waits until the deletion is done, which takes Key Vault some
// seconds; the wait, not the deletion, ends with ctx.
func (a *Admin) DeleteKey(ctx context.Context, name string) (purgeAt time.Time, err error) {
	id, err := a.own(OpDelete, vault.KeyID{Name: name})
	if err != nil {
		return time.Time{}, err
	}
	err = a.do(ctx, OpDelete, id, nil, func(ctx context.Context) error {
		resp, err := a.keys.DeleteKey(ctx, name, nil)
		if err != nil {
			return err
		}
		purgeAt = date(resp.ScheduledPurgeDate)
		return nil
	})
	if err != nil {
		return time.Time{}, err
	}
	return purgeAt, a.await(ctx, func() error {
		_, err := a.GetDeleted(ctx, name)
		return err
	})
}

// RecoverKey undoes DeleteKey and waits until that is done. The key's versions are as
// they were.
func (a *Admin) RecoverKey(ctx context.Context, name string) (vault.Key, error) {
	id, err := a.own(OpRecover, vault.KeyID{Name: name})
	if err != nil {
		return vault.Key{}, err
	}
	key, err := a.key(ctx, OpRecover, id, func(ctx context.Context) (azkeys.KeyBundle, error) {
		resp, err := a.keys.RecoverDeletedKey(ctx, name, nil)
		return resp.KeyBundle, err
	})
	if err != nil {
		return vault.Key{}, err
	}
	return key, a.await(ctx, func() error {
		_, err := a.GetKey(ctx, id)
		return err
	})
}

// await asks until the key is where it is on its way to. Who may not look does not wait:
// Key Vault has accepted the operation.
func (a *Admin) await(ctx context.Context, look func() error) error {
	for {
		err := look()
		switch {
		case errors.Is(err, vault.ErrAccessDenied):
			return nil
		case !errors.Is(err, vault.ErrKeyNotFound) && !errors.Is(err, ErrBusy):
			return err
		}
		timer := make(chan struct{})
		stop := a.opts.Clock.AfterFunc(pollEvery, func() { close(timer) })
		select {
		case <-timer:
		case <-ctx.Done():
			stop()
			return err
		}
	}
}

// PurgeKey removes a deleted key with all its versions, for good: what was wrapped by
// it can be opened by nobody, unless a backup of the key exists. It frees the name. With
// purge protection, Key Vault refuses it with an error that matches
// [vault.ErrAccessDenied].
func (a *Admin) PurgeKey(ctx context.Context, name string) error {
	id, err := a.own(OpPurge, vault.KeyID{Name: name})
	if err != nil {
		return err
	}
	return a.do(ctx, OpPurge, id, nil, func(ctx context.Context) error {
		_, err := a.keys.PurgeDeletedKey(ctx, name, nil)
		return err
	})
}

// BackupKey returns a key with all its versions as one blob that only Key Vault opens.
// It can be restored into a vault of the same subscription and geography, and stays
// valid after the key was changed, deleted or purged: guard it as you would the key.
func (a *Admin) BackupKey(ctx context.Context, name string) (blob []byte, err error) {
	id, err := a.own(OpBackup, vault.KeyID{Name: name})
	if err != nil {
		return nil, err
	}
	err = a.do(ctx, OpBackup, id, nil, func(ctx context.Context) error {
		resp, err := a.keys.BackupKey(ctx, name, nil)
		switch {
		case err != nil:
			return err
		case len(resp.Value) == 0:
			return malformed(OpBackup, id, "it has no backup")
		}
		blob = resp.Value
		return nil
	})
	return blob, err
}

// RestoreKey puts back what BackupKey returned, under its name, with its versions and
// properties. If there is a key of the name the error matches [ErrExists], if a deleted
// one, [vault.ErrKeyDeleted].
func (a *Admin) RestoreKey(ctx context.Context, blob []byte) (vault.Key, error) {
	id := vault.KeyID{Vault: a.url}
	if len(blob) == 0 {
		return vault.Key{}, refuse(OpRestore, id, ErrInvalid, "the backup is empty")
	}
	var key vault.Key
	err := a.do(ctx, OpRestore, id, nil, func(ctx context.Context) error {
		resp, err := a.keys.RestoreKey(ctx, azkeys.RestoreKeyParameters{KeyBackup: blob}, nil)
		if err != nil {
			return err
		}
		// Its name is in the backup, which is opaque: the answer tells.
		if resp.Key == nil || resp.Key.KID == nil {
			return malformed(OpRestore, id, "it has no key")
		}
		named, err := vault.ParseKeyID(string(*resp.Key.KID))
		if err != nil {
			return malformed(OpRestore, id, "its key identifier cannot be parsed")
		}
		key, err = a.client.key(OpRestore, vault.KeyID{Vault: a.url, Name: named.Name}, resp.KeyBundle)
		return err
	})
	return key, err
}
