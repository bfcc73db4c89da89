package vaulttest

import (
	"context"
	"crypto/aes"
	"crypto/cipher"
	"crypto/rand"
	"crypto/rsa"
	"crypto/x509"
	"encoding/json"
	"errors"
	"fmt"
	"slices"
	"time"

	"github.com/blockseal/blockseal/vault"
)

// memAdmin is the vault in memory as an administrator that answers with errors: what
// [RunAdmin] is for.
type memAdmin struct {
	*Vault
	sealing cipher.AEAD // of backups
}

func newMemAdmin(opts *Options) *memAdmin {
	key := make([]byte, 32)
	rand.Read(key)
	block, err := aes.NewCipher(key)
	if err != nil {
		panic(err)
	}
	aead, err := cipher.NewGCMWithRandomNonce(block)
	if err != nil {
		panic(err)
	}
	return &memAdmin{New(opts), aead}
}

func (m *memAdmin) subject() AdminSubject {
	return AdminSubject{
		Vault: m.Vault, Now: m.clock.Now,
		Create: func(ctx context.Context, name string, newVersion bool) (vault.Key, error) {
			return m.add(ctx, "create", name, nil, newVersion)
		},
		Ensure: func(ctx context.Context, name string) (vault.Key, error) {
			k, err := m.add(ctx, "create", name, nil, false)
			if errors.Is(err, vault.ErrKeyExists) {
				return m.key("create", vault.KeyID{Name: name})
			}
			return k, err
		},
		Import: func(ctx context.Context, name string, key *rsa.PrivateKey, newVersion bool) (vault.Key, error) {
			if err := key.Validate(); err != nil {
				return vault.Key{}, m.fail("import", name, vault.ErrUnsupportedKey)
			}
			return m.add(ctx, "import", name, key, newVersion)
		},
		Rotate: func(ctx context.Context, name string) (vault.Key, error) {
			if err := m.look("rotate", name, false); err != nil {
				return vault.Key{}, err
			}
			return m.add(ctx, "rotate", name, nil, true)
		},
		Update: m.update,
		Delete: func(ctx context.Context, name string) error { return m.setDeleted(ctx, "delete", name, true) },
		Recover: func(ctx context.Context, name string) (vault.Key, error) {
			if err := m.setDeleted(ctx, "recover", name, false); err != nil {
				return vault.Key{}, err
			}
			return m.key("recover", vault.KeyID{Name: name})
		},
		Purge: func(ctx context.Context, name string) error {
			if err := m.look("purge", name, true); err != nil || ctx.Err() != nil {
				return cmpErr(ctx.Err(), err)
			}
			m.Vault.Purge(name)
			return nil
		},
		Backup: m.backup, Restore: m.restore,
		Keys:    func(context.Context) ([]string, error) { return m.names(false), nil },
		Deleted: func(context.Context) ([]string, error) { return m.names(true), nil },
		Versions: func(_ context.Context, name string) ([]vault.KeyID, error) {
			if err := m.look("list", name, false); err != nil {
				return nil, err
			}
			var all []vault.KeyID
			m.mu.Lock()
			defer m.mu.Unlock()
			for _, v := range m.keys[name].versions {
				all = append(all, vault.KeyID{Vault: m.name, Name: name, Version: v.id})
			}
			return all, nil
		},
	}
}

func cmpErr(a, b error) error {
	if a != nil {
		return a
	}
	return b
}

func (m *memAdmin) fail(op vault.Operation, name string, kind error) error {
	return &vault.Error{Op: op, Key: vault.KeyID{Vault: m.name, Name: name}, Kind: kind}
}

// look refuses a key that is not there, or not as deleted as it should be.
func (m *memAdmin) look(op vault.Operation, name string, deleted bool) error {
	m.mu.Lock()
	defer m.mu.Unlock()
	k := m.keys[name]
	switch {
	case k == nil:
		return m.fail(op, name, vault.ErrKeyNotFound)
	case k.deleted && !deleted:
		return m.fail(op, name, vault.ErrKeyDeleted)
	case !k.deleted && deleted:
		return fmt.Errorf("%s %s: it is not deleted", op, name)
	}
	return nil
}

func (m *memAdmin) key(op vault.Operation, id vault.KeyID) (vault.Key, error) {
	v, full, err := m.find(op, id)
	if err != nil {
		return vault.Key{}, err
	}
	return v.show(full), nil
}

