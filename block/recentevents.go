package block

import (
	"encoding/json"
	"slices"
	"sync"
	"time"

	"github.com/blockseal/blockseal/keyring"
	"github.com/blockseal/blockseal/vault"
)

// recentEvents is the number of events that a store keeps for people who look at it.
const recentEvents = 64

// RecentEvent is an event that the store remembers. Consecutive checks with the same result are one
// RecentEvent.
type RecentEvent struct {
	keyring.Event           // the latest of them
	First         time.Time `json:"first,omitzero"` // when the first was
	Times         int       `json:"times"`          // how many there were, 1 or more
}

// recent is a ring of the latest events. It is safe for concurrent use.
type recent struct {
	mu   sync.Mutex
	ring [recentEvents]RecentEvent
	n    int // number of events ever added; the latest is at n-1
}

func (r *recent) add(e keyring.Event) {
	r.mu.Lock()
	defer r.mu.Unlock()
	if r.n > 0 {
		if last := &r.ring[(r.n-1)%recentEvents]; sameCheck(last.Event, e) {
			last.Event = e
			last.Times++
			return
		}
	}
	r.ring[r.n%recentEvents] = RecentEvent{Event: e, First: e.Time, Times: 1}
	r.n++
}

// sameCheck reports whether two events are checks with the same result.
func sameCheck(a, b keyring.Event) bool {
	if a.Kind != b.Kind || a.Key != b.Key || (a.Kind != keyring.CheckSucceeded && a.Kind != keyring.CheckFailed) {
		return false
	}
	return sameReason(a.Err, b.Err)
}

// sameReason reports whether two errors say the same to people.
func sameReason(a, b error) bool {
	if a == nil || b == nil {
		return a == b
	}
	// The texts differ where they name the request, as Key Vault's do.
	kind := vault.Kind(a)
	return a.Error() == b.Error() || kind != nil && kind == vault.Kind(b)
}

// events returns the events in the ring, the latest first.
func (r *recent) events() []RecentEvent {
	r.mu.Lock()
	defer r.mu.Unlock()
	var out []RecentEvent
	for i := max(0, r.n-recentEvents); i < r.n; i++ {
		out = append(out, r.ring[i%recentEvents])
	}
	slices.Reverse(out)
	return out
}

// RecentEvents returns the latest events, at most 64, the latest first. It is for people who look
// at a store; a program sets Options.Keyring.OnEvent.
func (s *Store) RecentEvents() []RecentEvent { return s.recent.events() }

// MarshalJSON implements [json.Marshaler].
func (e RecentEvent) MarshalJSON() ([]byte, error) {
	type plain keyring.Event // without its MarshalJSON
	return json.Marshal(struct {
		plain
		Err   string    `json:"error,omitempty"`
		First time.Time `json:"first"`
		Times int       `json:"times"`
	}{plain(e.Event), errorText(e.Err), e.First, e.Times})
}
