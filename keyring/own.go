package keyring

import (
	"cmp"
	"context"
	"crypto/sha256"
	"fmt"
	"slices"

	"github.com/blockseal/blockseal/internal/inner"
)

// A copy of a document has the keys of all its epochs. If both went on to wrap DEKs by the
// current one, what either wrapped would open in the other, and what they wrapped together
// would be counted by nobody. So neither does: the copy begins an epoch of its own before
// it changes anything (own), the source one at the first DEK after the copy was made
// (Share). The two have different keys, whatever their numbers.

// owning is what a keyring knows of that. Guarded by docMu.
type owning struct {
	foreign bool   // the document is another instance's
	shared  uint32 // as in the body, or ahead of it until the next save
	sharing bool   // Share was called while there was no session, or inner.Options.Shared
	// instance is that of the document that was opened last.
	instance inner.InstanceID
	opened   bool // a document was opened, so that those which come are later ones
	// last is the epochs of the session that ended last: their keys are those of every document
	// that comes.
	last []epochName
}

// epochName tells an epoch from every other.
type epochName struct {
	id  uint32
	sum [sha256.Size]byte // see epochKey.sum
}

// sameEpochs refuses a body whose epochs are not those that the keyring knows, and younger
// ones. docMu is held.
func (r *Keyring) sameEpochs(b *body) error {
	known := r.last
	if s := r.session.Load(); s != nil {
		known = s.epochs.Load().names()
	}
	if len(known) == 0 {
		return nil
	}
	newest := known[len(known)-1].id
	for i := range b.epochs {
		k := &b.epochs[i]
		at, found := slices.BinarySearchFunc(known, k.id, func(n epochName, id uint32) int { return cmp.Compare(n.id, id) })
		if found && known[at].sum != k.sum() || !found && k.id <= newest {
			return fmt.Errorf("keyring: its epoch %d is not the keyring's: it is of a copy that went on by itself: %w", k.id, ErrUnexpected)
		}
	}
	if b.current().id < newest {
		return fmt.Errorf("keyring: it does not have epoch %d, the newest: it is of a copy that went on by itself: %w", newest, ErrUnexpected)
	}
	return nil
}

// claim prepares the document's body, which has no session yet, for a save: it says who else
// has its epochs, because with a document a database on top forgets why (inner.Options.Shared), and
// is this instance's. docMu is held, or nobody else has the keyring yet.
func (r *Keyring) claim(b *body) error {
	if r.sharing {
		r.sharing, r.shared = false, b.current().id
	}
	b.shared = max(b.shared, r.shared)
	if r.isForeignBody(b) {
		return r.ownBody(b)
	}
	return nil
}

// publish makes a session the keyring's, with what its document says of who else has its
// epochs. Of an epoch that was opened nothing is reserved (newEpoch), so that the first
// DEK goes by reserve, which looks at that.
func (r *Keyring) publish(s *session, b *body) {
	r.docMu.Lock()
	defer r.docMu.Unlock()
	cur := s.epochs.Load().current
	if r.sharing {
		r.sharing, r.shared = false, cur.id
	}
	r.knowOwner(b)
	r.session.Store(s)
}

// takeFound takes a document with the body b for a keyring that has no session, if it is another
// than the keyring's. docMu is held.
func (r *Keyring) takeFound(d *stored, b *body) error {
	if d.revision == r.revision {
		return nil
	}
	if err := r.sameEpochs(b); err != nil {
		return err
	}
	if r.opened && d.header.generation < r.header.generation || !r.followKEK(d) {
		return errMovedMeanwhile
	}
	r.take(*d)
	return nil
}

// knowOwner notes what an opened body that is the keyring's says of its owner. docMu is held.
func (r *Keyring) knowOwner(b *body) {
	r.shared = max(r.shared, b.shared)
	r.foreign, r.instance, r.opened = r.isForeignBody(b), b.instance, true
}

func (r *Keyring) isForeign() bool {
	r.docMu.Lock()
	defer r.docMu.Unlock()
	return r.foreign
}

