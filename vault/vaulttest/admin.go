package vaulttest

import (
	"crypto/rsa"
	"fmt"
	"slices"
	"time"

	"github.com/blockseal/blockseal/vault"
)

// The methods in this file are the vault administrator's. They panic when asked
// for a key or version that does not exist, or to make a key that does: that is a mistake
// in the test.

// CreateKey makes a key, enabled, without dates and with all operations, and returns
// its id with the version. A new version of a key is made by [Vault.Rotate].
func (v *Vault) CreateKey(name string) vault.KeyID {
	v.mu.Lock()
	defer v.mu.Unlock()
	v.mustBeFree(name)
	return v.add(name, nil)
}

// ImportKey is CreateKey with the given key pair. Any RSA key will do, also one
// that is not acceptable as a KEK (1024 bits, exponent 3).
func (v *Vault) ImportKey(name string, key *rsa.PrivateKey) vault.KeyID {
	if key == nil {
		panic("vaulttest: ImportKey without a key")
	}
	v.mu.Lock()
	defer v.mu.Unlock()
	v.mustBeFree(name)
	return v.add(name, key)
}

// ImportVersion is [Vault.Rotate] with the given key pair; see [Vault.ImportKey].
func (v *Vault) ImportVersion(name string, key *rsa.PrivateKey) vault.KeyID {
	if key == nil {
		panic("vaulttest: ImportVersion without a key")
	}
	v.mu.Lock()
	defer v.mu.Unlock()
	v.mustKey(name)
	return v.add(name, key)
}

// Rotate gives an existing key a new current version, with a new key pair, and
// returns its id. Old versions stay as they are.
func (v *Vault) Rotate(name string) vault.KeyID {
	v.mu.Lock()
	defer v.mu.Unlock()
	v.mustKey(name)
	return v.add(name, nil)
}

// RestoreKey takes a key with all its versions from another vault, as restoring a backup of it
// does: the versions keep their ids, dates and key pairs. The vault must not have the key.
func (v *Vault) RestoreKey(from *Vault, name string) {
	from.mu.Lock()
	var versions []*memVersion
	for _, m := range from.mustKey(name).versions {
		c := *m
		c.operations = slices.Clone(m.operations)
		versions = append(versions, &c)
	}
	from.mu.Unlock()
	v.mu.Lock()
	defer v.mu.Unlock()
	v.mustBeFree(name)
	v.keys[name] = &memKey{versions: versions}
}

// add appends a version. Like the other helpers below it is called with v.mu
// held.
func (v *Vault) add(name string, private *rsa.PrivateKey) vault.KeyID {
	id := vault.KeyID{Vault: v.name, Name: name, Version: newVersionID()}
	if err := id.Validate(); err != nil {
		panic("vaulttest: " + err.Error())
	}
	k := v.keys[name]
	if k == nil {
		k = &memKey{}
		v.keys[name] = k
	}
	if k.deleted {
		panic(fmt.Sprintf("vaulttest: key %q is deleted: recover or purge it before it is created again", name))
	}
	if private == nil {
		private = v.pool.next()
	}
	k.versions = append(k.versions, &memVersion{
		created:    v.clock.Now(),
		id:         id.Version,
		private:    private,
		enabled:    true,
		operations: []vault.Operation{vault.OpGet, vault.OpWrapKey, vault.OpUnwrapKey},
	})
	return id
}

// SetEnabled enables or disables one version: without one in id the current,
// and it alone.
func (v *Vault) SetEnabled(id vault.KeyID, enabled bool) {
	v.update(id, func(m *memVersion) { m.enabled = enabled })
}

// SetDates sets one version's activation and expiry; a zero time unsets. Without
// a version in id it is the current one.
func (v *Vault) SetDates(id vault.KeyID, notBefore, expires time.Time) {
	v.update(id, func(m *memVersion) { m.notBefore, m.expires = notBefore, expires })
}

// SetOperations sets what one version permits, whoever asks. Without a version
// in id it is the current one.
func (v *Vault) SetOperations(id vault.KeyID, ops ...vault.Operation) {
	v.update(id, func(m *memVersion) { m.operations = slices.Clone(ops) })
}

// ReplaceMaterial puts another key pair behind the same version, which no honest
// vault does. Without a version in id it is the current one.
func (v *Vault) ReplaceMaterial(id vault.KeyID) {
	v.update(id, func(m *memVersion) { m.private = v.pool.next() })
}

// DestroyVersion removes one version for good. If it was the current one, the
// newest that is left becomes current. Without a version in id it is the
// current one.
func (v *Vault) DestroyVersion(id vault.KeyID) {
	v.mu.Lock()
	defer v.mu.Unlock()
	k := v.mustKey(id.Name)
	m := v.mustVersion(id)
	k.versions = slices.DeleteFunc(k.versions, func(have *memVersion) bool { return have == m })
}

// Delete deletes a key with all its versions, softly: Recover brings it back.
func (v *Vault) Delete(name string) { v.setDeleted(name, true) }

// Recover undoes Delete.
func (v *Vault) Recover(name string) { v.setDeleted(name, false) }

// Purge removes a key with all its versions for good, whether or not it was
// deleted before.
func (v *Vault) Purge(name string) {
	v.mu.Lock()
	defer v.mu.Unlock()
	v.mustKey(name)
	delete(v.keys, name)
}

// Revoke takes the permission for ops, or for everything if none is given, from
// the vault's caller.
func (v *Vault) Revoke(ops ...vault.Operation) { v.setRevoked(ops, true) }

// Restore gives back what Revoke took: ops, or everything if none is given.
func (v *Vault) Restore(ops ...vault.Operation) { v.setRevoked(ops, false) }

func (v *Vault) setRevoked(ops []vault.Operation, revoked bool) {
	if len(ops) == 0 {
		ops = []vault.Operation{vault.OpGet, vault.OpWrapKey, vault.OpUnwrapKey}
	}
	v.mu.Lock()
	defer v.mu.Unlock()
	for _, op := range ops {
		v.revoked[op] = revoked
	}
}

func (v *Vault) setDeleted(name string, deleted bool) {
	v.mu.Lock()
	defer v.mu.Unlock()
	v.mustKey(name).deleted = deleted
}

func (v *Vault) update(id vault.KeyID, change func(*memVersion)) {
	v.mu.Lock()
	defer v.mu.Unlock()
	change(v.mustVersion(id))
}

func (v *Vault) mustBeFree(name string) {
	if k := v.keys[name]; k != nil && !k.deleted { // of a deleted one, add says what to do
		panic(fmt.Sprintf("vaulttest: there is a key %q already: Rotate and ImportVersion make a new version of it", name))
	}
}

func (v *Vault) mustKey(name string) *memKey {
	k := v.keys[name]
	if k == nil {
		panic(fmt.Sprintf("vaulttest: no key %q", name))
	}
	return k
}

func (v *Vault) mustVersion(id vault.KeyID) *memVersion {
	if id.Vault != "" && id.Vault != v.name {
		panic(fmt.Sprintf("vaulttest: %s is not a key of vault %s", id, v.name))
	}
	m := v.mustKey(id.Name).version(id.Version)
	if m == nil {
		panic(fmt.Sprintf("vaulttest: no version %s", id))
	}
	return m
}

// version returns the version with the given id, or the current one, or nil.
func (k *memKey) version(id string) *memVersion {
	for i := len(k.versions) - 1; i >= 0; i-- {
		if id == "" || k.versions[i].id == id {
			return k.versions[i]
		}
	}
	return nil
}
