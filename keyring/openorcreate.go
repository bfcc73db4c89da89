package keyring

import (
	"context"
	"errors"

	"github.com/blockseal/blockseal/kek"
)

// OpenOrCreate is [Open], or [Create] if s has no document: the one call for the first start
// of a program and for every other. Options and errors are those of the two; a document that
// there is but does not open is an error, and nothing is made over it.
//
// Of any number of processes that call it at once, one makes the document and all open that one,
// so that no DEK is wrapped by a keyring that is gone the next moment.
func OpenOrCreate(ctx context.Context, s Storage, k *kek.KEK, opts *Options) (*Keyring, error) {
	r, err := Open(ctx, s, k, opts)
	if !errors.Is(err, ErrNoDocument) || opts != nil && opts.ReadOnly {
		return r, err
	}
	r, createErr := Create(ctx, s, k, opts)
	if !errors.Is(createErr, ErrExists) && !errors.Is(createErr, ErrUnexpected) {
		return r, createErr
	}
	// Somebody else has made it since, and may have told the anchor, too.
	r, err = Open(ctx, s, k, opts)
	if errors.Is(err, ErrNoDocument) {
		return nil, createErr
	}
	return r, err
}
