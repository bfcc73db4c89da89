package local

import (
	"context"
	"crypto/rand"
	"crypto/rsa"
	"crypto/x509"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"slices"
	"strings"
	"time"

	"github.com/blockseal/blockseal/internal/keyfile"
	"github.com/blockseal/blockseal/vault"
)

// Administrator is the control plane: keys' lives, without any use of the keys. It
// is the owner's as part of a [Vault], and a named identity's by [Vault.Administer],
// each call then checked against the identity's grants as they are at the call. It
// is safe for concurrent use.
type Administrator struct {
	core *core
	name string // "" is the owner
}

// Administer returns the control plane of an identity. What it is not granted it
// is refused, call by call. It cannot wrap and unwrap; see [Vault.As] for that.
func (v *Vault) Administer(identity string) *Administrator {
	return &Administrator{v.core, callerName(identity)}
}

// do runs one change on a key: authorised before, for an early answer, and again
// with the state that is changed.
func (a *Administrator) do(ctx context.Context, op Permission, id vault.KeyID, f func(st *state, now time.Time) error) error {
	c := a.core
	return c.change(ctx, op, id, c.opts.LockWait, func(st *state, now time.Time) error {
		if err := c.authorize(st, a.name, op, id); err != nil {
			return err
		}
		return f(st, now)
	})
}

// begin starts an operation; without an error, the caller calls core.leave.
func (a *Administrator) begin(ctx context.Context, op Permission, id *vault.KeyID) (*state, error) {
	c := a.core
	if id.Vault == "" {
		id.Vault = c.name
	}
	if err := c.enter(ctx, op, *id); err != nil {
		return nil, err
	}
	st, err := c.current()
	if err != nil {
		c.leave()
		return nil, c.unavailable(op, *id, err)
	}
	if err := c.authorize(st, a.name, op, *id); err != nil {
		c.leave()
		return nil, err
	}
	return st, nil
}

// CreateKey makes a key with a fresh RSA-2048 key pair. A name that is taken is refused,
// because stores on the key would follow to what was made: the error matches
// [vault.ErrKeyExists], and [vault.ErrKeyDeleted] if the key is deleted and not purged.
// [Administrator.RotateKey] makes a new version of a key, KeyOptions.NewVersion one with
// other properties, and [Administrator.EnsureKey] is for who wants the key, whether it is
// there or not.
func (a *Administrator) CreateKey(ctx context.Context, name string, opts *KeyOptions) (vault.Key, error) {
	return a.add(ctx, OpCreate, name, opts, a.core.opts.generate)
}

// EnsureKey returns the current version of a key, and makes the key first if there is none,
// as CreateKey does. opts are for a key that is made; one that is there is returned as it
// is, whatever its dates and its state. Of any number of callers at once, in any number of
// processes, one makes the key and all get that.
//
// An identity needs the permission create and, for a key that is there, list. The name of a
// deleted key is refused, with an error that matches [vault.ErrKeyDeleted].
func (a *Administrator) EnsureKey(ctx context.Context, name string, opts *KeyOptions) (vault.Key, error) {
	if opts != nil && opts.NewVersion {
		id := vault.KeyID{Vault: a.core.name, Name: name}
		return vault.Key{}, a.core.invalid(OpCreate, id, errors.New("NewVersion is for CreateKey and the imports: a key that is there is returned as it is"))
	}
	for {
		k, err := a.CreateKey(ctx, name, opts)
		if !errors.Is(err, vault.ErrKeyExists) {
			return k, err
		}
		all, err := a.Versions(ctx, name)
		switch {
		case err == nil:
			return all[len(all)-1].Key, nil
		case !errors.Is(err, vault.ErrKeyNotFound): // it was deleted and purged in between
			return vault.Key{}, err
		}
	}
}

// ImportKey is CreateKey with a key pair that was made elsewhere: RSA, exactly 2048
// bits, two primes, a public exponent that is odd and at least 65537. Any other is
// refused with an error that matches [vault.ErrUnsupportedKey] and names what is
// wrong. See [ParsePEM] and [ParsePFX] for files.
func (a *Administrator) ImportKey(ctx context.Context, name string, key *rsa.PrivateKey, opts *KeyOptions) (vault.Key, error) {
	return a.add(ctx, OpImport, name, opts, func() (*rsa.PrivateKey, error) {
		if err := keyfile.CheckPrivate(key); err != nil {
			return nil, err
		}
		return key, nil
	})
}

