package local

import (
	"context"
	"crypto/rand"
	"crypto/rsa"
	"crypto/sha256"
	"errors"
	"fmt"
	"math/big"
	"slices"
	"time"

	"github.com/blockseal/blockseal/internal/secret"
	"github.com/blockseal/blockseal/vault"
)

// Identity is the data plane in the hands of a named identity: GetKey, WrapKey and
// UnwrapKey, each checked against the identity's grants as they are at the call.
// It cannot administer. It is safe for concurrent use.
//
// An Identity separates duties between the parts of a program that holds the
// open vault; whoever knows the passphrase is the owner.
type Identity struct {
	core *core
	name string // "" is the owner
}

var (
	_ vault.Vault         = (*Identity)(nil)
	_ vault.VersionLister = (*Identity)(nil)
	_ vault.VersionLister = (*Vault)(nil)
)

// As returns the data plane of an identity. An identity without grants is refused
// everything, call by call.
func (v *Vault) As(identity string) *Identity {
	return &Identity{v.core, callerName(identity)}
}

// callerName keeps "", which is the owner inside of this package, from being given
// from outside. Nobody can be granted anything under the name it returns instead.
func callerName(identity string) string {
	if identity == "" {
		return "no name"
	}
	return identity
}

// Name returns the name that As was given.
func (i *Identity) Name() string { return i.name }

// GetKey implements [vault.Vault]. Keys that are disabled or out of their dates
// are returned too. The key's own operations do not bear on it.
func (i *Identity) GetKey(ctx context.Context, id vault.KeyID) (vault.Key, error) {
	c := i.core
	if err := c.enter(ctx, vault.OpGet, id); err != nil {
		return vault.Key{}, err
	}
	defer c.leave()
	v, id, err := c.find(ctx, i.name, vault.OpGet, id)
	if err != nil {
		return vault.Key{}, err
	}
	return v.describe(id), nil
}

// KeyVersions implements [vault.VersionLister]. It needs the permission list.
func (i *Identity) KeyVersions(ctx context.Context, id vault.KeyID) ([]vault.KeyID, error) {
	a, c := &Administrator{i.core, i.name}, i.core
	id = id.Versionless()
	st, err := a.begin(ctx, OpList, &id)
	if err != nil {
		return nil, err
	}
	defer c.leave()
	k, err := c.lookup(st, OpList, &id)
	if err != nil {
		return nil, err
	}
	ids := make([]vault.KeyID, 0, len(k.Versions))
	for _, v := range k.Versions {
		id.Version = v.ID
		ids = append(ids, id)
	}
	return ids, nil
}

// WrapKey implements [vault.Vault].
func (i *Identity) WrapKey(ctx context.Context, id vault.KeyID, secret []byte) (vault.Wrapped, error) {
	c := i.core
	if err := c.enter(ctx, vault.OpWrapKey, id); err != nil {
		return vault.Wrapped{}, err
	}
	defer c.leave()
	if len(secret) == 0 || len(secret) > vault.MaxSecret {
		return vault.Wrapped{}, c.invalid(vault.OpWrapKey, id, fmt.Errorf("a secret has 1 to %d bytes, not %d", vault.MaxSecret, len(secret)))
	}
	v, id, err := c.find(ctx, i.name, vault.OpWrapKey, id)
	if err != nil {
		return vault.Wrapped{}, err
	}
	if err := v.permits(vault.OpWrapKey, id); err != nil {
		return vault.Wrapped{}, err
	}
	if err := v.inDate(vault.OpWrapKey, id, c.now()); err != nil {
		return vault.Wrapped{}, err
	}
	ciphertext, err := rsa.EncryptOAEP(sha256.New(), rand.Reader, v.public, secret, nil)
	if err != nil {
		return vault.Wrapped{}, &vault.Error{Op: vault.OpWrapKey, Key: id, Kind: vault.ErrUnsupportedKey, Err: err}
	}
	return vault.Wrapped{KeyID: id, Ciphertext: ciphertext}, nil
}

// UnwrapKey implements [vault.Vault]. As at Key Vault, a version that is outside
// its dates unwraps: what was stored can be read for as long as the version is
// enabled. The version's dates are in GetKey's answer, for those who want less.
func (i *Identity) UnwrapKey(ctx context.Context, w vault.Wrapped) ([]byte, error) {
	c := i.core
	if err := c.enter(ctx, vault.OpUnwrapKey, w.KeyID); err != nil {
		return nil, err
	}
	defer c.leave()
	if w.KeyID.Version == "" {
		return nil, c.invalid(vault.OpUnwrapKey, w.KeyID, fmt.Errorf("the wrapped secret names no key version"))
	}
	v, id, err := c.find(ctx, i.name, vault.OpUnwrapKey, w.KeyID)
	if err != nil {
		return nil, err
	}
	if err := v.permits(vault.OpUnwrapKey, id); err != nil {
		return nil, err
	}
	private, err := c.private(id.Name, v)
	if err != nil {
		return nil, c.unavailable(vault.OpUnwrapKey, id, err)
	}
	// RFC 8017, section 7.1.2, wants exactly the modulus' length; crypto/rsa also
	// takes what is shorter, so that a ciphertext passes without its leading zeros.
	var plain []byte
	if len(w.Ciphertext) == vault.WrappedSize {
		secret.Do(func() { plain, err = rsa.DecryptOAEP(sha256.New(), nil, private, w.Ciphertext, nil) })
	}
	if err != nil || len(plain) == 0 {
		// The cause is left out on purpose: which check of OAEP failed is nobody's
		// business (RFC 8017, section 7.1.2).
		return nil, &vault.Error{Op: vault.OpUnwrapKey, Key: id, Kind: vault.ErrBadCiphertext, Code: codeBadParameter,
			Detail: "it was wrapped by another key version, or altered"}
	}
	return plain, nil
}

