package azure

import (
	"bytes"
	"context"
	"crypto/rsa"
	"crypto/sha256"
	"errors"
	"fmt"
	"math/big"
	"slices"
	"sync"

	"github.com/Azure/azure-sdk-for-go/sdk/azcore"

	"github.com/blockseal/blockseal/vault"
)

// Vault is the data plane of a key vault or managed HSM: get, wrapKey and unwrapKey.
// It implements [vault.Vault] and is safe for concurrent use. It holds no key and
// needs no closing: a call ends with its context.
type Vault struct {
	*client
	gets    *flights[vault.KeyID, vault.Key]
	unwraps *flights[ciphertext, []byte]
	local   *localKeys // nil unless Options.WrapLocally

	seenMu sync.Mutex
	seen   map[vault.KeyID][sha256.Size]byte // public keys of versions
}

// ciphertext is a [vault.Wrapped] as a map's key.
type ciphertext struct {
	id    vault.KeyID
	bytes string
}

var (
	_ vault.Vault         = (*Vault)(nil)
	_ vault.VersionLister = (*Vault)(nil)
)

// New returns the vault at a URL such as "https://contoso.vault.azure.net" or
// "https://contoso.managedhsm.azure.net". It does no I/O, and builds no credential:
// give it one of azidentity's. The identity needs get, wrapKey and unwrapKey on keys,
// which the role Key Vault Crypto Service Encryption User gives, and nothing else.
//
// One Vault serves a whole process: its budget, its token and its connections are
// shared by all that use it. Where tenants have identities of their own, each is a Vault, and
// [Options].Budgets has them share the budget.
func New(vaultURL string, cred azcore.TokenCredential, opts *Options) (*Vault, error) {
	c, err := newClient(vaultURL, cred, opts)
	if err != nil {
		return nil, err
	}
	v := &Vault{
		client:  c,
		gets:    newFlights[vault.KeyID, vault.Key](c.opts.Clock),
		unwraps: newFlights[ciphertext, []byte](c.opts.Clock),
		seen:    map[vault.KeyID][sha256.Size]byte{},
	}
	if c.opts.WrapLocally {
		v.local = newLocalKeys(c.opts.Clock)
	}
	return v, nil
}

// URL returns the vault's URL: the KeyID.Vault of its keys.
func (v *Vault) URL() string { return v.url }

// GetKey implements [vault.Vault]. Identical calls that are made together are one
// request, whose answer is at most a second older than the question.
func (v *Vault) GetKey(ctx context.Context, id vault.KeyID) (vault.Key, error) {
	id, err := v.own(vault.OpGet, id)
	if err != nil {
		return vault.Key{}, err
	}
	key, err := v.gets.do(ctx, id, v.board(ctx, vault.OpGet, id), v.getKey, cloneKey, nil)
	return key, v.noted(vault.OpGet, id, err)
}

func (v *Vault) getKey(ctx context.Context, cl *call) (key vault.Key, err error) {
	id := cl.id
	err = v.run(ctx, cl, func(ctx context.Context) error {
		resp, err := v.keys.GetKey(ctx, id.Name, id.Version, nil)
		if err != nil {
			return err
		}
		key, err = v.key(vault.OpGet, id, resp.KeyBundle)
		key.VaultTime = cl.date
		return err
	})
	if err != nil {
		return vault.Key{}, err
	}
	// A version's key pair never changes, whatever is done to its properties.
	fp := fingerprint(key.Public)
	v.seenMu.Lock()
	defer v.seenMu.Unlock()
	before, ok := v.seen[key.ID]
	if ok && before != fp {
		return vault.Key{}, refuse(vault.OpGet, key.ID, vault.ErrUnsupportedKey, "its public key is not the one that this version had before")
	}
	if len(v.seen) >= maxKnown {
		clear(v.seen)
	}
	v.seen[key.ID] = fp
	return key, nil
}

func cloneKey(k vault.Key) vault.Key {
	k.Operations = slices.Clone(k.Operations)
	k.Public = &rsa.PublicKey{N: new(big.Int).Set(k.Public.N), E: k.Public.E}
	return k
}

// WrapKey implements [vault.Vault].
func (v *Vault) WrapKey(ctx context.Context, id vault.KeyID, secret []byte) (vault.Wrapped, error) {
	id, err := v.own(vault.OpWrapKey, id)
	if err != nil {
		return vault.Wrapped{}, err
	}
	if len(secret) == 0 || len(secret) > vault.MaxSecret {
		return vault.Wrapped{}, invalid(vault.OpWrapKey, id, fmt.Errorf("a secret has 1 to %d bytes, not %d", vault.MaxSecret, len(secret)))
	}
	if v.local != nil {
		return v.wrapLocally(ctx, id, secret)
	}
	w, err := v.wrapRemotely(ctx, id, secret)
	if err != nil {
		return vault.Wrapped{}, v.noted(vault.OpWrapKey, id, err)
	}
	return w, nil
}