func (a *Administrator) add(ctx context.Context, op Permission, name string, opts *KeyOptions, material func() (*rsa.PrivateKey, error)) (vault.Key, error) {
	c, id := a.core, vault.KeyID{Name: name}
	st, err := a.begin(ctx, op, &id)
	if err != nil {
		return vault.Key{}, err
	}
	defer c.leave()
	if err := checkName(name); err != nil {
		return vault.Key{}, c.invalid(op, id, err)
	}
	v, err := opts.version()
	if err != nil {
		return vault.Key{}, c.invalid(op, id, err)
	}
	var pol *policy
	if opts != nil && opts.Policy != nil {
		if pol, err = opts.Policy.encode(); err != nil {
			return vault.Key{}, c.invalid(op, id, err)
		}
	}
	// Before the slow part, and again with the state that is changed.
	if err := c.checkFree(st, op, id, opts); err != nil {
		return vault.Key{}, err
	}
	if err := c.fill(v, op, id, material); err != nil {
		return vault.Key{}, err
	}
	err = a.do(ctx, op, id, func(st *state, now time.Time) error {
		if err := c.checkFree(st, op, id, opts); err != nil {
			return err
		}
		k := st.key(name)
		if k == nil {
			k = &key{Name: name}
			st.put(k)
		}
		if pol != nil {
			k.Policy = pol
		}
		v.Created, v.Updated = now.Unix(), now.Unix()
		if v.Expires == 0 {
			v.Expires = k.Policy.expiry(now)
		}
		if err := checkDates(v.NotBefore, v.Expires); err != nil {
			return c.invalid(op, id, err)
		}
		k.Versions = append(k.Versions, v)
		return nil
	})
	if err != nil {
		return vault.Key{}, err
	}
	return v.describe(id), nil
}

// checkFree refuses the name of a deleted key, of a key where one is to be made, and of none
// where a version is.
func (c *core) checkFree(st *state, op Permission, id vault.KeyID, opts *KeyOptions) error {
	k, newVersion := st.key(id.Name), opts != nil && opts.NewVersion
	switch {
	case k == nil && newVersion:
		return &vault.Error{Op: op, Key: id, Kind: vault.ErrKeyNotFound, Code: codeNotFound,
			Detail: "there is no such key to make a new version of; make the key"}
	case k == nil:
		return nil
	case k.Deleted != 0:
		return &vault.Error{Op: op, Key: id, Kind: vault.ErrKeyDeleted, Code: codeDeleted,
			Detail: fmt.Sprintf("recover the deleted key, or purge it before its name is used again; it is kept until then, at least until %s", formatUnix(k.PurgeAt))}
	case !newVersion:
		return &vault.Error{Op: op, Key: id, Kind: vault.ErrKeyExists,
			Detail: "use it as it is, or ask for a new version of it, to which the stores on it will follow; nothing was changed"}
	}
	return nil
}

// fill gives a new version its id and its key pair, and proves that what is sealed
// opens again before anything depends on it.
func (c *core) fill(v *version, op Permission, id vault.KeyID, material func() (*rsa.PrivateKey, error)) error {
	private, err := material()
	if err != nil {
		if kind := vault.Kind(err); kind != nil {
			return refusal(op, id, kind, err)
		}
		return c.unavailable(op, id, fmt.Errorf("generate an RSA-2048 key: %w", err))
	}
	fail := func(err error) error { return refusal(op, id, vault.ErrUnsupportedKey, err) }
	if v.Public, err = x509.MarshalPKIXPublicKey(&private.PublicKey); err != nil {
		return fail(err)
	}
	v.ID = newVersion()
	v.public = nil
	if err := v.prepare(); err != nil {
		return fail(err)
	}
	if v.Private, err = sealPrivate(c.master(), c.id, id.Name, v.ID, private); err != nil {
		return fail(err)
	}
	if _, err := openPrivate(c.master(), c.id, id.Name, v); err != nil {
		return fail(err)
	}
	return nil
}

// refusal makes a vault.Error of a kind of an error that ends with the kind's text,
// which is not to be said twice.
func refusal(op Permission, id vault.KeyID, kind, err error) error {
	return &vault.Error{Op: op, Key: id, Kind: kind, Detail: strings.TrimSuffix(err.Error(), ": "+kind.Error())}
}

func newVersion() string {
	var b [versionDigits / 2]byte
	rand.Read(b[:])
	return hex.EncodeToString(b[:])
}

// Update is a change of a key version's properties. What is nil stays as it is.
type Update struct {
	Enabled            *bool
	NotBefore, Expires *time.Time        // in whole seconds, the rest is cut off; a zero time unsets
	Operations         []vault.Operation // the complete new list
}

