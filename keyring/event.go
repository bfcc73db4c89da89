package keyring

import (
	"context"
	"fmt"
	"log/slog"
	"sync"
	"time"

	"github.com/blockseal/blockseal/vault"
)

// EventKind says what happened.
type EventKind uint8

// The kinds of events. The zero EventKind is none of them.
const (
	StateChanged      EventKind = iota + 1 // From and To say how, Err why
	CheckSucceeded                         // the lease was renewed
	CheckFailed                            // Err says why
	EpochStarted                           // Epoch is the new one
	EpochDropped                           // Epoch is gone; nothing it wrapped can be opened
	KEKChanged                             // Key wraps the keyring now; of a version that was picked up, Duration says how old that news may be
	KEKNotChanged                          // Key was to wrap the keyring, and Err says why it does not
	KeyNearExpiry                          // Key expires in Left; once at 30, 7 and 1 days
	CopyMade                               // Detail names the copy; with Err the store does not remember it
	CopyDue                                // Key is to wrap the copy that Detail names; told of all of them before the first is moved
	CopyKEKChanged                         // Key wraps the copy that Detail names now
	CopyKEKNotChanged                      // Key wraps the copy that Detail names still, and Err says why
	Progressed                             // Detail says what a long operation did
	AnchorNotAdvanced                      // Err says why Options.Anchor lags; once, until it is advanced again
	AnchorAdvanced                         // it is again; Detail says where it is
)

// String returns the kind's name.
func (k EventKind) String() string {
	names := [...]string{"", "StateChanged", "CheckSucceeded", "CheckFailed", "EpochStarted",
		"EpochDropped", "KEKChanged", "KEKNotChanged", "KeyNearExpiry", "CopyMade", "CopyDue", "CopyKEKChanged", "CopyKEKNotChanged", "Progressed",
		"AnchorNotAdvanced", "AnchorAdvanced"}
	if k == 0 || int(k) >= len(names) {
		return fmt.Sprintf("EventKind(%d)", uint8(k))
	}
	return names[k]
}

// Event is something that happened to a keyring. Fields that a kind does not
// mention are zero. It carries no key material.
type Event struct {
	Kind     EventKind     `json:"kind"`
	Time     time.Time     `json:"time"`
	Store    string        `json:"store"` // store id, 32 hexadecimal digits
	From     Status        `json:"from,omitzero"`
	To       Status        `json:"to,omitzero"`
	Err      error         `json:"error"`
	Key      vault.KeyID   `json:"key,omitzero"`
	Epoch    uint32        `json:"epoch,omitzero"`
	Left     time.Duration `json:"left,omitzero"`
	Duration time.Duration `json:"duration,omitzero"` // of a check; see KEKChanged
	Detail   string        `json:"detail,omitempty"`
}

// level is how loud an event is in the log.
func (e Event) level() slog.Level {
	switch {
	case e.Kind == StateChanged && e.To == Inaccessible:
		return slog.LevelError
	case e.Kind == StateChanged && e.To == Degraded, e.Kind == CheckFailed, e.Kind == KeyNearExpiry, e.Kind == KEKNotChanged, e.Kind == CopyKEKNotChanged, e.Kind == AnchorNotAdvanced,
		e.Kind == Progressed && e.Err != nil:
		return slog.LevelWarn
	case e.Kind == CheckSucceeded:
		return slog.LevelDebug
	}
	return slog.LevelInfo
}

// attrs are the event's attributes in the log. Their names are stable; see
// docs/operations.md.
func (e Event) attrs() []slog.Attr {
	a := []slog.Attr{slog.String("store", e.Store)}
	if e.To != 0 {
		a = append(a, slog.String("from", e.From.String()), slog.String("to", e.To.String()))
	}
	if e.Key != (vault.KeyID{}) {
		a = append(a, slog.String("key", e.Key.String()))
	}
	if e.Epoch != 0 {
		a = append(a, slog.Uint64("epoch", uint64(e.Epoch)))
	}
	if e.Left != 0 {
		a = append(a, slog.Duration("left", e.Left))
	}
	if e.Duration != 0 {
		a = append(a, slog.Duration("duration", e.Duration))
	}
	if e.Detail != "" {
		a = append(a, slog.String("detail", e.Detail))
	}
	if e.Err != nil {
		a = append(a, slog.String("error", e.Err.Error()))
	}
	return a
}

// eventQueue is how many events wait for a slow OnEvent before the newest are
// dropped and counted. A day of checks is 1,440.
const eventQueue = 1024

// events hands events to the logger and to OnEvent, in order, on a goroutine of
// its own that lives while there are events to hand out.
type events struct {
	logger  *slog.Logger
	onEvent func(Event)

	mu      sync.Mutex
	queue   []Event
	running bool
	lost    uint64
}

// send queues an event. It never waits.
func (q *events) send(e Event) {
	if q.logger == nil && q.onEvent == nil {
		return
	}
	q.mu.Lock()
	defer q.mu.Unlock()
	if len(q.queue) >= eventQueue {
		q.lost++
		return
	}
	q.queue = append(q.queue, e)
	if !q.running {
		q.running = true
		go q.deliver()
	}
}

func (q *events) deliver() {
	for {
		q.mu.Lock()
		batch := q.queue
		q.queue = nil
		if len(batch) == 0 {
			q.running = false
			q.mu.Unlock()
			return
		}
		q.mu.Unlock()
		for _, e := range batch {
			if q.logger != nil {
				q.logger.LogAttrs(context.Background(), e.level(), "blockseal: "+e.Kind.String(), e.attrs()...)
			}
			if q.onEvent != nil {
				q.onEvent(e)
			}
		}
	}
}

func (q *events) dropped() uint64 {
	q.mu.Lock()
	defer q.mu.Unlock()
	return q.lost
}

// emit fills in the time and the store and queues the event.
func (r *Keyring) emit(e Event) {
	e.Time = r.clock.Now()
	e.Store = r.StoreID().String()
	r.events.send(e)
}

// Emit adds an event to the keyring's stream, for a database on top of it that
// has something to report in order with the keyring's own. Time and Store are
// filled in.
func (f *forBlock) Emit(e Event) {
	r := (*Keyring)(f)
	r.emit(e)
}
