package audit

import (
	"context"

	"github.com/blockseal/blockseal/vault"
)

type contextKey int

const (
	identityKey contextKey = iota
	storeKey
	requestKey
)

// WithIdentity returns a context whose operations are recorded as identity's,
// whatever [Options.Identity] says: for a program that acts for others.
func WithIdentity(ctx context.Context, identity string) context.Context {
	return context.WithValue(ctx, identityKey, identity)
}

// WithStore returns a context whose operations are recorded as made for a store,
// whatever [Options.Store] says. The checks that a store makes by itself do not
// have it: for them there is Options.Store.
func WithStore(ctx context.Context, store string) context.Context {
	return context.WithValue(ctx, storeKey, store)
}

// WithRequestID returns a context whose operations are recorded with the
// caller's name for the request that it serves.
func WithRequestID(ctx context.Context, id string) context.Context {
	return context.WithValue(ctx, requestKey, id)
}

// NoteRequestID tells the record of the operation that ctx belongs to how the
// vault names the request; the last note stays. It is [vault.NoteRequestID], which
// a vault's client calls, as vault/azure does for every answer. Without a note the
// record has the request id of the vault's error, if there is one. Outside an
// operation it does nothing.
func NoteRequestID(ctx context.Context, id string) { vault.NoteRequestID(ctx, id) }

// noting returns a context whose calls leave the vault's name for the request in n,
// and with whoever else asked for it.
func noting(ctx context.Context, n *note) context.Context {
	return vault.OnRequestID(ctx, func(id string) {
		n.set(id)
		vault.NoteRequestID(ctx, id)
	})
}

// value returns the string that the context carries, or else.
func value(ctx context.Context, key contextKey, otherwise string) string {
	if s, ok := ctx.Value(key).(string); ok {
		return s
	}
	return otherwise
}
