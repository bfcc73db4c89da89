package vaulttest

import (
	"bytes"
	"context"
	"crypto/rand"
	"crypto/rsa"
	"crypto/sha256"
	"fmt"
	"math/big"
	"slices"
	"time"

	"github.com/blockseal/blockseal/vault"
)

var (
	_ vault.Vault         = (*Vault)(nil)
	_ vault.VersionLister = (*Vault)(nil)
)

// GetKey implements [vault.Vault].
func (v *Vault) GetKey(ctx context.Context, id vault.KeyID) (vault.Key, error) {
	faults, err := v.begin(ctx, vault.OpGet, id)
	if err != nil {
		return vault.Key{}, err
	}
	m, full, err := v.find(vault.OpGet, id)
	if err != nil {
		return vault.Key{}, err
	}
	key := vault.Key{
		ID:         full,
		Public:     &rsa.PublicKey{N: new(big.Int).Set(m.private.N), E: m.private.E},
		Enabled:    m.enabled,
		NotBefore:  m.notBefore,
		Expires:    m.expires,
		Operations: m.operations,
		Created:    m.created,
		VaultTime:  v.clock.Now(),
	}
	for _, f := range faults {
		if f.MutateKey != nil {
			f.MutateKey(&key)
		}
	}
	return key, nil
}

// WrapKey implements [vault.Vault].
func (v *Vault) WrapKey(ctx context.Context, id vault.KeyID, secret []byte) (vault.Wrapped, error) {
	faults, err := v.begin(ctx, vault.OpWrapKey, id)
	if err != nil {
		return vault.Wrapped{}, err
	}
	if len(secret) == 0 || len(secret) > vault.MaxSecret {
		return vault.Wrapped{}, fmt.Errorf("vaulttest: %s %s: a secret has 1 to %d bytes, not %d", vault.OpWrapKey, id, vault.MaxSecret, len(secret))
	}
	m, full, err := v.find(vault.OpWrapKey, id)
	if err != nil {
		return vault.Wrapped{}, err
	}
	if err := m.usable(vault.OpWrapKey, full); err != nil {
		return vault.Wrapped{}, err
	}
	if err := m.inDate(vault.OpWrapKey, full, v.clock.Now()); err != nil {
		return vault.Wrapped{}, err
	}
	ciphertext, err := rsa.EncryptOAEP(sha256.New(), rand.Reader, &m.private.PublicKey, secret, nil)
	if err != nil {
		// A key of another size than 2048 bits, by ImportKey.
		return vault.Wrapped{}, &vault.Error{Op: vault.OpWrapKey, Key: full, Kind: vault.ErrUnsupportedKey, Err: err}
	}
	v.unwrapped.remember(m.private, ciphertext, secret)
	w := vault.Wrapped{KeyID: full, Ciphertext: ciphertext}
	for _, f := range faults {
		if f.MutateWrapped != nil {
			f.MutateWrapped(&w)
		}
	}
	return w, nil
}

// UnwrapKey implements [vault.Vault].
func (v *Vault) UnwrapKey(ctx context.Context, w vault.Wrapped) ([]byte, error) {
	faults, err := v.begin(ctx, vault.OpUnwrapKey, w.KeyID)
	if err != nil {
		return nil, err
	}
	if w.KeyID.Version == "" {
		return nil, fmt.Errorf("vaulttest: %s %s: the wrapped secret names no key version", vault.OpUnwrapKey, w.KeyID)
	}
	m, full, err := v.find(vault.OpUnwrapKey, w.KeyID)
	if err != nil {
		return nil, err
	}
	if err := m.usable(vault.OpUnwrapKey, full); err != nil {
		return nil, err
	}
	secret, err := v.unwrapped.decrypt(m.private, w.Ciphertext)
	if err != nil || len(secret) == 0 {
		return nil, &vault.Error{
			Op: vault.OpUnwrapKey, Key: full, Kind: vault.ErrBadCiphertext, Code: "BadParameter",
			Detail: "it was wrapped by another key version, or altered",
		}
	}
	for _, f := range faults {
		if f.Plaintext != nil {
			clear(secret)
			secret = bytes.Clone(f.Plaintext)
		}
	}
	return secret, nil
}

// KeyVersions implements [vault.VersionLister]. It is not counted among the calls, and meets
// no fault but an outage.
func (v *Vault) KeyVersions(ctx context.Context, id vault.KeyID) ([]vault.KeyID, error) {
	if err := ctx.Err(); err != nil {
		return nil, err
	}
	const op = vault.Operation("list")
	v.mu.Lock()
	outage := v.outage
	v.mu.Unlock()
	if outage != nil {
		return nil, &vault.Error{Op: op, Key: id, Kind: vault.ErrUnavailable, Err: outage}
	}
	if _, _, err := v.find(op, id.Versionless()); err != nil {
		return nil, err
	}
	v.mu.Lock()
	defer v.mu.Unlock()
	var ids []vault.KeyID
	for _, m := range v.keys[id.Name].versions {
		ids = append(ids, vault.KeyID{Vault: v.name, Name: id.Name, Version: m.id})
	}
	return ids, nil
}

// find returns a copy of a key version, and its complete id.
func (v *Vault) find(op vault.Operation, id vault.KeyID) (memVersion, vault.KeyID, error) {
	refuse := func(kind error, code, format string, args ...any) (memVersion, vault.KeyID, error) {
		return memVersion{}, vault.KeyID{}, &vault.Error{Op: op, Key: id, Kind: kind, Code: code, Detail: fmt.Sprintf(format, args...)}
	}
	if id.Vault != "" && id.Vault != v.name {
		return refuse(vault.ErrKeyNotFound, "KeyNotFound", "it is not a key of this vault, %s", v.name)
	}
	id.Vault = v.name
	v.mu.Lock()
	defer v.mu.Unlock()
	k := v.keys[id.Name]
	if k == nil {
		return refuse(vault.ErrKeyNotFound, "KeyNotFound", "there is no such key, or it was purged")
	}
	if k.deleted {
		return refuse(vault.ErrKeyDeleted, "ObjectIsDeletedButRecoverable", "recover the key to use it")
	}
	m := k.version(id.Version)
	if m == nil {
		return refuse(vault.ErrKeyNotFound, "KeyNotFound", "the key has no such version")
	}
	id.Version = m.id
	found := *m
	found.operations = slices.Clone(m.operations)
	return found, id, nil
}

// usable checks what UnwrapKey and WrapKey ask of a key alike.
func (m *memVersion) usable(op vault.Operation, id vault.KeyID) error {
	if !m.enabled {
		return &vault.Error{Op: op, Key: id, Kind: vault.ErrKeyDisabled, Code: "Forbidden/KeyDisabled", Detail: "enable the key version to use it"}
	}
	if !slices.Contains(m.operations, op) {
		e := KeyOperationForbidden()
		e.Op, e.Key = op, id
		return e
	}
	return nil
}

func (m *memVersion) inDate(op vault.Operation, id vault.KeyID, now time.Time) error {
	if !m.notBefore.IsZero() && now.Before(m.notBefore) {
		return &vault.Error{Op: op, Key: id, Kind: vault.ErrKeyNotYetValid, Code: "Forbidden",
			Detail: "it is valid from " + m.notBefore.UTC().Format(time.RFC3339)}
	}
	if !m.expires.IsZero() && !now.Before(m.expires) {
		return &vault.Error{Op: op, Key: id, Kind: vault.ErrKeyExpired, Code: "Forbidden",
			Detail: "it expired at " + m.expires.UTC().Format(time.RFC3339)}
	}
	return nil
}
