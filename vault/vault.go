// Package vault is the border between blockseal and whatever holds the key
// encryption keys (KEKs): the interface a vault implements, the identity and
// properties of a key, and the errors a vault answers with. It holds nothing
// else and imports nothing of blockseal.
//
// To use a vault, take one that exists: vault/local (a directory on this
// machine) or vault/azure (Azure Key Vault and Managed HSM). To write one,
// implement [Vault], return the errors of this package, and run the suite of
// vault/vaulttest against it, and its suite for administrators if the vault is one that
// can make and change keys. docs/write-a-vault.md goes through one.
package vault

import (
	"context"
	"crypto/rsa"
	"slices"
	"time"
)

// MaxSecret is the largest secret, in bytes, that [Vault.WrapKey] takes.
//
// RSA-OAEP with SHA-256 under a 2048-bit modulus carries 256 - 2*32 - 2 = 190
// bytes (RFC 8017, section 7.1.1).
const MaxSecret = 190

// WrappedSize is the size in bytes of a secret wrapped under an RSA-2048 key.
const WrappedSize = 256

// Vault holds RSA-2048 keys and does three things with them. The private half
// never leaves it.
//
// RSA-OAEP with SHA-256 for both the hash and MGF1, and an empty label, is the
// only algorithm (RFC 8017, section 7.1; Key Vault calls it RSA-OAEP-256). An
// RSA wrap is not authenticated: anyone with the public key can make one. What
// blockseal needs authenticated, it authenticates above this interface.
//
// Implementations are safe for concurrent use, honour cancellation of ctx, and
// keep no reference to secret or to a returned slice. Their errors match the
// sentinels of this package with [errors.Is].
//
// What the caller got wrong is an error of no [Kind], neither [Denied] nor [Transient]: a
// secret of 0 bytes or more than [MaxSecret], an UnwrapKey without a version. It closes no
// store, and is not worth another try.
//
// An id that [KeyID.Validate] refuses is such a mistake, or [ErrKeyNotFound]; no vault tidies
// it up. Names and versions become parts of paths, queries and logs, and "../kek", a NUL, a
// look-alike of another script or 300 bytes must lead to no key and show in the error as what
// they are (KeyID.String quotes them). A version is the vault's own: 1 to [MaxVersionLen]
// characters of 0-9, a-z, A-Z and "-", such as 32 hexadecimal digits or "v1". Nothing is
// read out of it, and none is newer than another for how it is written: [Key].Created says so.
//
// A denial ends access at once. Where a service refuses now and then what it permits in
// the next second, the implementation asks again before it says so, within the time of
// the call, as vault/azure does.
type Vault interface {
	// GetKey returns the properties of a key version, or of the current version
	// if id.Version is empty. The returned Key.ID is complete: vault, name and
	// version. A key that is disabled or out of its dates is still returned,
	// with the properties that say so.
	GetKey(ctx context.Context, id KeyID) (Key, error)

	// WrapKey encrypts secret, 1 to [MaxSecret] bytes, to a key version, or to the
	// current version if id.Version is empty. It refuses a key that is disabled
	// or outside its dates. The returned Wrapped.KeyID is complete; store it,
	// because unwrapping with "the current version" fails after a rotation.
	WrapKey(ctx context.Context, id KeyID, secret []byte) (Wrapped, error)

	// UnwrapKey decrypts what WrapKey returned. w.KeyID.Version must be set.
	// Like Key Vault, a vault may unwrap with a key that is outside its dates,
	// so success does not prove that the key is in date: GetKey does.
	UnwrapKey(ctx context.Context, w Wrapped) ([]byte, error)
}

// Operation is something a key may be used for.
type Operation string

// The operations that blockseal needs of a KEK.
const (
	OpGet       Operation = "get"
	OpWrapKey   Operation = "wrapKey"
	OpUnwrapKey Operation = "unwrapKey"
)

// Key is the public side of a key version and its properties.
type Key struct {
	ID                 KeyID
	Public             *rsa.PublicKey
	Enabled            bool
	NotBefore, Expires time.Time   // zero: not set
	Operations         []Operation // what the key permits, whoever asks
	Created            time.Time   // when the version was made; zero: the vault does not say. No keyring is moved to an older version by itself
	VaultTime          time.Time   // the vault's own clock when it answered; zero: it does not say. For the text of errors, and nothing else
}

// Permits reports whether the key's own operations include op. A key that
// lists no operations permits none.
func (k Key) Permits(op Operation) bool { return slices.Contains(k.Operations, op) }

// Wrapped is a secret encrypted to one version of one key.
type Wrapped struct {
	KeyID      KeyID  `json:"keyID"`
	Ciphertext []byte `json:"ciphertext"` // [WrappedSize] bytes for RSA-2048
}