// UpdateKey changes properties of a version, or of the current one if id has no
// version. It takes effect with the next call of every handle, in every process.
func (a *Administrator) UpdateKey(ctx context.Context, id vault.KeyID, u Update) (vault.Key, error) {
	c := a.core
	if _, err := a.begin(ctx, OpUpdate, &id); err != nil {
		return vault.Key{}, err
	}
	defer c.leave()
	var updated vault.Key
	err := a.do(ctx, OpUpdate, id, func(st *state, now time.Time) error {
		k, err := c.lookup(st, OpUpdate, &id)
		if err != nil {
			return err
		}
		v := k.version(id.Version)
		if v == nil {
			return &vault.Error{Op: OpUpdate, Key: id, Kind: vault.ErrKeyNotFound, Code: codeNotFound, Detail: "the key has no such version"}
		}
		if err := u.apply(v); err != nil {
			return c.invalid(OpUpdate, id, err)
		}
		v.Updated = now.Unix()
		updated = v.describe(id)
		return nil
	})
	if err != nil {
		return vault.Key{}, err
	}
	return updated, nil
}

func (u *Update) apply(v *version) (err error) {
	if u.Enabled != nil {
		v.Enabled = *u.Enabled
	}
	if u.NotBefore != nil {
		if v.NotBefore, err = toUnix(*u.NotBefore); err != nil {
			return err
		}
	}
	if u.Expires != nil {
		if v.Expires, err = toUnix(*u.Expires); err != nil {
			return err
		}
	}
	if u.Operations != nil {
		v.Operations = slices.Clone(u.Operations)
	}
	return errors.Join(checkDates(v.NotBefore, v.Expires), checkOperations(v.Operations))
}

// KeyVersion is a version with all its properties.
type KeyVersion struct {
	vault.Key
	Updated time.Time // when its properties were changed last
}

// MarshalJSON writes the key's members, as [vault.Key] does, and updated: without it, the
// embedded key would write itself alone.
func (k KeyVersion) MarshalJSON() ([]byte, error) {
	b, err := json.Marshal(k.Key)
	if err != nil || k.Updated.IsZero() {
		return b, err
	}
	updated, err := json.Marshal(k.Updated)
	return slices.Concat(b[:len(b)-1], []byte(`,"updated":`), updated, []byte("}")), err
}

// KeyInfo is a key with its current version.
type KeyInfo struct {
	Current  KeyVersion     `json:"current"`
	Versions int            `json:"versions"` // how many it has
	Policy   RotationPolicy `json:"policy"`
	// Deleted says when the key was deleted, and PurgeAt before when it is not gone for
	// good unless it is purged; see Maintain. Both are zero for a key that is not deleted.
	Deleted time.Time `json:"deleted,omitzero"`
	PurgeAt time.Time `json:"purgeAt,omitzero"`
}

// ListKeys returns the keys that are not deleted, by ascending name.
func (a *Administrator) ListKeys(ctx context.Context) ([]KeyInfo, error) { return a.list(ctx, false) }

// ListDeleted returns the deleted keys that can be recovered, by ascending name.
func (a *Administrator) ListDeleted(ctx context.Context) ([]KeyInfo, error) { return a.list(ctx, true) }

func (a *Administrator) list(ctx context.Context, deleted bool) ([]KeyInfo, error) {
	c, id := a.core, vault.KeyID{}
	st, err := a.begin(ctx, OpList, &id)
	if err != nil {
		return nil, err
	}
	defer c.leave()
	all := []KeyInfo{}
	for _, k := range st.Keys {
		if (k.Deleted != 0) == deleted {
			all = append(all, KeyInfo{
				Current:  k.current().info(c.name, k.Name),
				Versions: len(k.Versions),
				Policy:   k.Policy.decode(),
				Deleted:  fromUnix(k.Deleted),
				PurgeAt:  fromUnix(k.PurgeAt),
			})
		}
	}
	return all, nil
}

// Versions returns all versions of a key, the oldest first, the current one last.
func (a *Administrator) Versions(ctx context.Context, name string) ([]KeyVersion, error) {
	c, id := a.core, vault.KeyID{Name: name}
	st, err := a.begin(ctx, OpList, &id)
	if err != nil {
		return nil, err
	}
	defer c.leave()
	k, err := c.lookup(st, OpList, &id)
	if err != nil {
		return nil, err
	}
	all := make([]KeyVersion, 0, len(k.Versions))
	for _, v := range k.Versions {
		all = append(all, v.info(c.name, name))
	}
	return all, nil
}

func (v *version) info(vaultName, name string) KeyVersion {
	return KeyVersion{
		Key:     v.describe(vault.KeyID{Vault: vaultName, Name: name}),
		Updated: fromUnix(v.Updated),
	}
}