// own makes a document that is another instance's this one's, with an epoch of its own, as
// one save. The caller has the turn of changes. That BeginEpoch leaves room for it is so in the source; only a
// copy of a copy of a store that was full may find none.
func (r *Keyring) own(ctx context.Context, h *Hold) error {
	if !r.foreign {
		return nil
	}
	b, err := openBody(r.sealed, &h.s.secret, r.aad)
	if err != nil {
		return err
	}
	defer b.destroy()
	if err := r.ownBody(b); err != nil {
		return err
	}
	b.current().reserved = r.reserveStep(&b.policy, 0)
	next := r.header.clone()
	next.generation++
	if _, err := r.seal(ctx, next, b, &h.s.secret); err != nil {
		return err
	}
	r.knowOwner(b)
	if err := h.publishEpoch(b); err != nil {
		return err
	}
	r.emit(Event{Kind: EpochStarted, Epoch: b.current().id, Detail: "the first of this copy's own"})
	return nil
}

// isForeignBody reports whether a body is another instance's.
func (r *Keyring) isForeignBody(b *body) bool {
	return r.opts.For(inner.Block{}).Instance != (inner.InstanceID{}) && b.instance != r.opts.For(inner.Block{}).Instance
}

// ownBody makes a body this instance's, with an epoch of its own, which has wrapped nothing.
func (r *Keyring) ownBody(b *body) error {
	if len(b.epochs) >= MaxEpochs {
		return fmt.Errorf("keyring: the copy has %d epochs, which its source has as well, and no room for one of its own; "+
			"rotate epochs in the source and copy it again: %w", len(b.epochs), ErrLimit)
	}
	b.instance, b.shared = r.opts.For(inner.Block{}).Instance, b.current().id
	b.addEpoch(r.wallNow())
	return nil
}

// Own makes the document this instance's (inner.Options.Instance), if it is another's: in one
// save it names this one and has a new epoch, whose key nobody else has. Every change and
// every DEK that is wrapped does so by itself first; Own is for those who want it done. It
// calls no vault. Errors: [ErrInaccessible], [ErrReadOnly], [ErrLimit], the storage's own.
func (f *forBlock) Own(ctx context.Context) error {
	r := (*Keyring)(f)
	return r.thenAnchor(ctx, r.change(ctx, func(*body) error { return errUnchanged }))
}

// Save saves the document again, as the next generation, for a taggingStorage that keeps
// more with it. It does not wait for the anchor, which may be long in answering: who tells somebody
// of the change calls AwaitAnchor first, when nobody waits for what it holds. Errors: as those of Own.
func (f *forBlock) Save(ctx context.Context) error {
	r := (*Keyring)(f)
	return r.change(ctx, func(*body) error { return nil })
}

func (r *Keyring) change(ctx context.Context, f func(*body) error) error {
	h, err := r.Acquire()
	if err != nil {
		return err
	}
	defer h.Release()
	return r.mutate(ctx, &h, f, nil)
}

// AwaitAnchor waits until the anchor has followed the document, or has told why not.
func (f *forBlock) AwaitAnchor(ctx context.Context) { _ = (*Keyring)(f).anchorNow(ctx) }

// EpochIsShared reports whether Share was called in this stretch of access and another epoch
// begins with the next DEK. After that it reports false, also if there were too many epochs.
func (f *holdForBlock) EpochIsShared() bool {
	h := (*Hold)(f)
	return h.s.epochs.Load().current.shared.Load()
}

// Share says that the document was copied, now, for somebody who lives on with it. What
// was wrapped so far opens there; the next DEK that is wrapped begins a new epoch, unless
// there are so many that none begins by itself (Options.MaxEpochs), of which there is an
// event. It saves nothing, and is written down with the next change of the document;
// Save writes it down now.
//
// It returns the id of the epoch that is shared, 0 without access: then the next stretch
// of access begins with it. Another keyring on the same document learns of it when it takes up
// what was saved, at its next check at the latest. A DEK that was wrapped before and is kept after is for the
// caller to find, by its record's epoch, and to Rewrap.
func (f *forBlock) Share() uint32 {
	r := (*Keyring)(f)
	// After a swap that is under way: a copy may have what that saves.
	r.changes <- struct{}{}
	defer func() { <-r.changes }()
	r.docMu.Lock()
	defer r.docMu.Unlock()
	s := r.session.Load()
	if s == nil {
		r.sharing = true
		return 0
	}
	// It is destroyed under docMu, so that it is there.
	cur := s.epochs.Load().current
	r.shared = max(r.shared, cur.id)
	cur.shared.Store(true)
	cur.setAside()
	return cur.id
}
