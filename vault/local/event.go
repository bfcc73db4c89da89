package local

import (
	"context"
	"encoding/json"
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
	KeyNearExpiry  EventKind = iota + 1 // Key expires in Left
	KeyRotated                          // by its policy; Key is the new version
	RotationFailed                      // by its policy; Err says why. The version in use stays
	KeyPurged                           // by Maintain: Key's retention was over
)

// String returns the kind's name.
func (k EventKind) String() string {
	names := [...]string{"", "KeyNearExpiry", "KeyRotated", "RotationFailed", "KeyPurged"}
	if k == 0 || int(k) >= len(names) {
		return fmt.Sprintf("EventKind(%d)", uint8(k))
	}
	return names[k]
}

// Event is something that the vault did, or noticed, by itself. Fields that a kind
// does not mention are zero. It carries no key material.
type Event struct {
	Kind EventKind     `json:"kind"`
	Time time.Time     `json:"time"`
	Key  vault.KeyID   `json:"key,omitzero"`
	Left time.Duration `json:"left,omitzero"`
	Err  error         `json:"error"`
}

// MarshalText is String, so that an encoder writes the name.
func (k EventKind) MarshalText() ([]byte, error) { return []byte(k.String()), nil }

// MarshalJSON writes kind and key as text, what is left in nanoseconds, and the error's text.
func (e Event) MarshalJSON() ([]byte, error) {
	type plain Event
	out := struct {
		plain
		Err string `json:"error,omitempty"`
	}{plain: plain(e)}
	if e.Err != nil {
		out.Err = e.Err.Error()
	}
	return json.Marshal(out)
}

func (e Event) level() slog.Level {
	if e.Kind == KeyNearExpiry || e.Kind == RotationFailed {
		return slog.LevelWarn
	}
	return slog.LevelInfo
}

// attrs are the event's attributes in the log. Their names are stable.
func (e Event) attrs() []slog.Attr {
	a := []slog.Attr{slog.String("key", e.Key.String())}
	if e.Left != 0 {
		a = append(a, slog.Duration("left", e.Left))
	}
	if e.Err != nil {
		a = append(a, slog.String("error", e.Err.Error()))
	}
	return a
}

func (c *core) emit(e Event) {
	e.Time = c.now()
	if l := c.opts.Logger; l != nil {
		l.LogAttrs(context.Background(), e.level(), "blockseal vault: "+e.Kind.String(), e.attrs()...)
	}
	if c.opts.OnEvent != nil {
		c.opts.OnEvent(e)
	}
}

// notices remembers which versions' expiry this handle has given notice of, and how
// near it was then.
type notices struct {
	mu    sync.Mutex
	given map[noticeKey]time.Duration
}

// noticeKey has the expiry in it: a version that is given another one is noticed again.
type noticeKey struct {
	version string
	expires int64
}

// due reports whether a notice is to be given now, and remembers it. Within the
// policy's time there is one at once, then one each at 7 days and at 1 day.
func (n *notices) due(v *version, within, left time.Duration) bool {
	const day = 24 * time.Hour
	mark := within
	for _, m := range []time.Duration{7 * day, day} {
		if left <= m && m < mark {
			mark = m
		}
	}
	if left > mark {
		return false
	}
	n.mu.Lock()
	defer n.mu.Unlock()
	k := noticeKey{v.ID, v.Expires}
	if last, ok := n.given[k]; ok && last <= mark {
		return false
	}
	if n.given == nil {
		n.given = make(map[noticeKey]time.Duration)
	}
	n.given[k] = mark
	return true
}
