package rewrite

import (
	"context"
	"errors"
	"fmt"

	"github.com/blockseal/blockseal/internal/inner"
	"github.com/blockseal/blockseal/internal/progress"
	"github.com/blockseal/blockseal/internal/row"
	"github.com/blockseal/blockseal/keyring"
)

// RotateEpoch begins a new epoch, rewraps every DEK record under it, destroys the epochs before,
// and returns those. The caller has the turn. refuseFromProgress finds this name on the stack.
//
// It goes on with no earlier rotation. The caller wants an epoch that begins now, because of what
// happened until now; a marker may be older than that, or planted.
func (w *Rewriter) RotateEpoch(ctx context.Context, report progress.Report) (dropped []uint32, err error) {
	h, err := w.Keys.Acquire()
	if err != nil {
		return nil, err
	}
	session, current := h.For(inner.Block{}).Session(), h.For(inner.Block{}).CurrentEpoch()
	h.Release()
	err = w.Keys.BeginEpoch(ctx)
	if errors.Is(err, keyring.ErrLimit) {
		// No epoch more fits into the document. A rotation into the present epoch makes room.
		if dropped, err = w.rewrapInto(ctx, session, current, report); err == nil {
			err = w.Keys.BeginEpoch(ctx)
		}
	}
	if err != nil {
		return dropped, err
	}
	if h, err = w.Keys.For(inner.Block{}).AcquireSession(session); err != nil {
		return dropped, err
	}
	epoch := h.For(inner.Block{}).CurrentEpoch()
	w.rotations++
	// A renewal that was cut off had its bound among the epochs before.
	err = errors.Join(w.inheritAge(ctx, &h, epoch), w.removeMarker(ctx, MarkerRenew))
	h.Release()
	if err != nil {
		return dropped, err
	}
	more, err := w.rewrapInto(ctx, session, epoch, report)
	return append(dropped, more...), err
}

// rewrapInto rewraps the records that name an epoch before epoch, and destroys those epochs. Its
// first step raises the floor for what is written from now on; its last makes all durable, before
// the epochs go.
func (w *Rewriter) rewrapInto(ctx context.Context, session uint64, epoch uint32, report progress.Report) (dropped []uint32, err error) {
	mt := w.meter(WorkRotateEpoch, report, nil, nil)
	defer func() { mt.End(err) }()
	var from []byte
	if err := w.walk(ctx, session, mt, func(ctx context.Context, h *keyring.Hold, n int) (c cost, done bool, err error) {
		if n == 0 {
			if err := w.Table.Part.RaiseFloor(ctx, epoch); err != nil {
				return c, false, err
			}
			if err := w.writeMarker(ctx, h, MarkerRotateEpoch, Marker{Epoch: epoch}); err != nil { // for Inspect
				return c, false, err
			}
		}
		if from, err = w.rewrapStep(ctx, h, from, epoch, mt); err != nil || from != nil {
			return c, false, err
		}
		return c, true, w.Table.Part.Sync(ctx)
	}); err != nil {
		return nil, err
	}
	if dropped, err = w.Keys.For(inner.Block{}).DropEpochs(ctx, epoch); err != nil {
		return nil, err
	}
	h, err := w.Keys.For(inner.Block{}).AcquireSession(session)
	if err != nil {
		return dropped, err
	}
	err = w.removeMarker(ctx, MarkerRotateEpoch)
	h.Release()
	if err != nil {
		return dropped, err
	}
	mt.Done()
	return dropped, nil
}

// rewrapStep rewraps the next records that name an older epoch. It returns the next id, nil at the
// end.
func (w *Rewriter) rewrapStep(ctx context.Context, h *keyring.Hold, from []byte, epoch uint32, mt *progress.Meter) (next []byte, err error) {
	todo, passed, next, err := w.list(ctx, w.Table.Part, from, func(in keyring.RecordInfo) bool { return in.Epoch < epoch })
	if err != nil {
		return nil, err
	}
	r := w.replacement()
	defer r.Close()
	var bind keyring.Binding
	for _, d := range todo {
		bind.Set(d.ID)
		again, err := h.For(inner.Block{}).Rewrap(ctx, nil, d.Record, &bind)
		if err != nil {
			return nil, fmt.Errorf("block %s: %w", row.Shown(d.ID), err)
		}
		if err := r.putRecord(d.Was, again); err != nil {
			return nil, err
		}
		passed += d.passed + 1
	}
	if err := r.commit(ctx); err != nil {
		return nil, err
	}
	mt.Add(passed, 0)
	return next, nil
}

// meter begins to measure an operation over the ids in [start, end). They are counted meanwhile.
func (w *Rewriter) meter(name string, report progress.Report, start, end []byte) *progress.Meter {
	return w.Board.Meter(name, report, 0, func(ctx context.Context) (uint64, error) { return w.Table.Count(ctx, start, end) })
}
