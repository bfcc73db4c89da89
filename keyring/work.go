package keyring

import (
	"context"
	"crypto/rand"
)

// WorkID names one long piece of work of a database that keeps, beside its records, how
// far it has come, such as rekeying. It is random; the zero WorkID names none.
//
// The document holds the id of the work that is under way. What the database keeps names
// it too, and is worth nothing any more when the work has ended: an older copy of it,
// which is authentic (see [Hold.Tag]), names work that the document does not.
type WorkID [workIDSize]byte

const workIDSize = 16

// Work returns the id of the work that is under way, zero if none is.
func (h *Hold) Work() (id WorkID, err error) {
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
func (r *Keyring) BeginWork(ctx context.Context) (id WorkID, err error) {
	rand.Read(id[:])
	return id, r.setWork(ctx, id)
}

// EndWork ends the work that is under way.
func (r *Keyring) EndWork(ctx context.Context) error { return r.setWork(ctx, WorkID{}) }

func (r *Keyring) setWork(ctx context.Context, id WorkID) error {
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
