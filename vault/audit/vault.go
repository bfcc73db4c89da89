package audit

import (
	"context"
	"fmt"
	"sync"
	"time"

	"github.com/blockseal/blockseal/vault"
)

// Options configure a [Vault]. Nil is all defaults.
type Options struct {
	// Identity is who calls the vault through this Vault, such as the service's
	// name. The default is ""; [WithIdentity] overrides it.
	Identity string

	// Store is the store that the calls are for, such as its id or directory. The
	// default is ""; [WithStore] overrides it.
	Store string

	// FailClosed withholds the answer of an operation that could not be recorded:
	// the caller gets an error that matches [vault.ErrUnavailable] and
	// [ErrNotRecorded], and a secret is cleared. A store then behaves as if the
	// vault could not be reached: it serves until its lease ends. The record may
	// still be written later, so that the log can show an answer that nobody got,
	// and never the reverse. The default is false: the operation goes on, and
	// OnError is told.
	FailClosed bool

	// OnError, if not nil, is called with the error of each record that could not
	// be written, before the operation returns. It may be called concurrently.
	OnError func(error)

	// Clock tells the time and measures durations. The default is the system's.
	Clock Clock
}

// Clock is a wall clock, and a monotonic one whose origin is arbitrary.
type Clock interface {
	Now() time.Time
	Elapsed() time.Duration
}

type systemClock struct{ origin time.Time }

func (c systemClock) Now() time.Time         { return time.Now() }
func (c systemClock) Elapsed() time.Duration { return time.Since(c.origin) }

// Vault does what another vault does, and records each operation once it has
// ended. It is safe for concurrent use if that vault is.
type Vault struct {
	inner    vault.Vault
	recorder Recorder
	opts     Options
}

var _ vault.Vault = (*Vault)(nil)

// New returns a vault that passes each operation on to inner and records it.
func New(inner vault.Vault, recorder Recorder, opts *Options) *Vault {
	v := &Vault{inner: inner, recorder: recorder}
	if opts != nil {
		v.opts = *opts
	}
	if v.opts.Clock == nil {
		v.opts.Clock = systemClock{time.Now()}
	}
	return v
}

// GetKey implements [vault.Vault].
func (v *Vault) GetKey(ctx context.Context, id vault.KeyID) (vault.Key, error) {
	op := v.begin(ctx, vault.OpGet, id)
	key, err := v.inner.GetKey(op.ctx, id)
	if withheld := op.end(key.ID, err); withheld != nil {
		return vault.Key{}, withheld
	}
	return key, err
}

// WrapKey implements [vault.Vault].
func (v *Vault) WrapKey(ctx context.Context, id vault.KeyID, secret []byte) (vault.Wrapped, error) {
	op := v.begin(ctx, vault.OpWrapKey, id)
	w, err := v.inner.WrapKey(op.ctx, id, secret)
	if withheld := op.end(w.KeyID, err); withheld != nil {
		return vault.Wrapped{}, withheld
	}
	return w, err
}

// UnwrapKey implements [vault.Vault].
func (v *Vault) UnwrapKey(ctx context.Context, w vault.Wrapped) ([]byte, error) {
	op := v.begin(ctx, vault.OpUnwrapKey, w.KeyID)
	secret, err := v.inner.UnwrapKey(op.ctx, w)
	if withheld := op.end(w.KeyID, err); withheld != nil {
		clear(secret)
		return nil, withheld
	}
	return secret, err
}

// operation is one operation under way.
type operation struct {
	v      *Vault
	ctx    context.Context // for the inner vault
	record Record
	asked  vault.KeyID
	began  time.Duration
	note   *note
}

// note is where [NoteRequestID] leaves the vault's name for the request. A vault
// that answers late, after its caller has given up, may still write to it.
type note struct {
	mu sync.Mutex
	id string
}

func (n *note) set(id string) {
	n.mu.Lock()
	defer n.mu.Unlock()
	n.id = id
}

func (n *note) get() string {
	n.mu.Lock()
	defer n.mu.Unlock()
	return n.id
}

func (v *Vault) begin(ctx context.Context, op vault.Operation, id vault.KeyID) *operation {
	n := new(note)
	return &operation{
		v:   v,
		ctx: context.WithValue(ctx, noteKey, n),
		record: Record{
			Time:      v.opts.Clock.Now(),
			Event:     EventOperation,
			Identity:  value(ctx, identityKey, v.opts.Identity),
			Store:     value(ctx, storeKey, v.opts.Store),
			Operation: op,
			Key:       id.Versionless().String(),
			Version:   id.Version,
			RequestID: value(ctx, requestKey, ""),
		},
		asked: id,
		began: v.opts.Clock.Elapsed(),
		note:  n,
	}
}

// end records the operation with its answer and error, and returns the error
// that must take the answer's place, or nil.
func (o *operation) end(answered vault.KeyID, err error) error {
	o.record.Duration = o.v.opts.Clock.Elapsed() - o.began
	o.record.VaultRequestID = o.note.get()
	o.record.reason(err)
	if err == nil {
		o.answer(answered)
	}
	notRecorded := o.v.recorder.Record(o.ctx, o.record)
	if notRecorded == nil {
		return nil
	}
	if o.v.opts.OnError != nil {
		o.v.opts.OnError(notRecorded)
	}
	if !o.v.opts.FailClosed {
		return nil
	}
	if err != nil {
		// The vault gave nothing that could be withheld, and what it said must be
		// heard: a denial has to lock the store.
		return fmt.Errorf("%w; and %w", err, notRecorded)
	}
	return &vault.Error{
		Op: o.record.Operation, Key: o.asked, Kind: vault.ErrUnavailable,
		Detail: "the vault answered, but the answer was withheld because its audit record could not be written; make the audit log writable",
		Err:    notRecorded,
	}
}

// answer records which key the vault says that it used.
func (o *operation) answer(id vault.KeyID) {
	if id.Name != o.asked.Name || (o.asked.Vault != "" && id.Vault != o.asked.Vault) ||
		(o.asked.Version != "" && id.Version != o.asked.Version) {
		o.record.Detail = "the vault answered for another key"
		if id.Validate() == nil {
			o.record.Detail += ", " + id.String()
		}
		return
	}
	o.record.Key, o.record.Version = id.Versionless().String(), id.Version
}
