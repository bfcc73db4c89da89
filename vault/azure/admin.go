package azure

import (
	"context"
	"crypto/rsa"
	"errors"
	"fmt"
	"slices"
	"strings"
	"time"

	"github.com/Azure/azure-sdk-for-go/sdk/azcore"
	"github.com/Azure/azure-sdk-for-go/sdk/azcore/to"
	"github.com/Azure/azure-sdk-for-go/sdk/security/keyvault/azkeys"

	"github.com/blockseal/blockseal/vault"
)

// What a key administrator does, beside the data plane's three: the Op of its errors,
// and the permission that Key Vault wants for it.
const (
	OpCreate            vault.Operation = "create"
	OpImport            vault.Operation = "import"
	OpUpdate            vault.Operation = "update"
	OpRotate            vault.Operation = "rotate"
	OpDelete            vault.Operation = "delete"
	OpRecover           vault.Operation = "recover"
	OpPurge             vault.Operation = "purge"
	OpBackup            vault.Operation = "backup"
	OpRestore           vault.Operation = "restore"
	OpList              vault.Operation = "list"
	OpGetRotationPolicy vault.Operation = "getrotationpolicy"
	OpSetRotationPolicy vault.Operation = "setrotationpolicy"
)

// DefaultAdminTimeout bounds each call of an [Admin]: making a key in an HSM takes
// seconds.
const DefaultAdminTimeout = time.Minute

// Admin is the control plane of a key vault or managed HSM: keys' lives, without any
// use of the keys. It is for the key administrator, whose identity is not the store's:
// who can use a key should not be able to delete it. It needs the role Key Vault Crypto
// Officer. It is safe for concurrent use.
//
// The client repeats a request whose answer was lost. For [Admin.CreateKey],
// [Admin.RotateKey] and the imports that can make one version more than was asked for;
// nothing depends on it, and [Admin.Versions] shows it.
type Admin struct{ *client }

// NewAdmin returns the administrator's side of the vault at a URL; see [New]. Of the
// options, Timeout is [DefaultAdminTimeout] by default, and WrapLocally means nothing.
func NewAdmin(vaultURL string, cred azcore.TokenCredential, opts *Options) (*Admin, error) {
	var o Options
	if opts != nil {
		o = *opts
	}
	if o.Timeout == 0 {
		o.Timeout = DefaultAdminTimeout
	}
	c, err := newClient(vaultURL, cred, &o)
	if err != nil {
		return nil, err
	}
	return &Admin{c}, nil
}

// URL returns the vault's URL: the KeyID.Vault of its keys.
func (a *Admin) URL() string { return a.url }

// KeyOptions are the properties of a new key version. A nil *KeyOptions, and each zero
// field, means the default that the field states.
type KeyOptions struct {
	// HSM makes the key, or imports it, in the vault's HSM (type RSA-HSM; the vault must
	// be of the premium tier, or a managed HSM). Default: a software key. A key transfer
	// blob is always for the HSM.
	HSM bool
	// Disabled makes the version disabled. Default: enabled.
	Disabled bool
	// NotBefore and Expires bound when the version wraps, in whole seconds. Default: not
	// set, or as the key's rotation policy says.
	NotBefore, Expires time.Time
	// Operations that the version permits. Default: wrapKey and unwrapKey, and nothing
	// else. A key with import alone is for [Admin.ImportBYOK].
	Operations []vault.Operation
	// Tags are kept with the version, for people. Default: none.
	Tags map[string]string
	// NewVersion makes a new current version of a key that exists, to which the stores on
	// the key follow; a name without a key is refused ([vault.ErrKeyNotFound]). Default: a
	// key is made, and a name that is taken is refused ([vault.ErrKeyExists]).
	NewVersion bool
}

// given returns o, or the defaults.
func (o *KeyOptions) given() KeyOptions {
	if o == nil {
		return KeyOptions{}
	}
	return *o
}

func (o KeyOptions) attributes() *azkeys.KeyAttributes {
	return &azkeys.KeyAttributes{Enabled: to.Ptr(!o.Disabled), NotBefore: dateOrNil(o.NotBefore), Expires: dateOrNil(o.Expires)}
}

func dateOrNil(t time.Time) *time.Time {
	if t.IsZero() {
		return nil
	}
	t = t.UTC().Truncate(time.Second)
	return &t
}

func (o KeyOptions) operations() []*azkeys.KeyOperation {
	if o.Operations == nil {
		return keyOperations([]vault.Operation{vault.OpWrapKey, vault.OpUnwrapKey})
	}
	return keyOperations(o.Operations)
}

func keyOperations(ops []vault.Operation) []*azkeys.KeyOperation {
	all := []*azkeys.KeyOperation{}
	for _, op := range ops {
		if op != vault.OpGet { // no operation of a key's
			all = append(all, to.Ptr(azkeys.KeyOperation(op)))
		}
	}
	return all
}

func (o KeyOptions) tags() map[string]*string {
	if o.Tags == nil {
		return nil
	}
	tags := map[string]*string{}
	for k, v := range o.Tags {
		tags[k] = to.Ptr(v)
	}
	return tags
}

