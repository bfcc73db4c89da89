package audit

import (
	"context"
	"sync"
	"time"

	"github.com/blockseal/blockseal/vault"
)

// operation is one operation under way.
type operation struct {
	recorder Recorder
	opts     *Options
	ctx      context.Context // for what is done
	record   Record
	began    time.Duration
	note     *note
}

// note is where [vault.NoteRequestID] leaves the vault's name for the request. A vault
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

func begin(ctx context.Context, recorder Recorder, opts *Options, op vault.Operation, id vault.KeyID) *operation {
	n := new(note)
	return &operation{
		recorder: recorder,
		opts:     opts,
		ctx:      noting(ctx, n),
		record: Record{
			Time:      opts.Clock.Now(),
			Event:     EventOperation,
			Identity:  value(ctx, identityKey, opts.Identity),
			Store:     value(ctx, storeKey, opts.Store),
			Operation: op,
			Key:       id.Versionless().String(),
			Version:   id.Version,
			RequestID: value(ctx, requestKey, ""),
		},
		began: opts.Clock.Elapsed(),
		note:  n,
	}
}

// ended completes the record of an operation that ended with err.
func (o *operation) ended(err error) {
	o.record.Duration = o.opts.Clock.Elapsed() - o.began
	o.record.VaultRequestID = o.note.get()
	o.record.reason(err)
}

// write writes the record, and tells OnError if it could not.
func (o *operation) write() error {
	err := o.recorder.Record(o.ctx, o.record)
	if err != nil && o.opts.OnError != nil {
		o.opts.OnError(err)
	}
	return err
}
