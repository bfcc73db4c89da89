package keyring

import (
	"context"
	"errors"
	"fmt"
)

// take takes a saved document for the keyring's. docMu is held, or nobody else has
// the keyring yet.
func (r *Keyring) take(h header, aad, sealed []byte) {
	r.table.follow(&r.header, &h)
	r.header, r.aad, r.sealed = h, aad, sealed
	r.mu.Lock()
	defer r.mu.Unlock()
	r.kekID, r.generation = h.current().key, h.generation
}

// errUnchanged is how the function given to mutate says that there is nothing to
// save.
var errUnchanged = errors.New("unchanged")

// mutate changes the document: f gets the opened body, and what f leaves is
// sealed, saved durably, and only then taken for the document. If f or the save
// fails nothing has changed in memory, and storage holds the old document or, if
// its Save took effect all the same, a new one that opens too.
//
// The caller has a hold, so that the session's secret stays. after, if not nil,
// runs when the save has succeeded, with the body still open, before anybody else
// can change the document.
func (r *Keyring) mutate(ctx context.Context, h *Hold, f func(*body) error, after func(*body) error) error {
	return r.mutateHeader(ctx, h, func(_ *header, b *body) error { return f(b) }, after)
}

// mutateHeader is mutate for a change of the header too.
func (r *Keyring) mutateHeader(ctx context.Context, h *Hold, f func(*header, *body) error, after func(*body) error) error {
	if r.opts.ReadOnly {
		return fmt.Errorf("keyring: %w", ErrReadOnly)
	}
	r.docMu.Lock()
	defer r.docMu.Unlock()
	if err := r.own(ctx, h); err != nil {
		return err
	}
	b, err := openBody(r.sealed, &h.s.secret, r.aad)
	if err != nil {
		return err
	}
	defer b.destroy()
	news := r.shared > b.shared
	b.shared = max(b.shared, r.shared)
	next := r.header.clone()
	next.generation++
	if err := f(&next, b); err != nil && (err != errUnchanged || !news) {
		if err == errUnchanged {
			return nil
		}
		return err
	} else if err != nil {
		after = nil
	}
	if err := r.seal(ctx, next, b, &h.s.secret); err != nil {
		return err
	}
	if after == nil {
		return nil
	}
	return after(b)
}

// seal seals b under next, saves the document and takes it. docMu is held.
func (r *Keyring) seal(ctx context.Context, next header, b *body, docSecret *[secretSize]byte) error {
	aad := next.encode()
	sealed, err := sealBody(b, docSecret, aad)
	if err != nil {
		return err
	}
	if err := r.save(ctx, append(aad[:len(aad):len(aad)], sealed...), b); err != nil {
		return fmt.Errorf("keyring: save generation %d: %w", next.generation, err)
	}
	r.take(next, aad, sealed)
	r.anchorSoon()
	return nil
}

// reserveStep is how many DEKs are reserved at a time: 1/64 of an epoch.
func (p *policy) reserveStep() uint64 { return max(p.maxDEKs/64, 1) }

// epochForUse returns the current epoch with one more DEK counted against its
// limit. The count is in memory; what is on disk is a reservation that the count
// never exceeds, so that a crash cannot make the keyring forget what a key has
// wrapped: at worst it counts 1/64 of an epoch too much.
func (h *Hold) epochForUse(ctx context.Context) (*epoch, error) {
	for {
		e := h.s.epochs.Load().current
		n := e.used.Load()
		if n >= e.reserved.Load() {
			if err := h.r.reserve(ctx, h, e); err != nil {
				return nil, err
			}
		} else if e.used.CompareAndSwap(n, n+1) {
			return e, nil
		}
	}
}

// reserve extends e's reservation on disk or, if e has wrapped all that the policy
// allows, or a copy has it (Share), begins a new epoch. If there are too many for that, e goes on to what the
// cipher allows: a store that cannot be written to could not be rotated either, which
// is what makes room.
func (r *Keyring) reserve(ctx context.Context, h *Hold, e *epoch) error {
	var started uint32
	var full bool
	why := "the epoch before had wrapped all the DEKs it may"
	err := r.mutate(ctx, h, func(b *body) error {
		cur := b.current()
		if cur.id != e.id || e.used.Load() < e.reserved.Load() {
			return errUnchanged // whoever came first did the work
		}
		limits := b.policy
		if full = len(b.epochs) >= r.autoEpochs(); full {
			limits.maxDEKs = MaxEpochDEKs
		}
		// From what the document says, not from e.reserved, which is 0 once
		// settleReservations has been here.
		shared := cur.id <= b.shared
		if from := max(cur.reserved, e.used.Load()); from < limits.maxDEKs && (full || !shared) {
			cur.reserved = min(from+limits.reserveStep(), limits.maxDEKs)
			return nil
		}
		if full {
			return fmt.Errorf("keyring: the keyring has %d epochs and the current one is used up; "+
				"rotate epochs so that old ones are dropped: %w", len(b.epochs), ErrLimit)
		}
		b.addEpoch(r.wallNow())
		b.current().reserved = b.policy.reserveStep()
		if started = b.current().id; shared {
			why = "a copy has the key of the epoch before"
		}
		return nil
	}, func(b *body) error {
		cur := b.current()
		if started == 0 {
			e.reserved.Store(cur.reserved)
			return nil
		}
		return h.publishEpoch(b)
	})
	if err == nil && started != 0 {
		r.emit(Event{Kind: EpochStarted, Epoch: started, Detail: why})
	}
	if full {
		r.tellTooManyEpochs(h.s, r.autoEpochs())
	}
	return err
}

// publishEpoch makes the body's current epoch, which is saved, the session's.
func (h *Hold) publishEpoch(b *body) error {
	k := b.current()
	e, err := newEpoch(k)
	if err != nil {
		return err
	}
	e.used.Store(0)
	h.s.epochs.Store(h.s.epochs.Load().with(e))
	return nil
}

// settleReservations writes down the exact counts, so that a clean restart gives
// back what was reserved and not used. Best effort: an error only means that the
// next Open counts too much.
func (r *Keyring) settleReservations() error {
	h, err := r.Acquire()
	if err != nil || r.opts.ReadOnly {
		if err == nil {
			h.Release()
		}
		return nil
	}
	defer h.Release()
	e := h.s.epochs.Load().current
	if used := e.used.Load(); used > 0 && used == e.reserved.Load() || r.isForeign() {
		return nil
	}
	return r.mutate(r.ctx, &h, func(b *body) error {
		cur := b.current()
		if cur.id != e.id {
			return errUnchanged
		}
		before := cur.reserved
		// From here on nobody counts one more, but those who looked at the
		// reservation a moment ago: they are in flight still, or have counted by then.
		e.reserved.Store(0)
		inFlight := r.holds() - 1
		if cur.reserved = e.used.Load() + inFlight; cur.reserved == before {
			return errUnchanged
		}
		return nil
	}, nil)
}

// savePolicy writes down what the options of this Open say about the policy, if
// that differs from the document.
func (r *Keyring) savePolicy(ctx context.Context) error {
	r.mu.Lock()
	want, due := r.policy, r.policyDue
	r.mu.Unlock()
	if !due || r.opts.ReadOnly {
		return nil
	}
	h, err := r.Acquire()
	if err != nil {
		return err
	}
	defer h.Release()
	return r.mutate(ctx, &h, func(b *body) error {
		if b.policy == want {
			return errUnchanged
		}
		b.policy = want
		return nil
	}, func(*body) error {
		r.mu.Lock()
		r.policyDue = false
		r.mu.Unlock()
		return nil
	})
}
