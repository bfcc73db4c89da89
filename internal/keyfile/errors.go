package keyfile

import (
	"errors"

	"github.com/blockseal/blockseal/vault"
)

// What is the matter with a file. The packages that import keys have these values as
// their own.
var (
	// ErrInvalid says that an argument cannot be right; the text says which.
	ErrInvalid = errors.New("invalid argument")
	// ErrCorrupt says that a file is truncated, damaged or edited.
	ErrCorrupt = errors.New("truncated, damaged or edited")
	// ErrWrongPassword says that a file to import is encrypted, and the password is
	// missing or wrong.
	ErrWrongPassword = errors.New("wrong password")
	// ErrFIPS says that something is not possible under GODEBUG=fips140=only.
	ErrFIPS = errors.New("not available under GODEBUG=fips140=only")
)

// Kind returns which of what this package answers with err matches, one of the values
// above or of package vault.
func Kind(err error) error {
	for _, kind := range []error{vault.ErrUnsupportedKey, vault.ErrBadCiphertext, ErrWrongPassword, ErrCorrupt, ErrFIPS} {
		if errors.Is(err, kind) {
			return kind
		}
	}
	return ErrInvalid
}
