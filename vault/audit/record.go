package audit

import (
	"context"
	"errors"
	"strings"
	"time"
	"unicode/utf8"

	"github.com/blockseal/blockseal/vault"
)

// Event is what a record tells of.
type Event string

// The events. A [Vault] records operations; the log itself records that it was
// opened and what it lost. Other events are the program's, which may call
// [Log.Record] with what else belongs into the trail.
const (
	EventOperation Event = "operation" // a vault was asked to do something
	EventState     Event = "state"     // a store's state changed: for the program to record, from the store's own events
	EventOpened    Event = "opened"    // the log was opened, for the first time or again
	EventLost      Event = "lost"      // records were lost here: Count says how many
)

// Outcome is how an operation ended.
type Outcome string

// The outcomes, as package vault tells them apart.
const (
	OutcomeOK          Outcome = "ok"
	OutcomeDenied      Outcome = "denied"      // [vault.Denied]: the vault said no; or a [Refusal] of the program
	OutcomeUnavailable Outcome = "unavailable" // [vault.Transient]: the vault did not say
	OutcomeFailed      Outcome = "failed"      // any other error, such as a secret of a wrong size
)

// Record is one entry of the log. Which fields are set depends on Event.
//
// A string is recorded up to [MaxField] bytes, cut off with an ellipsis beyond,
// and with U+FFFD where it is not UTF-8.
type Record struct {
	Time  time.Time `json:"time"` // when the operation began; recorded in UTC, to the nanosecond. Zero is now
	Event Event     `json:"event"`

	// With EventOperation, and with others as far as they apply:
	Identity       string          `json:"identity,omitempty"`     // who asked, from the options or the context
	Store          string          `json:"store,omitempty"`        // for which store, likewise
	Operation      vault.Operation `json:"operation,omitempty"`    // what was asked
	Key            string          `json:"key,omitempty"`          // of which key: "VAULT/keys/NAME", without the version
	Version        string          `json:"version,omitempty"`      // the version that was used, if the vault said, else that was asked for
	Outcome        Outcome         `json:"outcome,omitempty"`      // how it ended
	Reason         string          `json:"reason,omitempty"`       // the kind of error, such as "key disabled"; "" with OutcomeOK
	Code           string          `json:"code,omitempty"`         // the vault's own code for it
	Detail         string          `json:"detail,omitempty"`       // what the vault said to do about it, or what is odd about its answer; of an [Action], its detail before that
	Duration       time.Duration   `json:"duration,omitempty"`     // how long the vault took, or the [Action]; recorded in nanoseconds
	RequestID      string          `json:"request,omitempty"`      // the caller's name for its request, from the context
	VaultRequestID string          `json:"vaultRequest,omitempty"` // the vault's

	// With EventLost the number of records; with EventOpened the number of bytes
	// of an unfinished record that was cut off the end, which Detail holds.
	Count uint64 `json:"count,omitempty"`
}

// MaxField is the most bytes of one string that a record holds.
const MaxField = 1024

// clean makes a string one that reads back from JSON as it was written.
func clean(s string) string {
	const ellipsis = "…"
	if len(s) > MaxField {
		cut := MaxField - len(ellipsis)
		for cut > 0 && !utf8.RuneStart(s[cut]) {
			cut--
		}
		s = s[:cut] + ellipsis
	}
	s = strings.ToValidUTF8(s, "\uFFFD")
	if len(s) > MaxField { // each invalid byte grew to three
		return clean(s)
	}
	return s
}

// reason says of an error what may be recorded. Only what package vault
// promises to be free of secrets is, and what a [Refusal] does: the text of any
// other error might hold anything.
func (r *Record) reason(err error) {
	own, refused := errors.AsType[*Refusal](err)
	switch {
	case err == nil:
		r.Outcome = OutcomeOK
		return
	case refused:
		r.Outcome, r.Reason, r.Detail = OutcomeDenied, own.Reason, own.Detail
		return
	case vault.Denied(err):
		r.Outcome = OutcomeDenied
	case vault.Transient(err):
		r.Outcome = OutcomeUnavailable
	default:
		r.Outcome = OutcomeFailed
	}
	e, ok := errors.AsType[*vault.Error](err)
	switch kind := vault.Kind(err); {
	case kind != nil:
		r.Reason = kind.Error()
	case errors.Is(err, context.DeadlineExceeded):
		r.Reason = "deadline exceeded"
	case errors.Is(err, context.Canceled):
		r.Reason = "canceled"
	case ok && e.Kind != nil: // one of the vault's own, such as that an argument is invalid
		r.Reason = e.Kind.Error()
	default:
		r.Reason = "not an error of the vault"
	}
	if ok {
		r.Code, r.Detail = e.Code, e.Detail
		if r.VaultRequestID == "" {
			r.VaultRequestID = e.RequestID
		}
	}
}
