package vaulttest

import (
	"bytes"
	"context"
	"encoding/base64"
	"encoding/hex"
	"fmt"

	"github.com/blockseal/blockseal/vault"
)

// made is a key of two versions, the first of which is disabled, and a secret under each.
type made struct {
	first, second vault.KeyID
	secret        []byte
	old, current  vault.Wrapped
}

func (r *adminRun) twoVersions(name string) made {
	r.T.Helper()
	m := made{secret: secret(32)}
	m.first = r.make(name).ID
	m.old = r.wrap(m.first, m.secret)
	m.second = r.makeVersion(name).ID
	m.current = r.wrap(m.second, m.secret)
	r.setEnabled(m.first, false)
	return m
}

// asItWas requires that both versions are there, the first one disabled until now.
func (r *adminRun) asItWas(m made) {
	r.T.Helper()
	r.isCurrent(m.second)
	r.unwrap(m.current, m.secret)
	r.no("unwrap by a version that was disabled:", m.first.Name, r.tryUnwrap(m.old)(r.ctx()), vault.ErrKeyDisabled)
	r.setEnabled(m.first, true)
	r.unwrap(m.old, m.secret)
}

func (r *adminRun) delete(name string) {
	r.T.Helper()
	r.did("delete", name, r.Delete(r.ctx(), name))
}

func (r *adminRun) purge(name string) {
	r.T.Helper()
	if r.Delete != nil {
		r.delete(name)
	}
	r.did("purge", name, r.Purge(r.ctx(), name))
}

func checkAdminDelete(r *adminRun) {
	first, second := r.make("kek").ID, r.makeVersion("kek").ID
	other := r.make("other").ID
	w, w2 := r.wrap(first, secret(32)), r.wrap(second, secret(32))
	r.delete("kek")
	r.gone(w, vault.ErrKeyDeleted, vault.ErrKeyNotFound)
	r.gone(w2, vault.ErrKeyDeleted, vault.ErrKeyNotFound)
	r.works(other)
	r.no("delete again", "kek", r.Delete(r.ctx(), "kek"), vault.ErrKeyDeleted, vault.ErrKeyNotFound)
}

func checkDeletedName(r *adminRun) {
	id := r.make("kek").ID
	w := r.wrap(id, secret(32))
	r.delete("kek")
	_, err := r.Create(r.ctx(), "kek", false)
	r.no("create over the deleted", "kek", err, vault.ErrKeyDeleted)
	_, err = r.Create(r.ctx(), "kek", true)
	r.no("create a version of the deleted", "kek", err, vault.ErrKeyDeleted, vault.ErrKeyNotFound)
	if r.Import != nil {
		_, err := r.Import(r.ctx(), "kek", r.pool.next(), false)
		r.no("import over the deleted", "kek", err, vault.ErrKeyDeleted)
	}
	if r.Rotate != nil {
		_, err := r.Rotate(r.ctx(), "kek")
		r.no("rotate the deleted", "kek", err, vault.ErrKeyDeleted, vault.ErrKeyNotFound)
	}
	r.gone(w, vault.ErrKeyDeleted, vault.ErrKeyNotFound)
}

func checkAdminRecover(r *adminRun) {
	m := r.twoVersions("kek")
	r.delete("kek")
	k, err := r.Recover(r.ctx(), "kek")
	r.did("recover", "kek", err)
	r.shows(m.second, k)
	r.asItWas(m)
	_, err = r.Recover(r.ctx(), "kek")
	r.no("recover a key that is not deleted:", "kek", err)
}

func checkAdminPurge(r *adminRun) {
	first, second := r.make("kek").ID, r.makeVersion("kek").ID
	s := secret(32)
	w, w2 := r.wrap(first, s), r.wrap(second, s)
	r.purge("kek")
	r.gone(w, vault.ErrKeyNotFound)
	if r.Recover != nil {
		_, err := r.Recover(r.ctx(), "kek")
		r.no("recover the purged", "kek", err, vault.ErrKeyNotFound)
	}
	// The name is free, and the new key is another.
	r.works(r.make("kek").ID)
	r.gone(w, vault.ErrKeyNotFound)
	r.gone(w2, vault.ErrKeyNotFound)
}

func checkPurgeInUse(r *adminRun) {
	id := r.make("kek").ID
	s := secret(32)
	w := r.wrap(id, s)
	r.no("purge without delete:", "kek", r.Purge(r.ctx(), "kek"))
	r.unwrap(w, s)
}

