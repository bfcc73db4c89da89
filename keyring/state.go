package keyring

import (
	"fmt"
	"time"

	"github.com/blockseal/blockseal/vault"
)

// Status says whether the keys may be used.
//
//	check succeeds                      Available     the lease runs from that unwrap
//	vault does not answer               Degraded      serves until the lease ends
//	vault says no, wrong key material   Inaccessible  at once
//	the key's expiry passes             Inaccessible  at that moment
//	the lease ends                      Inaccessible
type Status uint8

// The statuses. The zero Status is none of them.
const (
	Available Status = iota + 1
	Degraded
	Inaccessible
	Closed
)

// String returns the status's name.
func (s Status) String() string {
	switch s {
	case Available:
		return "Available"
	case Degraded:
		return "Degraded"
	case Inaccessible:
		return "Inaccessible"
	case Closed:
		return "Closed"
	}
	return fmt.Sprintf("Status(%d)", uint8(s))
}

// State is a keyring's access at one moment.
type State struct {
	Status Status `json:"status"`
	// Cause is why the status is not Available: the last refusal or failure of
	// the vault, or the end of the lease. A refusal that locked the keyring stays the
	// cause until the vault says another, or yes; that it does not answer meanwhile is
	// in LastCheckErr. Nil when Available.
	Cause error `json:"cause"`
	// Since is when the status began.
	Since time.Time `json:"since,omitzero"`
	// LastSuccess is when the unwrap that last renewed the lease was sent; zero
	// if none succeeded yet.
	LastSuccess time.Time `json:"lastSuccess,omitzero"`
	// LeaseEnd is when the keys become unusable unless an unwrap succeeds before:
	// the end of the lease or the key's own expiry. Zero when not in use.
	LeaseEnd time.Time `json:"leaseEnd,omitzero"`
	// LastCheck is when the last check ended, and LastCheckErr how.
	LastCheck    time.Time `json:"lastCheck,omitzero"`
	LastCheckErr error     `json:"lastCheckError"`
	// NextCheck is when the next check starts by itself, at the latest. Zero if none does:
	// the keyring waits for Revalidate (ManualRevalidation, or a copy of a store), or is closed.
	NextCheck time.Time `json:"nextCheck,omitzero"`

	// KEK is the key version that wraps the keyring, and KEKExpires its expiry as the
	// vault last said, which may be past; zero if it has none, or if the vault has not
	// said since the keyring was opened, which KEKKnown tells.
	KEK        vault.KeyID `json:"kek"`
	KEKExpires time.Time   `json:"kekExpires,omitzero"`
	KEKKnown   bool        `json:"kekKnown"`
	// Epoch is the current epoch and Epochs how many there are; zero when locked.
	Epoch  uint32 `json:"epoch"`
	Epochs int    `json:"epochs"`
	// Generation of the document.
	Generation uint64 `json:"generation"`
	// Anchor is what Options.Anchor is known to hold, and AnchorErr why the last attempt
	// to advance it failed; nil if it did not.
	Anchor    Point `json:"anchor"`
	AnchorErr error `json:"anchorError"`
	// DroppedEvents counts the events that were lost because OnEvent and the
	// logger did not keep up.
	DroppedEvents uint64 `json:"droppedEvents"`
}

// String returns the status with its cause and times on one line.
func (s State) String() string {
	out := fmt.Sprintf("%v since %s", s.Status, s.Since.UTC().Format(time.RFC3339))
	if s.Cause != nil {
		out += ": " + s.Cause.Error()
	}
	return out
}

// State returns the keyring's state. It is cheap, and waits for neither vault nor storage.
func (r *Keyring) State() State {
	r.mu.Lock()
	defer r.mu.Unlock()
	st := r.state
	st.KEK, st.Generation = r.kekID, r.generation
	kek := r.seenOfKEK()
	st.KEKExpires, st.KEKKnown = kek.expires, kek.known
	st.Anchor, st.AnchorErr = r.anchoring.at, r.anchoring.err
	st.DroppedEvents = r.events.dropped()
	st.NextCheck = r.nextDue()
	s := r.session.Load()
	if s == nil {
		return st
	}
	// A lock may be taking the session apart at this moment.
	if set := s.epochs.Load(); set != nil {
		st.Epoch, st.Epochs = set.current.id, len(set.all)
		st.LeaseEnd = r.wallAt(time.Duration(s.deadline.Load()))
	}
	return st
}
