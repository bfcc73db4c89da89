package keyring

import (
	"context"
	"crypto/rand"

	"github.com/blockseal/blockseal/internal/inner"
)

// Work returns the id of the work that is under way, zero if none is.
func (f *holdForBlock) Work() (id inner.WorkID, err error) {
	h := (*Hold)(f)
	r := h.r
	r.docMu.Lock()
	defer r.docMu.Unlock()
	b, err := openBody(r.sealed, &h.s.secret, r.aad)
	if err != nil {
		return id, err
	}
	defer b.destroy()
	return b.work, nil
}

// BeginWork begins a piece of work, in the place of one that is under way, if one is. It
// is in the document in storage before BeginWork returns.
func (f *forBlock) BeginWork(ctx context.Context) (id inner.WorkID, err error) {
	r := (*Keyring)(f)
	rand.Read(id[:])
	return id, r.setWork(ctx, id)
}

// EndWork ends the work that is under way.
func (f *forBlock) EndWork(ctx context.Context) error {
	r := (*Keyring)(f)
	return r.setWork(ctx, inner.WorkID{})
}

func (r *Keyring) setWork(ctx context.Context, id inner.WorkID) error {
	h, err := r.Acquire()
	if err != nil {
		return err
	}
	defer h.Release()
	return r.mutate(ctx, &h, func(b *body) error {
		if b.work == id {
			return errUnchanged
		}
		b.work = id
		return nil
	}, nil)
}