func checkBackup(r *adminRun) {
	m := r.twoVersions("kek")
	backup, err := r.Backup(r.ctx(), "kek")
	r.did("back up", "kek", err)
	r.setEnabled(m.first, true) // after the backup
	r.purge("kek")
	k, err := r.Restore(r.ctx(), backup)
	r.did("restore", "kek", err)
	r.shows(m.second, k)
	r.asItWas(m)
}

func checkRestoreOver(r *adminRun) {
	first := r.make("kek").ID
	backup, err := r.Backup(r.ctx(), "kek")
	r.did("back up", "kek", err)
	second := r.makeVersion("kek").ID
	s := secret(32)
	w := r.wrap(second, s)
	_, err = r.Restore(r.ctx(), backup)
	r.no("restore over", "kek", err, vault.ErrKeyExists)
	r.isCurrent(second)
	r.works(first)
	if r.Delete != nil {
		r.delete("kek")
		_, err = r.Restore(r.ctx(), backup)
		r.no("restore over the deleted", "kek", err, vault.ErrKeyDeleted)
	}
	if r.Delete != nil && r.Recover != nil {
		_, err = r.Recover(r.ctx(), "kek")
		r.did("recover", "kek", err)
		r.unwrap(w, s)
	}
}

func checkBackupAltered(r *adminRun) {
	r.make("kek")
	backup, err := r.Backup(r.ctx(), "kek")
	r.did("back up", "kek", err)
	r.purge("kek")
	altered := map[string][]byte{"cut by 1 byte": backup[:len(backup)-1], "no backup": []byte("no backup"), "empty": nil}
	for _, at := range []int{0, len(backup) / 2, len(backup) - 1} {
		b := bytes.Clone(backup)
		b[at] ^= 1
		altered[fmt.Sprintf("with byte %d of %d altered", at, len(b))] = b
	}
	for what, b := range altered {
		_, err := r.Restore(r.ctx(), b)
		r.no("restore of a backup that is "+what, "", err)
	}
	lists(r, "keys after refused restores", names(r.Keys), nil)
	_, err = r.Restore(r.ctx(), backup)
	r.did("restore", "kek", err)
}

// checkBackupClear looks for the private key where anybody would.
func checkBackupClear(r *adminRun) {
	private := r.pool.next()
	_, err := r.Import(r.ctx(), "kek", private, false)
	r.did("import", "kek", err)
	backup, err := r.Backup(r.ctx(), "kek")
	r.did("back up", "kek", err)
	for _, n := range [][]byte{private.D.Bytes(), private.Primes[0].Bytes(), private.Primes[1].Bytes()} {
		for _, form := range [][]byte{n, []byte(hex.EncodeToString(n)), []byte(base64.RawURLEncoding.EncodeToString(n)), []byte(base64.RawStdEncoding.EncodeToString(n))} {
			if bytes.Contains(backup, form[:32]) {
				r.T.Fatalf("the backup holds a part of the private key in the clear")
			}
		}
	}
}

// many makes keys, and returns their names.
func (r *adminRun) many() (all []named) {
	r.T.Helper()
	for i := range r.Many {
		name := fmt.Sprintf("key-%03d", i)
		if r.Import != nil {
			_, err := r.Import(r.ctx(), name, testKey(), false)
			r.did("import", name, err)
		} else {
			r.create(name)
		}
		all = append(all, named(name))
	}
	return all
}

func checkKeys(r *adminRun) { lists(r, "keys", names(r.Keys), r.many()) }

func checkDeletedKeys(r *adminRun) {
	all := r.many()
	for _, name := range all[1:] {
		r.delete(string(name))
	}
	lists(r, "keys", names(r.Keys), all[:1])
	lists(r, "deleted keys", names(r.Deleted), all[1:])
	_, err := r.Recover(r.ctx(), string(all[1]))
	r.did("recover", string(all[1]), err)
	lists(r, "keys", names(r.Keys), all[:2])
	lists(r, "deleted keys", names(r.Deleted), all[2:])
}

func checkVersions(r *adminRun) {
	r.make("other")
	all := []vault.KeyID{r.make("kek").ID}
	for range r.Many - 1 {
		if r.Import != nil {
			k, err := r.Import(r.ctx(), "kek", testKey(), true)
			r.did("import", "kek", err)
			all = append(all, k.ID)
		} else {
			all = append(all, r.makeVersion("kek").ID)
		}
	}
	lists(r, "versions", func(ctx context.Context) ([]vault.KeyID, error) { return r.Versions(ctx, "kek") }, all)
}
