package keyring

import (
	"context"
	"encoding/hex"
	"fmt"
)

// InstanceID tells a keyring from its copies: 16 random bytes. The zero InstanceID names
// none.
type InstanceID [16]byte

// String returns 32 hexadecimal digits.
func (id InstanceID) String() string { return hex.EncodeToString(id[:]) }

// Opened is what [Options].Admit and a [TaggingStorage] are given of a document that
// authenticated, or is about to be saved.
type Opened struct {
	Tag        func(purpose string, data []byte) [TagSize]byte // that of [Hold.Tag]
	Generation uint64
	Instance   InstanceID // that the document is of
}

// A copy of a document has the keys of all its epochs. If both went on to wrap DEKs by the
// current one, what either wrapped would open in the other, and what they wrapped together
// would be counted by nobody. So neither does: the copy begins an epoch of its own before
// it changes anything (own), the source one at the first DEK after the copy was made
// (Share). The two have different keys, whatever their numbers.

// owning is what a keyring knows of that. Guarded by docMu.
type owning struct {
	foreign bool   // the document is another instance's
	shared  uint32 // as in the body, or ahead of it until the next save
	sharing bool   // Share was called while there was no session, or Options.Shared
}

// claim prepares the document's body, which has no session yet, for a save: it says who else
// has its epochs, because with a document a database on top forgets why (Options.Shared), and
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
// epochs. An epoch that was opened has its reservation used up (newEpoch), so that the first
// DEK goes by reserve, which looks at that.
func (r *Keyring) publish(s *session, b *body) {
	r.docMu.Lock()
	defer r.docMu.Unlock()
	cur := s.epochs.Load().current
	if r.sharing {
		r.sharing, r.shared = false, cur.id
	}
	r.shared = max(r.shared, b.shared)
	r.foreign = r.isForeignBody(b)
	r.session.Store(s)
}

func (r *Keyring) isForeign() bool {
	r.docMu.Lock()
	defer r.docMu.Unlock()
	return r.foreign
}

// own makes a document that is another instance's this one's, with an epoch of its own, as
// one save. docMu is held. That a Rotate leaves room for it is so in the source; only a
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
	b.current().reserved = b.policy.reserveStep()
	next := r.header.clone()
	next.generation++
	if err := r.seal(ctx, next, b, &h.s.secret); err != nil {
		return err
	}
	r.foreign, r.shared = false, b.shared
	if err := h.publishEpoch(b); err != nil {
		return err
	}
	r.emit(Event{Kind: EpochStarted, Epoch: b.current().id, Detail: "the first of this copy's own"})
	return nil
}

// isForeignBody reports whether a body is another instance's.
func (r *Keyring) isForeignBody(b *body) bool {
	return r.opts.Instance != (InstanceID{}) && b.instance != r.opts.Instance
}

// ownBody makes a body this instance's, with an epoch of its own, which has wrapped nothing.
func (r *Keyring) ownBody(b *body) error {
	if len(b.epochs) >= MaxEpochs {
		return fmt.Errorf("keyring: the copy has %d epochs, which its source has as well, and no room for one of its own; "+
			"rotate epochs in the source and copy it again: %w", len(b.epochs), ErrLimit)
	}
	b.instance, b.shared = r.opts.Instance, b.current().id
	b.addEpoch(r.wallNow())
	return nil
}

// Own makes the document this instance's (Options.Instance), if it is another's: in one
// save it names this one and has a new epoch, whose key nobody else has. Every change and
// every DEK that is wrapped does so by itself first; Own is for those who want it done. It
// calls no vault. Errors: [ErrInaccessible], [ErrReadOnly], [ErrLimit], the storage's own.
func (r *Keyring) Own(ctx context.Context) error {
	return r.change(ctx, func(*body) error { return errUnchanged })
}

// Save saves the document again, as the next generation, for a [TaggingStorage] that keeps
// more with it. Errors: as those of Own.
func (r *Keyring) Save(ctx context.Context) error {
	return r.change(ctx, func(*body) error { return nil })
}

func (r *Keyring) change(ctx context.Context, f func(*body) error) error {
	h, err := r.Acquire()
	if err != nil {
		return err
	}
	err = r.mutate(ctx, &h, f, nil)
	h.Release()
	return r.thenAnchor(ctx, err)
}

// EpochIsShared reports whether Share was called in this stretch of access and another epoch
// begins with the next DEK. After that it reports false, also if there were too many epochs.
func (h Hold) EpochIsShared() bool { return h.s.epochs.Load().current.reserved.Load() == 0 }

// Share says that the document was copied, now, for somebody who lives on with it. What
// was wrapped so far opens there; the next DEK that is wrapped begins a new epoch, unless
// there are so many that none begins by itself (Options.MaxEpochs), of which there is an
// event. It saves nothing, and is written down with the next change of the document;
// [Keyring.Save] writes it down now.
//
// It returns the id of the epoch that is shared, 0 without access: then the next stretch
// of access begins with it. A DEK that was wrapped before and is kept after is for the
// caller to find, by its record's epoch, and to [Hold.Rewrap].
func (r *Keyring) Share() uint32 {
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
	cur.reserved.Store(0)
	return cur.id
}