func (v *memVersion) show(id vault.KeyID) vault.Key {
	return vault.Key{ID: id, Public: &v.private.PublicKey, Enabled: v.enabled, NotBefore: v.notBefore, Expires: v.expires,
		Operations: v.operations, Created: v.created}
}

func (m *memAdmin) add(ctx context.Context, op vault.Operation, name string, private *rsa.PrivateKey, newVersion bool) (vault.Key, error) {
	if err := ctx.Err(); err != nil {
		return vault.Key{}, err
	}
	m.mu.Lock()
	defer m.mu.Unlock()
	switch k := m.keys[name]; {
	case k != nil && k.deleted:
		return vault.Key{}, m.fail(op, name, vault.ErrKeyDeleted)
	case k != nil && !newVersion:
		return vault.Key{}, m.fail(op, name, vault.ErrKeyExists)
	case k == nil && newVersion:
		return vault.Key{}, m.fail(op, name, vault.ErrKeyNotFound)
	}
	id := m.Vault.add(name, private)
	return m.keys[name].version(id.Version).show(id), nil
}

func (m *memAdmin) update(ctx context.Context, id vault.KeyID, u AdminUpdate) (vault.Key, error) {
	k, err := m.key("update", id)
	if err := cmpErr(ctx.Err(), err); err != nil {
		return k, err
	}
	m.Vault.update(k.ID, func(v *memVersion) {
		if u.Enabled != nil {
			v.enabled = *u.Enabled
		}
		for date, to := range map[*time.Time]*time.Time{&v.notBefore: u.NotBefore, &v.expires: u.Expires} {
			if to != nil {
				*date = *to
			}
		}
	})
	return m.key("update", k.ID)
}

func (m *memAdmin) setDeleted(ctx context.Context, op vault.Operation, name string, deleted bool) error {
	if err := cmpErr(ctx.Err(), m.look(op, name, !deleted)); err != nil {
		return err
	}
	m.Vault.setDeleted(name, deleted)
	return nil
}

func (m *memAdmin) names(deleted bool) (all []string) {
	m.mu.Lock()
	defer m.mu.Unlock()
	for name, k := range m.keys {
		if k.deleted == deleted {
			all = append(all, name)
		}
	}
	slices.Sort(all)
	return all
}

// memBackup is a backup in the clear.
type memBackup struct {
	Name     string
	Versions []memBackupVersion
}

type memBackupVersion struct {
	ID      string
	Private []byte
	Enabled bool
}

func (m *memAdmin) backup(_ context.Context, name string) ([]byte, error) {
	if err := m.look("backup", name, false); err != nil {
		return nil, err
	}
	m.mu.Lock()
	defer m.mu.Unlock()
	b := memBackup{Name: name}
	for _, v := range m.keys[name].versions {
		b.Versions = append(b.Versions, memBackupVersion{v.id, x509.MarshalPKCS1PrivateKey(v.private), v.enabled})
	}
	text, err := json.Marshal(b)
	return m.sealing.Seal(nil, nil, text, nil), err
}

func (m *memAdmin) restore(_ context.Context, file []byte) (vault.Key, error) {
	text, err := m.sealing.Open(nil, nil, file, nil)
	var b memBackup
	if err = cmpErr(err, json.Unmarshal(text, &b)); err != nil {
		return vault.Key{}, fmt.Errorf("restore: it is no backup: %w", err)
	}
	k := &memKey{}
	for _, v := range b.Versions {
		private, err := x509.ParsePKCS1PrivateKey(v.Private)
		if err != nil {
			return vault.Key{}, err
		}
		k.versions = append(k.versions, &memVersion{id: v.ID, private: private, enabled: v.Enabled, created: m.clock.Now(),
			operations: []vault.Operation{vault.OpGet, vault.OpWrapKey, vault.OpUnwrapKey}})
	}
	m.mu.Lock()
	have := m.keys[b.Name]
	if have == nil {
		m.keys[b.Name] = k
	}
	m.mu.Unlock()
	switch {
	case have == nil:
		return m.key("restore", vault.KeyID{Name: b.Name})
	case have.deleted:
		return vault.Key{}, m.fail("restore", b.Name, vault.ErrKeyDeleted)
	}
	return vault.Key{}, m.fail("restore", b.Name, vault.ErrKeyExists)
}
