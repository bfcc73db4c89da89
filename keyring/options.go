package keyring

import (
	"fmt"
	"log/slog"
	"time"

	"github.com/blockseal/blockseal/internal/inner"
	"github.com/blockseal/blockseal/kek"
	"github.com/blockseal/blockseal/vault"
)

// Defaults and bounds of [Options].
const (
	DefaultLease        = 10 * time.Minute
	DefaultCheckEvery   = time.Minute
	DefaultVaultTimeout = 10 * time.Second
	DefaultEpochMaxDEKs = 1 << 28
	DefaultEpochMaxAge  = 90 * 24 * time.Hour
	DefaultDEKCache     = 1024

	// MaxLease is the longest lease without Options.AllowLongLease: what a
	// customer is promised when they take a key away.
	MaxLease = 10 * time.Minute

	// MaxEpochDEKs bounds Options.EpochMaxDEKs. An epoch key wraps each DEK with
	// AES-GCM and a random 96-bit nonce, for which NIST SP 800-38D, section 8.3,
	// allows 2^32 invocations a key; at 2^30 the chance of a repeated nonce is
	// below 2^-37.
	MaxEpochDEKs = 1 << 30
)

// Wrapping says how the DEKs of new blocks are wrapped. Records of both kinds
// can be read in one store.
type Wrapping uint8

const (
	// ByKeyring wraps each DEK with the epoch key: no vault call per block.
	ByKeyring Wrapping = iota + 1
	// ByKEK sends each DEK to the vault too: one wrap per write and one unwrap
	// per cold read, for few, large or individually audited blocks.
	ByKEK
)

// String returns "ByKeyring" or "ByKEK".
func (w Wrapping) String() string {
	switch w {
	case ByKeyring:
		return "ByKeyring"
	case ByKEK:
		return "ByKEK"
	}
	return fmt.Sprintf("Wrapping(%d)", uint8(w))
}

// Options configure a keyring. A nil *Options, and each zero field, means the
// default that the field states.
type Options struct {
	// Wrapping of new DEKs. Default: what the document says, ByKeyring for a new one.
	Wrapping Wrapping

	// Lease is how long after a successful unwrap the keys may be used without
	// another. Default and, without AllowLongLease, most: 10 minutes.
	Lease time.Duration
	// AllowLongLease permits a Lease beyond [MaxLease]. The promise that a key
	// taken away closes the store within ten minutes then no longer holds when
	// the vault does not answer.
	AllowLongLease bool
	// CheckEvery is the time between checks, each up to a tenth earlier so that
	// many stores do not call at once. Default: 1 minute, at most Lease/2.
	CheckEvery time.Duration
	// VaultTimeout bounds each call to the vault and, of a keyring that is open, each look at the
	// storage, each change that is saved there, with the wait for its turn, and each call of Admit for
	// a document that another keyring has saved. Default: 10 seconds.
	VaultTimeout time.Duration

	// EpochMaxDEKs is how many DEKs an epoch key wraps before a new epoch
	// begins. It is kept in the document. Default: what the document says, 2^28
	// for a new one; at most [MaxEpochDEKs]. Near MaxEpochs epochs no more begin by
	// themselves, and the current one goes on to MaxEpochDEKs.
	EpochMaxDEKs uint64
	// MaxEpochs is how many epochs there may be, each 52 bytes of the document. Default
	// and most: [MaxEpochs]; at least 2.
	MaxEpochs int
	// EpochMaxAge is how old an epoch gets before a new one begins; negative is
	// for ever. It is kept in the document. Default: what the document says, 90
	// days for a new one.
	EpochMaxAge time.Duration
	// RekeyAfter is the age at which a DEK is replaced, by the database on top: a
	// store gives its block a fresh one in the background. While it is set, epochs
	// begin at least four times in it, because the age of a DEK is known by its
	// epoch. Negative is never. It is kept in the document, in whole seconds.
	// Default: what the document says, never for a new one.
	RekeyAfter time.Duration

	// OtherKEKs are KEKs that the keyring was moved away from, for DEKs that are
	// still wrapped by them (ByKEK), and those that another keyring on the same document
	// may move it to: it follows there, and locks at the end of its lease if the document
	// is moved to a KEK that it was not given. Those that it is moved away from while it is
	// open it knows. Keys of one name are told apart by the vaults in their ids, where
	// those are given. Default: none.
	OtherKEKs []*kek.KEK

	// DEKCache is how many DEKs that were opened by the vault (ByKEK) stay in
	// memory, at most as long as the lease. Default: 1,024; negative: none.
	DEKCache int

	// RequireAccess makes Open fail if the vault refuses or does not answer,
	// instead of returning a locked keyring.
	RequireAccess bool
	// ManualRevalidation keeps a locked keyring locked until Revalidate.
	// Default: checks go on, and the keyring comes back by itself.
	ManualRevalidation bool
	// ReadOnly refuses every change, to the document and of new DEKs. What others change it
	// takes up.
	ReadOnly bool
	// PinVersion keeps a KEK that was given without a version on the version it
	// has. Default: a newer version that a check finds is taken up.
	PinVersion bool
	// Anchor, if not nil, keeps outside of the keyring's disk what is the least
	// acceptable: Open and Create refuse what is older, or another keyring. It is
	// advanced with each change of the document, and by [Keyring.Advance]. Open fails
	// if it does not answer; afterwards an outage stops nothing, and is an event and in
	// the [State]. A read-only keyring checks it and does not advance it. Default: none.
	Anchor Anchor

	// Clock is for tests. Default: the system's.
	Clock vault.Clock
	// Logger receives every event. Default: none.
	Logger *slog.Logger
	// OnEvent receives every event, one at a time and in order, on a goroutine of
	// the keyring's. A slow OnEvent never slows the keyring; see [State].
	OnEvent func(Event)

	block inner.Options // what a store sets; see For
}