func (v *Vault) wrapRemotely(ctx context.Context, id vault.KeyID, secret []byte) (w vault.Wrapped, err error) {
	cl, err := v.begin(ctx, vault.OpWrapKey, id)
	if err != nil {
		return w, err
	}
	err = v.run(ctx, cl, func(ctx context.Context) error {
		resp, err := v.keys.WrapKey(ctx, id.Name, id.Version, oaep(secret), nil)
		if err != nil {
			return err
		}
		used, err := v.answers(vault.OpWrapKey, id, resp.KID)
		switch {
		case err != nil:
			return err
		case len(resp.Result) == 0:
			return malformed(vault.OpWrapKey, id, "it has no result")
		case len(resp.Result) != vault.WrappedSize:
			return refuse(vault.OpWrapKey, used, vault.ErrUnsupportedKey,
				"the vault returned %d wrapped bytes, an RSA-2048 key gives %d", len(resp.Result), vault.WrappedSize)
		}
		w = vault.Wrapped{KeyID: used, Ciphertext: resp.Result}
		return nil
	})
	if cl.unexplained {
		err = v.whyForbidden(ctx, id, err)
	}
	return w, err
}

// whyForbidden finds out why a wrap was refused when the vault said no more than
// "Forbidden", as it does outside a key's dates: the key's properties say why.
func (v *Vault) whyForbidden(ctx context.Context, id vault.KeyID, err error) error {
	refusal, ok := errors.AsType[*vault.Error](err)
	if !ok {
		return err
	}
	// The request that matters is the wrap's.
	key, getErr := v.GetKey(vault.OnRequestID(ctx, func(string) {}), id)
	if getErr != nil {
		return err
	}
	explained := inUse(vault.OpWrapKey, key, v.opts.Clock.Now())
	if explained == nil {
		explained = key.WhyRefused(vault.OpWrapKey, v.opts.Clock.Now())
	}
	why, ok := errors.AsType[*vault.Error](explained)
	if !ok {
		return err
	}
	why.Code, why.RequestID = refusal.Code, refusal.RequestID
	return why
}

// UnwrapKey implements [vault.Vault]. Calls with the same ciphertext that are made
// together are one request, as those of GetKey are. Every caller gets a copy of the
// secret of its own, to clear.
func (v *Vault) UnwrapKey(ctx context.Context, w vault.Wrapped) ([]byte, error) {
	id, err := v.own(vault.OpUnwrapKey, w.KeyID)
	if err != nil {
		return nil, err
	}
	if id.Version == "" {
		return nil, invalid(vault.OpUnwrapKey, id, errors.New("the wrapped secret names no key version"))
	}
	if len(w.Ciphertext) != vault.WrappedSize {
		return nil, refuse(vault.OpUnwrapKey, id, vault.ErrBadCiphertext, "it has %d bytes, want %d", len(w.Ciphertext), vault.WrappedSize)
	}
	same := ciphertext{id, string(w.Ciphertext)}
	secret, err := v.unwraps.do(ctx, same, v.board(ctx, vault.OpUnwrapKey, id), func(ctx context.Context, cl *call) ([]byte, error) {
		return v.unwrapKey(ctx, cl, []byte(same.bytes))
	}, bytes.Clone, func(secret []byte) { clear(secret) })
	return secret, v.noted(vault.OpUnwrapKey, id, err)
}

func (v *Vault) unwrapKey(ctx context.Context, cl *call, c []byte) (secret []byte, err error) {
	id := cl.id
	err = v.run(ctx, cl, func(ctx context.Context) error {
		resp, err := v.keys.UnwrapKey(ctx, id.Name, id.Version, oaep(c), nil)
		if err != nil {
			return err
		}
		_, err = v.answers(vault.OpUnwrapKey, id, resp.KID)
		switch {
		case err != nil:
		case resp.Result == nil:
			err = malformed(vault.OpUnwrapKey, id, "it has no result")
		case len(resp.Result) == 0 || len(resp.Result) > vault.MaxSecret:
			err = refuse(vault.OpUnwrapKey, id, vault.ErrBadCiphertext, "the vault returned %d bytes, want 1 to %d", len(resp.Result), vault.MaxSecret)
		default:
			secret = resp.Result
			return nil
		}
		clear(resp.Result)
		return err
	})
	return secret, err
}

// noted passes an error of an operation on, as an error of package vault: an ended
// context while others go on waiting is none yet. A denial ends what is known of the
// key for wrapping locally.
func (v *Vault) noted(op vault.Operation, id vault.KeyID, err error) error {
	if err == nil {
		return nil
	}
	if v.local != nil && vault.Denied(err) && !errors.Is(err, vault.ErrBadCiphertext) {
		v.local.forget(id.Name)
	}
	if _, ok := errors.AsType[*vault.Error](err); ok {
		return err
	}
	return &vault.Error{Op: op, Key: id, Kind: vault.ErrUnavailable, Err: err}
}
