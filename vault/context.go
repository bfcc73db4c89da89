package vault

import "context"

// What a context carries from whoever calls a vault to the client that makes the
// request, through all that is between.
type contextKey int

const (
	priorityKey contextKey = iota
	requestIDKey
)

// WithPriority returns a context for calls that keep access alive: the checks of a
// store, on which its lease depends. A client that makes its callers wait for their
// turn, as vault/azure does to stay within a budget, lets these go first, because
// without them everything else is refused soon. It is for a few calls a minute: where
// all are marked, none goes first.
func WithPriority(ctx context.Context) context.Context {
	return context.WithValue(ctx, priorityKey, true)
}

// Priority reports whether ctx is one of [WithPriority], or of one of those.
func Priority(ctx context.Context) bool {
	marked, _ := ctx.Value(priorityKey).(bool)
	return marked
}

// OnRequestID returns a context whose calls tell note how the vault names each of their
// requests, as far as the vault's client calls [NoteRequestID]. It takes the place of
// one that ctx has already. note may be called concurrently, and by a client that
// answers late also after the call.
func OnRequestID(ctx context.Context, note func(id string)) context.Context {
	return context.WithValue(ctx, requestIDKey, note)
}

// NoteRequestID is for a vault's client: it tells whoever asked with [OnRequestID] how
// the vault names the request, such as an answer's x-ms-request-id, whether the answer
// is an error or not. If nobody asked it does nothing, nor if id is empty.
func NoteRequestID(ctx context.Context, id string) {
	if note, ok := ctx.Value(requestIDKey).(func(string)); ok && id != "" {
		note(id)
	}
}