// withDefaults returns a copy of o, which may be nil, with the defaults filled in
// that do not depend on the document.
func (o *Options) withDefaults() (Options, error) {
	var c Options
	if o != nil {
		c = *o
	}
	def := func(d *time.Duration, v time.Duration) {
		if *d == 0 {
			*d = v
		}
	}
	def(&c.Lease, DefaultLease)
	def(&c.CheckEvery, min(DefaultCheckEvery, c.Lease/2))
	def(&c.VaultTimeout, DefaultVaultTimeout)
	if c.DEKCache == 0 {
		c.DEKCache = DefaultDEKCache
	}
	if c.MaxEpochs == 0 {
		c.MaxEpochs = MaxEpochs
	}
	switch several := c.For(inner.Block{}).Clock; {
	case c.Clock != nil:
		c.Clock = wallClock{c.Clock}
	case several != nil:
		c.Clock = several.Or(func() inner.Time { return newSystemClock() })
	default:
		c.Clock = newSystemClock()
	}
	switch {
	case c.Wrapping > ByKEK:
		return c, fmt.Errorf("keyring: options: unknown %v", c.Wrapping)
	case c.Lease < 0 || c.CheckEvery < 0 || c.VaultTimeout < 0:
		return c, fmt.Errorf("keyring: options: Lease, CheckEvery and VaultTimeout must not be negative")
	case c.Lease > MaxLease && !c.AllowLongLease:
		return c, fmt.Errorf("keyring: options: Lease %v is longer than %v; set AllowLongLease to mean it", c.Lease, MaxLease)
	case c.CheckEvery > c.Lease/2:
		return c, fmt.Errorf("keyring: options: CheckEvery %v is longer than half the Lease %v, so that one missed check would end it", c.CheckEvery, c.Lease)
	case c.MaxEpochs < 0 || c.MaxEpochs == 1 || c.MaxEpochs > MaxEpochs:
		return c, fmt.Errorf("keyring: options: MaxEpochs %d is not from 2 to %d", c.MaxEpochs, MaxEpochs)
	case c.EpochMaxDEKs > MaxEpochDEKs:
		return c, fmt.Errorf("keyring: options: EpochMaxDEKs %d is more than %d", c.EpochMaxDEKs, MaxEpochDEKs)
	}
	return c, inner.RequireKEKs("keyring: options: OtherKEKs", c.OtherKEKs)
}
