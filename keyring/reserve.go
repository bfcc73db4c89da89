package keyring

import (
	"context"
	"fmt"

	"github.com/blockseal/blockseal/internal/inner"
)

// How many DEKs an epoch has wrapped must survive a crash, and must not cost a save for
// each. The document holds a sum: how many were reserved, by all keyrings that have it. A
// keyring adds a slice to that by a swap, then wraps as many DEKs as the slice has, and
// counts those in memory. So no two ever count on the same use, whatever they are told by
// whom: the swap of the second fails, and it adds to what the first has left. A keyring that
// ends in order takes off what it has not used. One that dies, or locks, or does not
// know whether its swap was saved, counts what it reserved as used: the sum is never too
// small.

// slicesOfEpoch is how many slices an epoch has, and firstSlices how many of those that are taken
// first where any number of keyrings may have the document.
const (
	slicesOfEpoch = 64
	firstSlices   = 1 << 16
)

// reserveStep is how many DEKs are reserved at a time by a keyring that has taken so many of the epoch
// already: 1/64 of an epoch. Where many keyrings have the document, each begins with 1/65,536 and takes as
// much again as it has taken: what they reserve and do not use is no more than what they use and the
// first slices, and a busy one still saves seldom.
func (r *Keyring) reserveStep(p *policy, took uint64) uint64 {
	most := max(p.maxDEKs/slicesOfEpoch, 1)
	if !r.opts.For(inner.Block{}).Many {
		return most
	}
	return min(most, max(p.maxDEKs/firstSlices, took, 1))
}

// epochForUse returns the current epoch with one more DEK counted against the slice
// that this keyring has reserved of it.
func (h *Hold) epochForUse(ctx context.Context) (*epoch, error) {
	for {
		e := h.s.epochs.Load().current
		if e.left.Add(-1) >= 0 {
			return e, nil
		}
		if err := ofDocument(h.r.reserve(ctx, h, e)); err != nil {
			return nil, err
		}
		if err := h.inTime(); err != nil {
			return nil, err
		}
	}
}

// reserve adds a slice to e's reservation or, if e has wrapped all that the policy
// allows, or a copy has it (Share), begins a new epoch. If there are too many for that, e goes on to what the
// cipher allows: a store that cannot be written to could not be rotated either, which
// is what makes room.
func (r *Keyring) reserve(ctx context.Context, h *Hold, e *epoch) error {
	var started uint32
	var slice uint64
	var full bool
	var why string
	err := r.mutate(ctx, h, func(b *body) error {
		started, slice, full, why = 0, 0, false, "the epoch before had wrapped all the DEKs it may"
		cur := b.current()
		if cur.id != e.id || e.left.Load() > 0 {
			return errUnchanged // whoever came first did the work
		}
		limits := b.policy
		if full = len(b.epochs) >= r.autoEpochs(); full {
			limits.maxDEKs = MaxEpochDEKs
		}
		shared := cur.id <= b.shared
		if full || !shared {
			// What was set aside for a new epoch is used before more is reserved.
			if idle := e.idle.Swap(0); idle > 0 {
				e.shared.Store(false)
				e.left.Store(idle)
				return errUnchanged
			}
		}
		if cur.reserved < limits.maxDEKs && (full || !shared) {
			slice = min(r.reserveStep(&limits, e.took), limits.maxDEKs-cur.reserved)
			cur.reserved += slice
			return nil
		}
		if full {
			return fmt.Errorf("keyring: the keyring has %d epochs and the current one is used up; "+
				"rotate epochs so that old ones are dropped: %w", len(b.epochs), ErrLimit)
		}
		b.addEpoch(r.wallNow())
		b.current().reserved = r.reserveStep(&b.policy, 0)
		if started = b.current().id; shared {
			why = "a copy has the key of the epoch before"
		}
		return nil
	}, func(b *body) error {
		if started == 0 {
			e.shared.Store(false)
			e.took += slice
			e.left.Store(int64(slice))
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

// publishEpoch makes the body's current epoch, which was begun and saved here, the session's.
// What is reserved of it is this keyring's.
func (h *Hold) publishEpoch(b *body) error {
	k := b.current()
	e, err := newEpoch(k)
	if err != nil {
		return err
	}
	e.took = k.reserved
	e.left.Store(int64(k.reserved))
	h.s.epochs.Store(h.s.epochs.Load().with(e))
	return nil
}

// setAside ends the use of the slice: the next DEK goes by reserve. docMu is held.
func (e *epoch) setAside() { e.idle.Add(max(e.left.Swap(0), 0)) }

// unused takes what was reserved and not used, for good, whatever comes of it: it is taken
// off the document once, or by nobody. docMu is held.
func (e *epoch) unused() uint64 {
	e.setAside()
	return uint64(e.idle.Swap(0))
}

// bound is how many DEKs e has wrapped at the most, in all keyrings, as far as it is known.
func (e *epoch) bound() uint64 {
	own := max(e.left.Load(), 0) + e.idle.Load()
	return e.counted.Load() - min(e.counted.Load(), uint64(own))
}

// settleReservations takes off the document what was reserved and not used, so that a
// clean restart wastes nothing. Best effort: after an error it counts as used.
func (r *Keyring) settleReservations() error {
	h, err := r.Acquire()
	if err != nil {
		return nil
	}
	defer h.Release()
	if r.opts.ReadOnly || r.isForeign() {
		return nil
	}
	unused := map[uint32]uint64{}
	r.docMu.Lock()
	for _, e := range h.s.epochs.Load().all {
		if n := e.unused(); n > 0 {
			unused[e.id] = n
		}
	}
	r.docMu.Unlock()
	// Also with nothing to take off: mutate writes down what was shared. That its swap failed says that nothing was taken off, so that it is made again. After
	// any other error it may have been.
	return r.mutate(r.ctx, &h, func(b *body) error {
		err := errUnchanged
		for i := range b.epochs {
			if k := &b.epochs[i]; unused[k.id] > 0 {
				k.reserved -= min(k.reserved, unused[k.id])
				err = nil
			}
		}
		return err
	}, nil)
}
