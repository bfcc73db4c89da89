package vaulttest

import (
	"crypto/rand"
	"crypto/rsa"
	"encoding/hex"
	"sync"
	"time"

	"github.com/blockseal/blockseal/vault"
)

// DefaultName is the name of a [Vault] whose options give none.
const DefaultName = "mem:test"

// Options configure a [Vault]. Nil is all defaults.
type Options struct {
	// Name is what the vault calls itself: the KeyID.Vault of its keys. The
	// default is [DefaultName].
	Name string

	// Clock tells whether a key is in date, and how long a [Fault.Delay] is. The default is the
	// system's clock.
	Clock vault.Clock
}

// Vault is a vault in memory: real RSA-2048 and RSA-OAEP-256, Key Vault's
// semantics, and faults on request. It implements [vault.Vault] and is safe
// for concurrent use. Every error that is the vault's answer is a
// [*vault.Error].
//
// Its semantics, where they are easy to get wrong: GetKey answers for a key that
// is disabled or out of date, with properties that say so; WrapKey refuses it;
// UnwrapKey refuses a disabled key and allows one that is out of date. A
// deleted key is ErrKeyDeleted, a purged one or a missing version
// ErrKeyNotFound, and so is a key of a vault with another name. A ciphertext of
// another version is ErrBadCiphertext. The caller's permission is looked at
// before the key.
//
// Its key pairs are public test keys. Two Vaults may use the same pairs, though
// never under one version unless a key was restored; one Vault uses each pair once.
type Vault struct {
	name  string
	clock vault.Clock

	mu      sync.Mutex // guards the rest; not held during RSA or while a fault waits
	keys    map[string]*memKey
	pool    *keyPool
	revoked map[vault.Operation]bool
	outage  error
	faults  []*activeFault
	calls   Calls
	waiting int

	unwrapped unwrapped
}

// memKey is a key: its versions, the newest last.
type memKey struct {
	versions []*memVersion
	deleted  bool
}

// memVersion is one version of a key. Its private key is replaced, never
// changed, so that an operation may go on using it without the lock.
type memVersion struct {
	id                 string // 32 hexadecimal digits
	private            *rsa.PrivateKey
	enabled            bool
	notBefore, expires time.Time
	created            time.Time
	operations         []vault.Operation
}

// New returns an empty vault whose caller may do everything.
func New(opts *Options) *Vault {
	v := &Vault{
		name:    DefaultName,
		clock:   vault.SystemClock(),
		keys:    map[string]*memKey{},
		pool:    newKeyPool(),
		revoked: map[vault.Operation]bool{},
	}
	if opts != nil && opts.Name != "" {
		v.name = opts.Name
	}
	if opts != nil && opts.Clock != nil {
		v.clock = opts.Clock
	}
	return v
}

// Name returns the vault's name for itself: the KeyID.Vault of its keys.
func (v *Vault) Name() string { return v.name }

// Calls counts the calls that reached a vault, refused and failed ones too.
type Calls struct{ Get, Wrap, Unwrap int }

// Total returns the calls of all kinds together.
func (c Calls) Total() int { return c.Get + c.Wrap + c.Unwrap }

// Calls returns the number of calls since New or ResetCalls. A call whose
// context had ended before it began did not reach the vault and is not counted.
func (v *Vault) Calls() Calls {
	v.mu.Lock()
	defer v.mu.Unlock()
	return v.calls
}

// ResetCalls sets the counts to 0.
func (v *Vault) ResetCalls() {
	v.mu.Lock()
	defer v.mu.Unlock()
	v.calls = Calls{}
}

// newVersionID returns 32 lower-case hexadecimal digits, as Key Vault does.
func newVersionID() string {
	var b [16]byte
	rand.Read(b[:])
	return hex.EncodeToString(b[:])
}
