package keyring

import (
	"context"
	"errors"
	"fmt"
)

// take takes a saved document for the keyring's. docMu is held, or nobody else has
// the keyring yet.
func (r *Keyring) take(d stored) {
	r.table.follow(&r.header, &d.header)
	r.stored = d
	r.reloading.takes++
	r.mu.Lock()
	defer r.mu.Unlock()
	r.kekID, r.generation = d.header.current().key, d.header.generation
}

// errUnchanged is how the function given to mutate says that there is nothing to
// save.
var errUnchanged = errors.New("unchanged")

// mutate changes the document: f gets the opened body, and what f leaves is
// sealed, saved durably, and only then taken for the document. If f or the save
// fails nothing has changed in memory, and storage holds the old document or, if
// its Swap took effect all the same, a new one that opens too, and is taken up like one that
// another keyring saved.
//
// If another keyring was first, its document is taken up and f is called again, with that. So f
// begins anew with each call, and says of each document whether the change applies.
//
// The caller has a hold, so that the session's secret stays. after, if not nil,
// runs when the save has succeeded, with the body still open, before anybody else in this
// process can change the document.
func (r *Keyring) mutate(ctx context.Context, h *Hold, f func(*body) error, after func(*body) error) error {
	return r.mutateHeader(ctx, h, func(_ *header, b *body) error { return f(b) }, after)
}

// mutateHeader is mutate for a change of the header too.
func (r *Keyring) mutateHeader(ctx context.Context, h *Hold, f func(*header, *body) error, after func(*body) error) error {
	if r.opts.ReadOnly {
		return fmt.Errorf("keyring: %w", ErrReadOnly)
	}
	for range maxSwaps {
		lost, err := r.mutateOnce(ctx, h, f, after)
		if !errors.Is(err, ErrConflict) {
			return err
		}
		if err := h.reload(ctx); err != nil {
			return fmt.Errorf("keyring: a change is not saved, because another keyring on the document was first: %w", err)
		}
		if r.isDocument(lost) {
			return nil // it was first itself: see Storage.Swap
		}
	}
	return fmt.Errorf("keyring: a change is not saved, because another keyring on the document was first, %d times in a row; try again: %w", maxSwaps, ErrConflict)
}

// maxSwaps is how often a change that lost its swap is made again. Each time somebody
// else's was saved, so that only a storage that is wrong gets there.
const maxSwaps = 256

// isDocument reports whether the keyring's document is that of ContentRevision lost.
func (r *Keyring) isDocument(lost Revision) bool {
	r.docMu.Lock()
	defer r.docMu.Unlock()
	return lost != "" && ContentRevision(r.document()) == lost
}

// mutateOnce is one attempt. With ErrConflict it returns the ContentRevision of the document that it
// would have saved, if it got as far as that.
func (r *Keyring) mutateOnce(ctx context.Context, h *Hold, f func(*header, *body) error, after func(*body) error) (lost Revision, err error) {
	turn, err := r.changing(ctx, h.s)
	if err != nil {
		return "", fmt.Errorf("keyring: a change is not saved: %w", err)
	}
	defer turn.end()
	ctx = turn.ctx
	if err := r.own(ctx, h); err != nil {
		return "", err
	}
	b, err := openBody(r.sealed, &h.s.secret, r.aad)
	if err != nil {
		return "", err
	}
	defer b.destroy()
	before := newsOf(&r.header, b)
	news := r.shared > b.shared
	b.shared = max(b.shared, r.shared)
	next := r.header.clone()
	next.generation++
	if err := f(&next, b); err != nil && (err != errUnchanged || !news) {
		if err == errUnchanged {
			return "", nil
		}
		return "", err
	} else if err != nil {
		after = nil
	}
	b.counts = newsOf(&next, b).equal(before)
	if lost, err = r.seal(ctx, next, b, &h.s.secret); err != nil {
		return lost, err
	}
	if cur, now := h.s.epochs.Load().current, b.current(); cur.id == now.id {
		cur.counted.Store(now.reserved)
	}
	if after == nil {
		return "", nil
	}
	return "", after(b)
}

// seal seals b under next, saves the document and takes it; or it returns the ContentRevision of
// what was not saved, and why. The caller has the turn of changes.
func (r *Keyring) seal(ctx context.Context, next header, b *body, docSecret *[secretSize]byte) (lost Revision, err error) {
	d, err := sealStored(next, b, docSecret)
	if err != nil {
		return "", err
	}
	if err := r.swap(ctx, &d, b); err != nil {
		return ContentRevision(d.document()), fmt.Errorf("keyring: %w", err)
	}
	r.take(d)
	r.anchorSoon()
	return "", nil
}

// savePolicy writes down what the options of this Open say about the policy, if
// that differs from the document.
func (r *Keyring) savePolicy(ctx context.Context) error {
	r.mu.Lock()
	due := r.policyDue
	r.mu.Unlock()
	if !due || r.opts.ReadOnly {
		return nil
	}
	h, err := r.Acquire()
	if err != nil {
		return err
	}
	defer h.Release()
	// What the options do not say another keyring may have said.
	err = r.mutate(ctx, &h, func(b *body) error {
		if !b.policy.overlay(&r.opts) {
			return errUnchanged
		}
		return nil
	}, func(b *body) error {
		r.takePolicy(b.policy)
		return nil
	})
	if err == nil {
		r.mu.Lock()
		r.policyDue, r.policySaid = false, true
		r.mu.Unlock()
	}
	return err
}
