package keyring

import (
	"errors"
	"fmt"
	"time"

	"github.com/blockseal/blockseal/dek"
	"github.com/blockseal/blockseal/vault"
)

// The errors of a keyring, beside those of package vault, which stay findable
// beneath them. Match with [errors.Is].
var (
	// ErrInaccessible says that the keyring is locked: the vault said no, or the
	// lease ended. It wraps the cause.
	ErrInaccessible = errors.New("inaccessible")
	// ErrLeaseEnded says that no unwrap succeeded before the end of the lease. It is the
	// cause of an ErrInaccessible, and of a [State], together with what is known of the vault.
	ErrLeaseEnded = errors.New("the lease ended")
	// ErrClosed says that the keyring was closed.
	ErrClosed = errors.New("closed")
	// ErrCorrupt says that a document or a wrapped DEK is damaged, was made for
	// another store or another block, or was forged. All damage matches it, also what a DEK
	// does not open: it is dek.ErrCorrupt.
	ErrCorrupt = dek.ErrCorrupt
	// ErrVersion says that a document or a record has a format version that this
	// release does not know.
	ErrVersion = errors.New("unknown format version")
	// ErrExists says that Create found a keyring document.
	ErrExists = errors.New("a keyring document exists already")
	// ErrNoDocument says that Open found no keyring document. A [Storage] returns
	// it from Load.
	ErrNoDocument = errors.New("no keyring document")
	// ErrWrongKEK says that a keyring was opened with a KEK other than the one
	// that wraps it.
	ErrWrongKEK = errors.New("not the KEK of this keyring")
	// ErrReadOnly says that a read-only keyring was asked for a change.
	ErrReadOnly = errors.New("read only")
	// ErrUnexpected says that the keyring, or the store on it, is not what
	// Options.Anchor holds: another store's, or older.
	ErrUnexpected = errors.New("not the expected keyring")
	// ErrMoved says that the KEK was changed while somebody looked for what it wraps.
	ErrMoved = errors.New("the KEK was changed meanwhile")
	// ErrSameKey says that a rotation would rotate nothing: the new version of the KEK has
	// the public key of the one in use.
	ErrSameKey = errors.New("the public key is the same")
	// ErrConflict says that somebody else has replaced the document since it was loaded. A
	// [Storage] returns it from Swap; from a keyring it comes only after many attempts.
	ErrConflict = errors.New("the document was replaced meanwhile")
	// ErrLimit says that a bound on epochs or on wrapped DEKs was reached.
	ErrLimit = errors.New("limit reached")
)

// lockedError is ErrInaccessible with its reason.
type lockedError struct {
	since time.Time
	cause error
}

func (e *lockedError) Error() string {
	return fmt.Sprintf("keyring: inaccessible since %s: %v", e.since.UTC().Format(time.RFC3339), e.cause)
}

func (e *lockedError) Is(target error) bool { return target == ErrInaccessible }
func (e *lockedError) Unwrap() error        { return e.cause }

func corrupt(format string, args ...any) error {
	return fmt.Errorf("keyring: %w: %w", ErrCorrupt, fmt.Errorf(format, args...))
}

// documentError is an error of the document to who asked for something of a record or a DEK: it
// matches what it is, but neither ErrCorrupt nor ErrVersion, which would be said of the record.
type documentError struct{ err error }

func (e *documentError) Error() string { return e.err.Error() }
func (e *documentError) Is(target error) bool {
	return target != ErrCorrupt && target != ErrVersion && errors.Is(e.err, target)
}
func (e *documentError) As(target any) bool { return errors.As(e.err, target) }

func ofDocument(err error) error {
	if err == nil {
		return nil
	}
	return &documentError{err}
}

// Reasons for being locked that do not come from the vault.
var (
	errUnchecked = errors.New("the vault has not been asked yet")
	errCopy      = errors.New("a copy of a store stays locked until Revalidate succeeds")
)

// leaseError is the end of a lease: why, and what is known of the vault.
type leaseError struct {
	why  string
	last error // what the last check came to; nil: it succeeded, or there was none
	word error // what the vault said before, if the last check did not hear from it
}

const (
	noUnwrap   = "no unwrap succeeded in time"
	clockAhead = "the clock moved ahead, or the machine was suspended"
)

func (e *leaseError) Error() string {
	text := fmt.Sprintf("%v: %s", ErrLeaseEnded, e.why)
	if e.last != nil {
		text += "; the last check: " + e.last.Error()
	}
	if e.word != nil {
		text += "; before that the vault said: " + e.word.Error()
	}
	return text
}

func (e *leaseError) Is(target error) bool { return target == ErrLeaseEnded }

func (e *leaseError) Unwrap() (out []error) {
	for _, err := range []error{e.last, e.word} {
		if err != nil {
			out = append(out, err)
		}
	}
	return out
}

// said reports whether an error is something that the vault said, about the key or about
// the question. Of the others one cannot tell: there was no answer, or one that somebody
// in between may have given.
func said(err error) bool { return vault.Denied(err) || errors.Is(err, vault.ErrThrottled) }

// stands reports whether a reason for being locked is a fact that somebody found, and so
// stays the reason until another is found: that the vault does not answer any more takes
// nothing back.
func stands(cause error) bool {
	return vault.Denied(cause) && !errors.Is(cause, ErrLeaseEnded) || errors.Is(cause, ErrCorrupt) || errors.Is(cause, ErrUnexpected)
}
