package sealfs

import (
	"context"
	"errors"
	"fmt"
	"time"

	"github.com/blockseal/blockseal/internal/inner"
	"github.com/blockseal/blockseal/keyring"
	"github.com/blockseal/blockseal/vault"
)

// background is the context of what the keyring does for a file system, whose methods have none.
// Each call to a vault is bounded by keyring.Options.VaultTimeout.
var background = context.Background()

// lookAgain is how long a write that waits for access waits before it looks again, on the
// keyring's clock.
const lookAgain = 100 * time.Millisecond

// askAgain bounds how long a write waits before it tries again after a vault or a storage that did
// not answer. It begins with lookAgain and doubles: each try is a call to somebody who is in trouble.
const askAgain = 5 * time.Second

// keyringError is an error of the keyring's, or of its vault, or of the storage of its document. It may
// pass, and one of the file system beneath is for what is above to judge.
type keyringError struct{ err error }

func (e *keyringError) Error() string { return e.err.Error() }
func (e *keyringError) Unwrap() error { return e.err }

func ofKeyring(err error) error {
	if err == nil {
		return nil
	}
	return &keyringError{err}
}

// acquire returns a hold of the keyring. The caller releases it before anything that waits.
func (f *FS) acquire() (keyring.Hold, error) {
	if f.stopped.Err() != nil {
		return keyring.Hold{}, ofKeyring(context.Cause(f.stopped))
	}
	h, err := f.ring.Acquire()
	return h, ofKeyring(err)
}

// retry calls a step of a write until it ends otherwise than for want of access, as
// Options.NoAccess says. The step leaves everything as it was when it returns such an error.
func (f *FS) retry(step func() error) error {
	ask := lookAgain
	for {
		err := step()
		if err == nil || !f.waitsFor(err) {
			return err
		}
		wait := lookAgain
		if !errors.Is(err, keyring.ErrInaccessible) {
			wait = max(ask, vault.RetryAfter(err))
			ask = min(2*ask, askAgain)
		}
		if f.ring.For(inner.Block{}).Sleep(f.stopped, wait) != nil {
			if f.stopped.Err() != nil {
				return context.Cause(f.stopped)
			}
			return step() // the keyring was closed, and says so
		}
	}
}

func (f *FS) waitsFor(err error) bool {
	if !noAccess(err) || isOver(err) {
		return false
	}
	switch f.opts.NoAccess {
	case Wait:
		return true
	case WaitOutage:
		return !vault.Denied(err) || errors.Is(err, keyring.ErrLeaseEnded)
	}
	return false
}

// noAccess reports whether an error is want of access, whatever the reason: the keyring is inaccessible,
// closed or stopped; or it has access, and the vault or the storage of its document, which it has to ask
// for this DEK, did not answer or said no. What no waiting mends is none: a damaged record, a keyring
// that is read only or at a limit.
func noAccess(err error) bool {
	if isOver(err) || errors.Is(err, keyring.ErrInaccessible) {
		return true
	}
	if k := (*keyringError)(nil); !errors.As(err, &k) {
		return false
	}
	// Damage of the document in storage does not match: the keyring sees to that.
	for _, forGood := range []error{keyring.ErrCorrupt, keyring.ErrVersion, keyring.ErrReadOnly, keyring.ErrLimit} {
		if errors.Is(err, forGood) {
			return false
		}
	}
	return true
}

// isOver reports whether an error says that there will be no access any more.
func isOver(err error) bool {
	return errors.Is(err, keyring.ErrClosed) || errors.Is(err, ErrStopped)
}

// Stop makes every operation on files fail from now on with an error that matches [ErrStopped]
// and cause, those that wait for access first. It is the way out for a program whose database
// waits, and cannot be undone: make another FS. A Pebble whose log fails calls Logger.Fatalf,
// which ends the process unless the program's Logger does otherwise. Stop may be called again, to
// no effect; it does not close the keyring.
func (f *FS) Stop(cause error) {
	if cause == nil {
		f.stop(fmt.Errorf("sealfs: %w", ErrStopped))
		return
	}
	f.stop(fmt.Errorf("sealfs: %w: %w", ErrStopped, cause))
}