func (o KeyOptions) keyType() *azkeys.KeyType {
	if o.HSM {
		return to.Ptr(azkeys.KeyTypeRSAHSM)
	}
	return to.Ptr(azkeys.KeyTypeRSA)
}

// key runs an operation that answers with a key.
func (a *Admin) key(ctx context.Context, op vault.Operation, id vault.KeyID, f func(context.Context) (azkeys.KeyBundle, error)) (vault.Key, error) {
	var key vault.Key
	err := a.do(ctx, op, id, func(ctx context.Context) error {
		bundle, err := f(ctx)
		if err != nil {
			return err
		}
		key, err = a.client.key(op, id, bundle)
		return err
	})
	if err != nil {
		return vault.Key{}, err
	}
	return key, nil
}

// CreateKey makes a key with a fresh RSA-2048 key pair. A name that is taken is refused,
// because stores on the key would follow to what was made: the error matches
// [vault.ErrKeyExists], and [vault.ErrKeyDeleted] if the key is deleted and not purged.
// [Admin.RotateKey] makes a new version of a key, KeyOptions.NewVersion one with other
// properties, and [Admin.EnsureKey] is for who wants the key, whether it is there or not.
//
// Key Vault itself makes a new version of a key that exists, and has no request that does
// not. So CreateKey, and the imports, ask for the key before, which takes the permission
// get; of two administrators who make one key in the same moment, the second makes a new
// version of the first one's.
func (a *Admin) CreateKey(ctx context.Context, name string, opts *KeyOptions) (vault.Key, error) {
	id, err := a.own(OpCreate, vault.KeyID{Name: name})
	if err != nil {
		return vault.Key{}, err
	}
	o := opts.given()
	p := azkeys.CreateKeyParameters{Kty: o.keyType(), KeySize: to.Ptr(int32(2048)), KeyOps: o.operations(), KeyAttributes: o.attributes(), Tags: o.tags()}
	if err := a.checkFree(ctx, OpCreate, id, o); err != nil {
		return vault.Key{}, err
	}
	return a.key(ctx, OpCreate, id, func(ctx context.Context) (azkeys.KeyBundle, error) {
		resp, err := a.keys.CreateKey(ctx, name, p, nil)
		return resp.KeyBundle, err
	})
}

// EnsureKey returns the current version of a key, and makes the key first if there is none,
// as CreateKey does. opts are for a key that is made; one that is there is returned as it
// is, whatever its dates and its state.
func (a *Admin) EnsureKey(ctx context.Context, name string, opts *KeyOptions) (vault.Key, error) {
	id := vault.KeyID{Vault: a.url, Name: name}
	if opts.given().NewVersion {
		return vault.Key{}, refuse(OpCreate, id, ErrInvalid, "NewVersion is for CreateKey and the imports: a key that is there is returned as it is")
	}
	k, err := a.GetKey(ctx, id)
	if !errors.Is(err, vault.ErrKeyNotFound) {
		return k, err
	}
	k, err = a.CreateKey(ctx, name, opts)
	if errors.Is(err, vault.ErrKeyExists) { // since a moment ago
		return a.GetKey(ctx, id)
	}
	return k, err
}

// checkFree refuses the name of a key where one is to be made, and of none where a version
// is. A deleted key is not found here: Key Vault refuses its name by itself.
func (a *Admin) checkFree(ctx context.Context, op vault.Operation, id vault.KeyID, o KeyOptions) error {
	_, err := a.key(ctx, op, id, func(ctx context.Context) (azkeys.KeyBundle, error) {
		resp, err := a.keys.GetKey(ctx, id.Name, "", nil)
		return resp.KeyBundle, err
	})
	if e, ok := errors.AsType[*vault.Error](err); ok && e.Kind == vault.ErrAccessDenied {
		e.Detail += "; before a key is made it is looked for, which takes the permission get"
	}
	switch {
	case err == nil && !o.NewVersion:
		return refuse(op, id, vault.ErrKeyExists, "use it as it is, or ask for a new version of it, to which the stores on it will follow; nothing was changed")
	case errors.Is(err, vault.ErrKeyNotFound) && o.NewVersion:
		return refuse(op, id, vault.ErrKeyNotFound, "there is no such key to make a new version of; make the key")
	case errors.Is(err, vault.ErrKeyNotFound):
		return nil
	}
	return err
}

// RotateKey makes a new current version of a key that exists, as its rotation policy
// says. Older versions stay usable until they are disabled.
func (a *Admin) RotateKey(ctx context.Context, name string) (vault.Key, error) {
	id, err := a.own(OpRotate, vault.KeyID{Name: name})
	if err != nil {
		return vault.Key{}, err
	}
	return a.key(ctx, OpRotate, id, func(ctx context.Context) (azkeys.KeyBundle, error) {
		resp, err := a.keys.RotateKey(ctx, name, nil)
		return resp.KeyBundle, err
	})
}

