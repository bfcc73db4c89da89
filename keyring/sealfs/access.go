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

// acquire returns a hold of the keyring. The caller releases it before anything that waits, a disk
// apart.
func (f *FS) acquire() (keyring.Hold, error) {
	if f.stopped.Err() != nil {
		return keyring.Hold{}, context.Cause(f.stopped)
	}
	return f.ring.Acquire()
}

// retry calls a step of a write until it ends otherwise than for want of access, as
// Options.NoAccess says. The step leaves everything as it was when it returns such an error.
func (f *FS) retry(step func() error) error {
	for {
		err := step()
		if err == nil || !f.waitsFor(err) {
			return err
		}
		if f.ring.For(inner.Block{}).Sleep(f.stopped, lookAgain) != nil {
			if f.stopped.Err() != nil {
				return context.Cause(f.stopped)
			}
			return step() // the keyring was closed, and says so
		}
	}
}

func (f *FS) waitsFor(err error) bool {
	if !errors.Is(err, keyring.ErrInaccessible) || errors.Is(err, keyring.ErrClosed) {
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

// noAccess reports whether an error is want of access, whatever the reason.
func noAccess(err error) bool {
	return errors.Is(err, keyring.ErrInaccessible) || errors.Is(err, keyring.ErrClosed) || errors.Is(err, ErrStopped)
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
