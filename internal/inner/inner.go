// Package inner is what package block has of a keyring, and no other program needs: copies of a
// store, records that are tagged, work that outlives a crash. The methods are those of
// keyring.Keyring.For, keyring.Hold.For and keyring.Options.For, which take a [Block] that nobody
// outside of this module can write down, so that they are no part of what the keyring promises.
// They guard nothing: who has a keyring has its keys.
package inner

import (
	"encoding/hex"
	"errors"
	"fmt"
	"sync"
	"sync/atomic"
	"time"

	"github.com/blockseal/blockseal/internal/spread"
)

// Block is how package block, and what it is made of, shows that it is. A type of struct{} would
// do for nobody: struct{}{} can be assigned to it, which anybody can write. Field names that are
// not exported differ from package to package.
type Block struct{ _ struct{} }

// ErrUnchanged is the error of a storage that cannot be read for a while, and that holds what its only
// keyring knows: nobody else writes it. A check goes on without a look at it.
var ErrUnchanged = errors.New("what is stored cannot be read for a while, and nobody has changed it")

// Options are a keyring's for a store, beside those that everybody has.
type Options struct {
	// AwaitRevalidate makes Open return a locked keyring without asking the
	// vault, locked until Revalidate: for copies of a store.
	AwaitRevalidate bool
	// Instance is who has the keyring, if there may be copies of it: each has another. A
	// document that is of another instance has epoch keys that somebody else has and wraps
	// with; so before anything else is changed, or any DEK wrapped, it is made this
	// instance's, with an epoch of its own; see Own. Default: none, and the
	// document is taken for the keyring's own.
	Instance InstanceID
	// Shared says that the document may have been copied since it was saved last, by
	// somebody who could not write that down: whatever is saved first says that its epochs
	// are shared, and the first DEK begins a new one; see Share. Default: nobody
	// knows of a copy but those who called Share.
	Shared bool
	// Spread has the first check after Open or Create come at a random moment of the first
	// CheckEvery, and not at its end: keyrings of one process that are opened together then
	// ask at different times from the start.
	Spread bool
	// Many says that any number of keyrings may have the document at once, so that each reserves little
	// of an epoch at first: a 64th, as one of a few reserves, would leave nothing for the 65th, which would have to
	// begin another epoch, of which all others reserve a 64th again when they take it up.
	Many bool
	// Clock, if not nil, is the system's clock of several keyrings, in the place of one for each, which
	// would be looked at by each of its operations in memory of its own. It does nothing where the caller
	// gave one. Default: none.
	Clock *Clock
	// Room, if not nil, is where the keyring counts its operations in flight: that of several keyrings which are
	// used in turns. Default: memory of its own.
	Room *spread.Room[InFlight]
	// Admit, if not nil, is called whenever a document was opened, before any key of
	// it can be used: at Open, when access comes back, and when what another keyring has
	// saved is taken up; once at a time. It may refuse: for a store that has to look at
	// something which Tag authenticates before it serves. An
	// error that matches ErrUnexpected or ErrCorrupt fails Open, and keeps an open
	// keyring locked. It must not use the keyring. Once the keyring has locked or closed meanwhile,
	// what it was given tags nothing any more: its Tag returns random bytes. Default: none.
	Admit func(Opened) error
}

// Clock is one clock, which is made by whoever asks for it first. The zero Clock is ready; it is safe for
// concurrent use.
type Clock struct {
	once  sync.Once
	clock Time
}

// Time is what a clock has: it is vault.Clock, which this package does not know.
type Time interface {
	Now() time.Time
	Elapsed() time.Duration
	AfterFunc(d time.Duration, f func()) (stop func() bool)
}

// Or returns the clock, having made it with f if there is none yet.
func (c *Clock) Or(f func() Time) Time {
	c.once.Do(func() { c.clock = f() })
	return c.clock
}

// InFlight counts operations in flight, in a cache line of its own.
type InFlight struct {
	N atomic.Int64
	// Wake, if not nil, is told of each operation that ends: its capacity is 1.
	Wake chan struct{}
	_    [6]uint64 // to the end of the cache line
}

// NewInFlight returns a Room for [Options].Room.
func NewInFlight() *spread.Room[InFlight] {
	return spread.NewRoom(func(f *InFlight) { f.N.Store(0) }) // none of them is told
}

// Opened is what [Options].Admit, and a storage that has SwapTagged, are given of a document that
// authenticated, or is about to be saved.
type Opened struct {
	Tag        func(purpose string, data []byte) [TagSize]byte // that of a hold
	Generation uint64
	Instance   InstanceID // that the document is of
	// Counts says of a document that is about to be saved that others with a keyring on it may as well
	// take it up later: it says nothing new but how many DEKs are reserved, and what work is under way.
	Counts bool
}

// InstanceID tells a keyring from its copies: 16 random bytes. The zero InstanceID names
// none.
type InstanceID [16]byte

// String returns 32 hexadecimal digits.
func (id InstanceID) String() string { return hex.EncodeToString(id[:]) }

// MarshalText implements [encoding.TextMarshaler]: 32 hexadecimal digits.
func (id InstanceID) MarshalText() ([]byte, error) { return []byte(id.String()), nil }

// UnmarshalText implements [encoding.TextUnmarshaler].
func (id *InstanceID) UnmarshalText(text []byte) error {
	if len(text) != hex.EncodedLen(len(id)) {
		return fmt.Errorf("keyring: an instance has %d hexadecimal digits, not %d characters", 2*len(id), len(text))
	}
	if _, err := hex.Decode(id[:], text); err != nil {
		return fmt.Errorf("keyring: an instance: %w", err)
	}
	return nil
}

// WorkID names one long piece of work of a database that keeps, beside its records, how
// far it has come, such as rekeying. It is random; the zero WorkID names none.
//
// The document holds the id of the work that is under way. What the database keeps names
// it too, and is worth nothing any more when the work has ended: an older copy of it,
// which is authentic (see [Tagger]), names work that the document does not.
type WorkID [16]byte

// EpochInfo is an epoch.
type EpochInfo struct {
	ID      uint32    `json:"id"`
	Created time.Time `json:"created,omitzero"` // whole seconds; what it wraps may be older, if it was rewrapped
}
