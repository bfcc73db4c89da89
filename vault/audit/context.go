package audit

import "context"

type contextKey int

const (
	identityKey contextKey = iota
	storeKey
	requestKey
	noteKey
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
// vault names the request. It is for what is beneath [New]'s vault, such as an
// HTTP client's policy that sees the answer's x-ms-request-id; the last note
// stays. Without a note the record has the request id of the vault's error, if
// there is one. Outside an operation it does nothing.
func NoteRequestID(ctx context.Context, id string) {
	if n, ok := ctx.Value(noteKey).(*note); ok {
		n.set(id)
	}
}

// value returns the string that the context carries, or else.
func value(ctx context.Context, key contextKey, otherwise string) string {
	if s, ok := ctx.Value(key).(string); ok {
		return s
	}
	return otherwise
}