// Update is a change of a key version's properties. What is nil stays as it is.
type Update struct {
	Enabled            *bool
	NotBefore, Expires *time.Time        // in whole seconds; a zero time unsets
	Operations         []vault.Operation // the complete new list
}

// UpdateKey changes properties of a version, or of the current one if id has no
// version. If Key Vault answers with success and the version is not as it was asked to
// be, the error matches [ErrIgnored] and names what is not, and the key is returned as it
// is.
func (a *Admin) UpdateKey(ctx context.Context, id vault.KeyID, u Update) (vault.Key, error) {
	id, err := a.own(OpUpdate, id)
	if err != nil {
		return vault.Key{}, err
	}
	p := azkeys.UpdateKeyParameters{KeyAttributes: &azkeys.KeyAttributes{Enabled: u.Enabled}}
	p.KeyAttributes.NotBefore = dateOrNull(u.NotBefore)
	p.KeyAttributes.Expires = dateOrNull(u.Expires)
	if u.Operations != nil {
		p.KeyOps = keyOperations(u.Operations)
	}
	key, err := a.key(ctx, OpUpdate, id, func(ctx context.Context) (azkeys.KeyBundle, error) {
		resp, err := a.keys.UpdateKey(ctx, id.Name, id.Version, p, nil)
		return resp.KeyBundle, err
	})
	if err != nil {
		return key, err
	}
	return key, u.ignored(key)
}

// ignored says what of a change a key does not show that was changed. A date that was to
// be unset is known to stay, with no word of it.
func (u Update) ignored(key vault.Key) error {
	var not []string
	if u.Enabled != nil && *u.Enabled != key.Enabled {
		not = append(not, fmt.Sprintf("Enabled is %v", key.Enabled))
	}
	date := func(name string, want *time.Time, have time.Time) {
		if want == nil || want.IsZero() && have.IsZero() || !want.IsZero() && have.Equal(want.Truncate(time.Second)) {
			return
		}
		if have.IsZero() {
			not = append(not, name+" is not set")
		} else {
			not = append(not, name+" is "+rfc3339(have))
		}
	}
	date("NotBefore", u.NotBefore, key.NotBefore)
	date("Expires", u.Expires, key.Expires)
	if u.Operations != nil && !sameOperations(u.Operations, key.Operations) {
		not = append(not, fmt.Sprintf("Operations are %v", key.Operations))
	}
	if not == nil {
		return nil
	}
	return refuse(OpUpdate, key.ID, ErrIgnored, "%s, as before; make a new version that is as it should be, and use that", strings.Join(not, ", "))
}

// sameOperations compares what two lists permit. Every key permits get.
func sameOperations(x, y []vault.Operation) bool {
	sorted := func(ops []vault.Operation) []vault.Operation {
		ops = slices.DeleteFunc(slices.Clone(ops), func(op vault.Operation) bool { return op == vault.OpGet })
		slices.Sort(ops)
		return slices.Compact(ops)
	}
	return slices.Equal(sorted(x), sorted(y))
}

// dateOrNull returns nil for no change, JSON's null for a date to unset, or the date.
func dateOrNull(t *time.Time) *time.Time {
	if t == nil {
		return nil
	}
	if t.IsZero() {
		return azcore.NullValue[*time.Time]()
	}
	return dateOrNil(*t)
}

// GetKey returns a version's properties, or those of the current version.
func (a *Admin) GetKey(ctx context.Context, id vault.KeyID) (vault.Key, error) {
	id, err := a.own(vault.OpGet, id)
	if err != nil {
		return vault.Key{}, err
	}
	return a.key(ctx, vault.OpGet, id, func(ctx context.Context) (azkeys.KeyBundle, error) {
		resp, err := a.keys.GetKey(ctx, id.Name, id.Version, nil)
		return resp.KeyBundle, err
	})
}

// jsonWebKey returns a private key as Key Vault takes it. What it points to is a copy;
// see clearJWK.
func jsonWebKey(private *rsa.PrivateKey, o KeyOptions) *azkeys.JSONWebKey {
	key := &rsa.PrivateKey{PublicKey: private.PublicKey, D: private.D, Primes: private.Primes}
	key.Precompute()
	return &azkeys.JSONWebKey{
		Kty: o.keyType(), KeyOps: o.operations(),
		N: key.N.Bytes(), E: bigEndian(key.E), D: key.D.Bytes(),
		P: key.Primes[0].Bytes(), Q: key.Primes[1].Bytes(),
		DP: key.Precomputed.Dp.Bytes(), DQ: key.Precomputed.Dq.Bytes(), QI: key.Precomputed.Qinv.Bytes(),
	}
}

func bigEndian(e int) []byte {
	var b []byte
	for ; e > 0; e >>= 8 {
		b = append(b, byte(e))
	}
	slices.Reverse(b)
	return b
}

func clearJWK(k *azkeys.JSONWebKey) {
	for _, b := range [][]byte{k.D, k.P, k.Q, k.DP, k.DQ, k.QI} {
		clear(b)
	}
}
