package main

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"

	"github.com/blockseal/blockseal/block"
	"github.com/blockseal/blockseal/keyring"
	"github.com/blockseal/blockseal/vault"
	"github.com/blockseal/blockseal/vault/audit"
	"github.com/blockseal/blockseal/vault/azure"
	"github.com/blockseal/blockseal/vault/local"
)

// The exit statuses. Scripts depend on them.
const (
	exitOK           = 0
	exitFailure      = 1   // anything that is not below, such as a block that is not there
	exitUsage        = 2   // the command line cannot be right; nothing was done
	exitRefused      = 3   // somebody said no: the vault, the passphrase, or this tool because a key is in use; a key that was to be made exists; the store is Inaccessible
	exitVerification = 4   // something is not what was written: damage, forgery, rollback
	exitBusy         = 5   // locked by another process, or the vault did not answer: try again
	exitInterrupted  = 130 // by a signal; what was begun can be taken up again
)

const exitHelp = `Exit statuses:
  0  done
  1  failed, for a reason that is not below
  2  the command line cannot be right; nothing was done
  3  refused: by the vault, for a wrong passphrase, because a key exists that was to be
     made, or by this tool because a key version is in use (--force); or the store is
     Inaccessible
  4  verification failed: damaged, forged, edited, cut off, or rolled back
  5  busy: locked by another process, or the vault did not answer; try again
  130  interrupted by a signal`

// usageError is a command line that cannot be right.
type usageError struct{ error }

func usagef(format string, args ...any) error { return usageError{fmt.Errorf(format, args...)} }

func (e usageError) Unwrap() error { return e.error }

// fromFlags makes an error a usageError if it says that an argument cannot be right, and
// all of those came from the command line. That a module for FIPS 140-3 does not permit
// one is another matter.
func fromFlags(err error) error {
	if errors.Is(err, local.ErrInvalid) && !errors.Is(err, local.ErrFIPS) {
		return usageError{err}
	}
	return err
}

// errHead says that the head of an audit log that was kept elsewhere is not there.
var errHead = errors.New("the log's end cannot be verified")

// errBusy is for what another process has open and no package has a sentinel for.
var errBusy = errors.New("open in another process")

// errRefused is the tool's own no.
var errRefused = errors.New("refused")

// exitStatus returns the status that err ends the process with.
func exitStatus(ctx context.Context, err error) int {
	is := func(targets ...error) bool {
		for _, t := range targets {
			if errors.Is(err, t) {
				return true
			}
		}
		return false
	}
	var usage usageError
	switch {
	case err == nil:
		return exitOK
	case errors.As(err, &usage):
		return exitUsage
	case ctx.Err() != nil && is(context.Canceled):
		return exitInterrupted
	case is(errRefused, block.ErrInaccessible, vault.ErrKeyExists):
		return exitRefused
	case is(audit.ErrCorrupt, audit.ErrTorn, audit.ErrVersion, errHead, block.ErrCorrupt, block.ErrForeign, block.ErrIncomplete, keyring.ErrUnexpected, local.ErrCorrupt, local.ErrRolledBack):
		return exitVerification
	case is(block.ErrLocked, local.ErrLocked, azure.ErrBusy, errBusy):
		return exitBusy
	case vault.Denied(err), is(local.ErrWrongPassphrase, local.ErrWrongPassword, local.ErrBackupSecret, local.ErrFIPS, keyring.ErrWrongKEK, block.ErrReadOnly):
		return exitRefused
	case is(local.ErrNotVault, local.ErrVersion, local.ErrClosed):
		return exitFailure // of a vault that was open, these come as unavailable too
	case vault.Transient(err):
		return exitBusy
	}
	return exitFailure
}

// report writes err, in one line or as JSON, and returns the exit status.
func (a *app) report(ctx context.Context, err error) int {
	status := exitStatus(ctx, err)
	if err == nil || errors.Is(err, errSilent) {
		return status
	}
	if a.json {
		json.NewEncoder(a.err).Encode(map[string]any{"error": err.Error(), "exit": status})
		return status
	}
	fmt.Fprintf(a.err, "operator: %v\n", err)
	if status == exitUsage {
		fmt.Fprintln(a.err, "operator: --help after any command explains it")
	}
	return status
}

// errSilent is for outcomes that the command's output has told already; it is
// joined with what decides the status.
var errSilent = errors.New("told already")