// find returns a version that a caller may do op with, and its complete id.
func (c *core) find(ctx context.Context, caller string, op Permission, id vault.KeyID) (*version, vault.KeyID, error) {
	st, err := c.current()
	if err != nil {
		return nil, id, c.unavailable(op, id, err)
	}
	if err := c.authorize(st, caller, op, id); err != nil {
		return nil, id, err
	}
	k, err := c.lookup(st, op, &id)
	if err != nil {
		return nil, id, err
	}
	if id.Version == "" {
		k = c.attend(ctx, k)
	}
	v := k.version(id.Version)
	if v == nil {
		return nil, id, &vault.Error{Op: op, Key: id, Kind: vault.ErrKeyNotFound, Code: codeNotFound, Detail: "the key has no such version"}
	}
	id.Version = v.ID
	return v, id, nil
}

// lookup returns the key of an id that is not deleted, and fills in the vault.
func (c *core) lookup(st *state, op Permission, id *vault.KeyID) (*key, error) {
	refuse := func(kind error, code, format string, args ...any) (*key, error) {
		return nil, &vault.Error{Op: op, Key: *id, Kind: kind, Code: code, Detail: fmt.Sprintf(format, args...)}
	}
	if err := checkName(id.Name); err != nil {
		// No key can have it: better said than that there is no such key.
		return nil, c.invalid(op, *id, err)
	}
	if id.Vault != "" && id.Vault != c.name {
		return refuse(vault.ErrKeyNotFound, codeNotFound, "it is a key of another vault than this one, which is %s", c.name)
	}
	id.Vault = c.name
	k := st.key(id.Name)
	switch {
	case k == nil:
		return refuse(vault.ErrKeyNotFound, codeNotFound, "there is no such key, or it was purged")
	case k.Deleted != 0:
		return refuse(vault.ErrKeyDeleted, codeDeleted, "it can be recovered until it is purged, at least until %s", formatUnix(k.PurgeAt))
	}
	return k, nil
}

// permits checks what does not depend on the time.
func (v *version) permits(op Permission, id vault.KeyID) error {
	if !v.Enabled {
		return &vault.Error{Op: op, Key: id, Kind: vault.ErrKeyDisabled, Code: codeDisabled, Detail: "enable the key version to use it"}
	}
	if !slices.Contains(v.Operations, op) {
		return &vault.Error{Op: op, Key: id, Kind: vault.ErrAccessDenied, Code: codeOperation,
			Detail: fmt.Sprintf("the key's own operations do not include %s; update the key version", op)}
	}
	return nil
}

func (v *version) inDate(op Permission, id vault.KeyID, now time.Time) error {
	k := vault.Key{ID: id, NotBefore: fromUnix(v.NotBefore), Expires: fromUnix(v.Expires)}
	err := k.InDate(op, now)
	if e, ok := errors.AsType[*vault.Error](err); ok {
		e.Code = codeForbidden
	}
	return err
}

func (v *version) expired(now time.Time) bool {
	return v.Expires != 0 && !now.Before(time.Unix(v.Expires, 0))
}

// describe returns the public side of a version, in memory of its own.
func (v *version) describe(id vault.KeyID) vault.Key {
	id.Version = v.ID
	return vault.Key{
		ID:         id,
		Public:     &rsa.PublicKey{N: new(big.Int).Set(v.public.N), E: v.public.E},
		Enabled:    v.Enabled,
		NotBefore:  fromUnix(v.NotBefore),
		Expires:    fromUnix(v.Expires),
		Operations: slices.Clone(v.Operations),
		Created:    fromUnix(v.Created),
	}
}

func fromUnix(s int64) time.Time {
	if s == 0 {
		return time.Time{}
	}
	return time.Unix(s, 0).UTC()
}

func formatUnix(s int64) string { return time.Unix(s, 0).UTC().Format(time.RFC3339) }

// invalid is a refusal of an argument.
func (c *core) invalid(op Permission, id vault.KeyID, err error) error {
	return &vault.Error{Op: op, Key: id, Kind: ErrInvalid, Err: err}
}
