package keyring

import (
	"context"
	"errors"
	"fmt"
	"sync/atomic"
	"time"

	"github.com/blockseal/blockseal/internal/inner"
)

// Rewrap is what a walk of [Keyring.RotateEpoch] calls for each record, with the context that the
// DEK was wrapped with. It returns the record that is to take its place, or nil if the record is
// as it should be. It is safe for concurrent use.
type Rewrap func(record, context []byte) (again []byte, err error)

// rewrapPasses is how many walks there are at the most: one that rewraps, one that finds what
// came in its back, one that finds nothing, and one to spare.
const rewrapPasses = 4

// RotateEpoch begins a new epoch, has every record rewrapped, and destroys the keys of the epochs
// before, whose ids it returns: what only they wrapped can never be opened again. It calls no
// vault.
//
// walk goes through all records that the caller has, and may be called several times. It calls its
// Rewrap for each, stores what that returns in the record's place, unless somebody else has
// replaced the record meanwhile, and returns nil when all it stored is durable. Nothing is
// dropped before a walk has come by no record of an older epoch: that is the proof, and each call
// but the first costs only reading. If records are there as they were, because walk does not store
// them, RotateEpoch gives up with an error, and nothing is dropped; nor is it if walk returns an
// error. It can be called again.
//
// Others may wrap and store DEKs meanwhile, each inside of a hold ([Keyring.Acquire]) that it
// releases when the record is where walk finds it: RotateEpoch waits for those that began before. It
// must not be called inside of a hold. A record that was wrapped without one, before RotateEpoch was
// called, and that is stored when the last walk has passed, is lost; so is one of another keyring
// on the same document that has not taken up the new epoch. The
// keys are gone from the document when RotateEpoch returns, and from memory when the operations in
// flight and everything that was pinned before have ended. Another keyring on the same document has
// them until it takes up the change: at its next check, or when its lease ends, and for as long as
// something is pinned there.
func (r *Keyring) RotateEpoch(ctx context.Context, walk func(ctx context.Context, rewrap Rewrap) error) (dropped []uint32, err error) {
	begin := func() (uint32, error) {
		return r.beginEpoch(ctx, "on request", func(*body) bool { return true })
	}
	epoch, err := begin()
	if errors.Is(err, ErrLimit) {
		// No room for one more: it takes a rotation into the present one first.
		h, errHold := r.Acquire()
		if errHold != nil {
			return nil, fmt.Errorf("keyring: rotate epoch: %w", errHold)
		}
		epoch = h.For(inner.Block{}).CurrentEpoch()
		h.Release()
		if dropped, err = r.rewrapInto(ctx, epoch, walk); err == nil {
			epoch, err = begin()
		}
	}
	if err != nil {
		return dropped, fmt.Errorf("keyring: rotate epoch: %w", r.thenAnchor(ctx, err))
	}
	more, err := r.rewrapInto(ctx, epoch, walk)
	if err != nil {
		return dropped, fmt.Errorf("keyring: rotate epoch: %w", err)
	}
	return append(dropped, more...), nil
}

// rewrapInto has every record rewrapped that names an epoch before the given one, and drops those.
func (r *Keyring) rewrapInto(ctx context.Context, epoch uint32, walk func(ctx context.Context, rewrap Rewrap) error) ([]uint32, error) {
	for range rewrapPasses {
		if err := r.awaitHolds(ctx); err != nil {
			return nil, err
		}
		p := &pass{r: r, ctx: ctx, epoch: epoch}
		if err := walk(ctx, p.rewrap); err != nil {
			return nil, err
		}
		if p.old.Load() == 0 {
			return r.For(inner.Block{}).DropEpochs(ctx, epoch)
		}
	}
	return nil, errors.New("records are there as they were although they were rewrapped: what Rewrap returns has to be stored; no epoch was dropped")
}

// awaitHolds waits until every hold that there is now was released.
func (r *Keyring) awaitHolds(ctx context.Context) error {
	for !r.quiesced(10 * time.Millisecond) {
		if err := ctx.Err(); err != nil {
			return fmt.Errorf("operations that were under way have not ended: %w", err)
		}
	}
	return ctx.Err()
}

// pass is one walk over all records.
type pass struct {
	r     *Keyring
	ctx   context.Context
	epoch uint32 // records are to name this one or a younger one
	old   atomic.Uint64
}

// rewrap is a [Rewrap].
func (p *pass) rewrap(record, context []byte) ([]byte, error) {
	in, err := ParseRecord(record)
	if err == nil && in.Epoch >= p.epoch {
		return nil, nil
	}
	p.old.Add(1) // also what cannot be read: it proves nothing
	if err != nil {
		return nil, err
	}
	h, err := p.r.Acquire()
	if err != nil {
		return nil, err
	}
	defer func() { h.Release() }()
	var b Binding
	b.Set(context)
	return h.For(inner.Block{}).Rewrap(p.ctx, nil, record, &b)
}
