// Package kek is one key encryption key: an RSA-2048 key in a vault, what makes
// it acceptable, and wrapping and unwrapping with it.
//
// Start with [New], which does no I/O, then [KEK.Check] to admit the key. A
// keyring does both. Nothing here caches: every call reaches the vault, so that
// an answer is the vault's answer of now.
package kek

import (
	"bytes"
	"context"
	"crypto/rand"
	"crypto/subtle"
	"fmt"
	"time"

	"github.com/blockseal/blockseal/vault"
)

// probeSize is the size of the random secret that Check wraps and unwraps: that
// of the secrets it stands for.
const probeSize = 32

// KEK is one key in one vault, pinned to a version or, with no version in its
// id, the key's current version. It is safe for concurrent use if its vault is,
// and it never holds key material.
type KEK struct {
	vault vault.Vault
	id    vault.KeyID
}

// New returns the KEK with the given id in v. It does no I/O: whether the key
// exists and is acceptable is for [KEK.Check] to say. However the vault's URL is spelt
// in id, it is the same KEK: see [vault.KeyID.Canonical]. v must not be nil: a keyring and a store refuse
// such a KEK, and a method that asks the vault panics.
func New(v vault.Vault, id vault.KeyID) *KEK { return &KEK{vault: v, id: id.Canonical()} }

// ID returns the id that New was given, in its canonical spelling.
func (k *KEK) ID() vault.KeyID { return k.id }

// Vault returns the vault that New was given.
func (k *KEK) Vault() vault.Vault { return k.vault }

// WithVersion returns the same key pinned to a version, or to whatever is
// current if version is empty.
func (k *KEK) WithVersion(version string) *KEK {
	id := k.id
	id.Version = version
	return New(k.vault, id)
}

// Get returns the key's properties after admission: an error that matches
// [vault.ErrUnsupportedKey], [vault.ErrKeyDisabled], [vault.ErrKeyNotYetValid] or
// [vault.ErrKeyExpired] says why a key that exists is not acceptable at now. The
// key's dates and Enabled are judged here because a vault may unwrap with a key
// that is out of date.
//
// The properties are returned with the error, if the vault gave any.
func (k *KEK) Get(ctx context.Context, now time.Time) (vault.Key, error) {
	key, err := k.vault.GetKey(ctx, k.id)
	if err != nil {
		return vault.Key{}, err
	}
	if err := k.answers(vault.OpGet, key.ID); err != nil {
		return vault.Key{}, err
	}
	key.ID = key.ID.Canonical() // as it is compared, and written down
	// Dates are wall time, whatever else the vault's client left in them: two times of
	// one process that have monotonic readings are compared by those.
	key.Created, key.NotBefore, key.Expires = key.Created.Round(0), key.NotBefore.Round(0), key.Expires.Round(0)
	return key, Admit(key, now)
}

// Check admits the key: its properties, judged by the system's clock, then a real
// wrap and unwrap of a random secret. Each of the three can be refused alone, so
// each is tried.
func (k *KEK) Check(ctx context.Context) error {
	key, err := k.Get(ctx, time.Now())
	if err != nil {
		return err
	}
	// The version that was admitted is the one that is tried.
	pinned := k.WithVersion(key.ID.Version)
	probe := make([]byte, probeSize)
	rand.Read(probe)
	w, err := pinned.Wrap(ctx, probe)
	if err != nil {
		return err
	}
	got, err := pinned.Unwrap(ctx, w)
	defer clear(got)
	if err != nil {
		return err
	}
	if subtle.ConstantTimeCompare(got, probe) != 1 {
		return pinned.wrongSecret()
	}
	return nil
}

