package local

import (
	"errors"

	"github.com/blockseal/blockseal/internal/keyfile"
)

// What goes wrong with a vault's directory or with what a caller gives. Match
// with [errors.Is]. Refusals that have to do with a key are those of package
// vault, which every error of a key operation also is: a [vault.Error].
//
// When a vault that is open can no longer be read, operations answer with
// [vault.ErrUnavailable] together with one of these: nothing is known about the
// key then, and that is no denial.
var (
	// ErrExists says that there is already something in the directory in which a vault
	// was to be made: a vault, or files of somebody else. Of keys, see [vault.ErrKeyExists].
	ErrExists = errors.New("exists already")

	// ErrNotVault says that the directory holds no vault.
	ErrNotVault = errors.New("not a vault")

	// ErrWrongPassphrase says that the passphrase does not open the vault, or that an
	// open vault's passphrase was changed by another handle ([Vault.Unlock]). A file
	// that was edited with care, so that its checksum is right again, looks the same.
	ErrWrongPassphrase = errors.New("wrong passphrase")

	// ErrWeakKDF says that a passphrase KDF costs less to try than the floor that [KDF]
	// states.
	ErrWeakKDF = errors.New("passphrase KDF below the floor")

	// ErrCorrupt says that a file is truncated, damaged or edited.
	ErrCorrupt = keyfile.ErrCorrupt

	// ErrVersion says that a file has a format that this release does not read.
	ErrVersion = errors.New("unknown format version")

	// ErrLocked says that another process was changing the vault for longer than
	// [Options.LockWait].
	ErrLocked = errors.New("locked by another process")

	// ErrRolledBack says that the vault's file is older than what this handle has
	// read before, or goes back to such a one. Open the vault again if that is meant.
	ErrRolledBack = errors.New("rolled back to an older state")

	// ErrClosed says that the vault was closed.
	ErrClosed = errors.New("vault closed")

	// ErrInvalid says that an argument cannot be right; the text says which.
	ErrInvalid = keyfile.ErrInvalid

	// ErrWrongPassword says that a file to import is encrypted, and the password is
	// missing or wrong.
	ErrWrongPassword = keyfile.ErrWrongPassword

	// ErrBackupSecret says that a backup was made under another backup secret than
	// the vault's.
	ErrBackupSecret = errors.New("another backup secret")

	// ErrFIPS says that something is not possible under GODEBUG=fips140=only.
	ErrFIPS = keyfile.ErrFIPS
)

// The codes of Key Vault for the same refusals (vault.Error's Code), so that what acts
// on them, such as an alert, can be rehearsed.
const (
	codeNotFound     = "KeyNotFound"
	codeDeleted      = "ObjectIsDeletedButRecoverable"
	codeDisabled     = "Forbidden/KeyDisabled"
	codeForbidden    = "Forbidden" // out of its dates; purge protection
	codeOperation    = "KeyOperationForbidden"
	codeAccessDenied = "Forbidden/AccessDenied"
	codeBadParameter = "BadParameter"
)
