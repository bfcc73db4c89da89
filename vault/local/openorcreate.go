package local

import (
	"errors"
	"io/fs"
)

// OpenOrCreate is [Open], or [Create] if dir does not exist or is empty: the one call for a
// program that keeps its own vault, at its first start and at every other. Of opts, those
// fields that are properties of the vault count where it is made.
//
// Of any number of processes that call it at once, one makes the vault, and the others wait
// for that ([Options.LockWait]) and open it. A wrong passphrase opens nothing and makes
// nothing. A path that is mistyped makes a vault, of which Info's Created tells; a
// program whose vault must be there uses Open.
func OpenOrCreate(dir string, passphrase []byte, opts *Options) (*Vault, error) {
	v, err := Open(dir, passphrase, opts)
	if !errors.Is(err, fs.ErrNotExist) {
		return v, err
	}
	v, createErr := Create(dir, passphrase, opts)
	if !errors.Is(createErr, ErrExists) {
		return v, createErr
	}
	// Either somebody else has made a vault since, or the directory is of something else,
	// about which Create has said more.
	v, err = Open(dir, passphrase, opts)
	if errors.Is(err, fs.ErrNotExist) {
		return nil, createErr
	}
	return v, err
}
