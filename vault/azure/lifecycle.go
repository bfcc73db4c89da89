package azure

import (
	"context"
	"errors"
	"time"

	"github.com/Azure/azure-sdk-for-go/sdk/security/keyvault/azkeys"

	"github.com/blockseal/blockseal/vault"
)

// A deletion or a recovery takes Key Vault some seconds, in which it is looked at every
// pollEvery, for awaitFor and the time of one call at most.
const (
	pollEvery = 2 * time.Second
	awaitFor  = 2 * time.Minute
)

// DeleteKey deletes a key with all its versions, softly: nothing can be done with it
// until RecoverKey, and Key Vault purges it when the vault's retention is over. It
// returns when that is, and waits until the deletion is done, which takes Key Vault some
// seconds. The wait ends after two minutes or with ctx; the error matches [ErrNotSeen]
// then, the deletion goes on, and purgeAt is what Key Vault said.
func (a *Admin) DeleteKey(ctx context.Context, name string) (purgeAt time.Time, err error) {
	id, err := a.own(OpDelete, vault.KeyID{Name: name})
	if err != nil {
		return time.Time{}, err
	}
	err = a.do(ctx, OpDelete, id, func(ctx context.Context) error {
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
	return purgeAt, a.await(ctx, OpDelete, id, func() error {
		_, err := a.GetDeleted(ctx, name)
		return err
	})
}

// RecoverKey undoes DeleteKey and waits until that is done, as DeleteKey does. The key's
// versions are as they were.
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
	return key, a.await(ctx, OpRecover, id, func() error {
		_, err := a.GetKey(ctx, id)
		return err
	})
}

// await asks until the key is where it is on its way to. Who may not look does not wait:
// Key Vault has accepted the operation. A vault that does not answer for a while has not
// taken that back either.
func (a *Admin) await(ctx context.Context, op vault.Operation, id vault.KeyID, look func() error) error {
	clock := a.opts.Clock
	until := clock.Elapsed() + awaitFor
	for {
		err := look()
		switch {
		case err == nil, errors.Is(err, vault.ErrAccessDenied):
			return nil
		case !errors.Is(err, vault.ErrKeyNotFound) && !errors.Is(err, ErrBusy) && !vault.Transient(err):
			return err
		}
		// That there is no such key is no reason: it is what is waited for to end.
		seen := &vault.Error{Op: op, Key: id, Kind: ErrNotSeen, Detail: "look at the key later; it need not be asked for again"}
		if vault.Transient(err) {
			seen.Err = err
		}
		if clock.Elapsed() >= until {
			return seen
		}
		timer := make(chan struct{})
		stop := clock.AfterFunc(pollEvery, func() { close(timer) })
		select {
		case <-timer:
		case <-ctx.Done():
			stop()
			seen.Err = ctx.Err()
			return seen
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
	return a.do(ctx, OpPurge, id, func(ctx context.Context) error {
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
	err = a.do(ctx, OpBackup, id, func(ctx context.Context) error {
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
// properties. If there is a key of the name the error matches [vault.ErrKeyExists], if a
// deleted one, [vault.ErrKeyDeleted].
func (a *Admin) RestoreKey(ctx context.Context, blob []byte) (vault.Key, error) {
	id := vault.KeyID{Vault: a.url}
	if len(blob) == 0 {
		return vault.Key{}, refuse(OpRestore, id, ErrInvalid, "the backup is empty")
	}
	var key vault.Key
	err := a.do(ctx, OpRestore, id, func(ctx context.Context) error {
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
