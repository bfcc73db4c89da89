package keyring

import (
	"errors"
	"fmt"
	"time"
)

// The errors of a keyring, beside those of package vault, which stay findable
// beneath them. Match with [errors.Is].
var (
	// ErrInaccessible says that the keyring is locked: the vault said no, or the
	// lease ended. It wraps the cause.
	ErrInaccessible = errors.New("inaccessible")
	// ErrClosed says that the keyring was closed.
	ErrClosed = errors.New("closed")
	// ErrCorrupt says that a document or a wrapped DEK is damaged, was made for
	// another store or another block, or was forged. All damage matches it.
	ErrCorrupt = errors.New("corrupt")
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

// Reasons for being locked that do not come from the vault.
var (
	errLeaseEnded = errors.New("the lease ended: no unwrap succeeded in time")
	errUnchecked  = errors.New("the vault has not been asked yet")
	errCopy       = errors.New("a copy of a store stays locked until Revalidate succeeds")
)