// Wrap encrypts secret, 1 to [vault.MaxSecret] bytes, to the key. The result
// names the version that was used. It is not authenticated: see [vault.Vault].
func (k *KEK) Wrap(ctx context.Context, secret []byte) (vault.Wrapped, error) {
	if len(secret) == 0 || len(secret) > vault.MaxSecret {
		return vault.Wrapped{}, fmt.Errorf("kek: a secret has 1 to %d bytes, not %d", vault.MaxSecret, len(secret))
	}
	w, err := k.vault.WrapKey(ctx, k.id, secret)
	if err != nil {
		return vault.Wrapped{}, err
	}
	if err := k.answers(vault.OpWrapKey, w.KeyID); err != nil {
		return vault.Wrapped{}, err
	}
	w.KeyID = w.KeyID.Canonical()
	if len(w.Ciphertext) != vault.WrappedSize {
		return vault.Wrapped{}, k.refuse(vault.OpWrapKey, vault.ErrUnsupportedKey,
			fmt.Sprintf("the vault returned %d wrapped bytes, an RSA-2048 key gives %d", len(w.Ciphertext), vault.WrappedSize))
	}
	if bytes.Contains(w.Ciphertext, secret) && len(secret) >= 16 {
		return vault.Wrapped{}, k.refuse(vault.OpWrapKey, vault.ErrUnsupportedKey, "the vault returned the secret unencrypted")
	}
	return w, nil
}

// Unwrap decrypts w, which must name its version and be of this KEK's vault and
// key name. The version may differ from the KEK's own: what an older version
// wrapped opens with that version. The caller clears the result.
func (k *KEK) Unwrap(ctx context.Context, w vault.Wrapped) ([]byte, error) {
	if w.KeyID.Version == "" {
		return nil, fmt.Errorf("kek: unwrap %s: the wrapped secret names no key version", w.KeyID)
	}
	w.KeyID = w.KeyID.Canonical()
	if w.KeyID.Name != k.id.Name || (k.id.Vault != "" && w.KeyID.Vault != k.id.Vault) {
		return nil, k.refuse(vault.OpUnwrapKey, vault.ErrBadCiphertext,
			fmt.Sprintf("it was wrapped with another key, %s", w.KeyID))
	}
	if len(w.Ciphertext) != vault.WrappedSize {
		return nil, k.WithVersion(w.KeyID.Version).refuse(vault.OpUnwrapKey, vault.ErrBadCiphertext,
			fmt.Sprintf("it has %d bytes, want %d", len(w.Ciphertext), vault.WrappedSize))
	}
	got, err := k.vault.UnwrapKey(ctx, w)
	if err != nil {
		clear(got)
		return nil, err
	}
	if len(got) == 0 || len(got) > vault.MaxSecret {
		n := len(got)
		clear(got)
		return nil, k.WithVersion(w.KeyID.Version).refuse(vault.OpUnwrapKey, vault.ErrBadCiphertext,
			fmt.Sprintf("the vault returned %d bytes, want 1 to %d", n, vault.MaxSecret))
	}
	return got, nil
}

// answers checks that an answer is about the key that was asked for and names
// the version it is about.
func (k *KEK) answers(op vault.Operation, got vault.KeyID) error {
	switch {
	case got.Name != k.id.Name,
		k.id.Version != "" && got.Version != k.id.Version,
		k.id.Vault != "" && got.Vault != k.id.Vault:
		return k.refuse(op, vault.ErrUnsupportedKey, fmt.Sprintf("the vault answered for another key, %s", got))
	case got.Version == "":
		return k.refuse(op, vault.ErrUnsupportedKey, "the vault did not say which version it used")
	case got.Vault == "":
		return k.refuse(op, vault.ErrUnsupportedKey, "the vault did not say which vault it is")
	}
	if err := got.Validate(); err != nil {
		return k.refuse(op, vault.ErrUnsupportedKey, err.Error())
	}
	return nil
}

func (k *KEK) wrongSecret() error {
	return k.refuse(vault.OpUnwrapKey, vault.ErrUnsupportedKey, "the vault unwrapped to another secret than was wrapped")
}

func (k *KEK) refuse(op vault.Operation, kind error, detail string) error {
	return &vault.Error{Op: op, Key: k.id, Kind: kind, Detail: detail}
}
