package rewrite

import (
	"bytes"
	"context"
	"errors"
	"fmt"

	"github.com/blockseal/blockseal/internal/engine"
	"github.com/blockseal/blockseal/internal/inner"
	"github.com/blockseal/blockseal/internal/progress"
	"github.com/blockseal/blockseal/internal/row"
	"github.com/blockseal/blockseal/keyring"
)

// errOvertaken ends a renewal when another operation has rotated its epochs. The renewal begins
// anew.
var errOvertaken = errors.New("block: the epochs were rotated meanwhile")

// Renew gives fresh DEKs to the blocks whose DEKs are too old, and drops their epochs. It releases
// the turn after each step.
func (w *Rewriter) Renew(ctx context.Context) error {
	if w.Keys.Policy().RekeyAfter == 0 {
		return nil
	}
	for {
		err := w.renewOnce(ctx)
		if !errors.Is(err, errOvertaken) {
			return err
		}
	}
}

func (w *Rewriter) renewOnce(ctx context.Context) (err error) {
	n, err := w.beginRenewal(ctx)
	if err != nil || n == nil {
		return err
	}
	mt := w.meter(WorkRekey, nil, n.next, nil)
	defer func() { mt.End(err) }()
	start := w.Keys.For(inner.Block{}).Elapsed()
	for done := false; !done; {
		var c cost
		if c, done, err = w.renewTurn(ctx, n, mt); err != nil {
			return err
		}
		if err = w.pace(ctx, c); err != nil {
			return err
		}
	}
	if n.damaged != nil {
		return n.damaged
	}
	w.Keys.For(inner.Block{}).Emit(keyring.Event{Kind: keyring.Progressed, Detail: fmt.Sprintf("replaced %d DEKs that were too old", n.renewed),
		Duration: w.Keys.For(inner.Block{}).Elapsed() - start})
	return nil
}

type renewal struct {
	session   uint64
	rotations uint64 // Rewriter.rotations when it began
	epoch     uint32 // the renewal replaces the DEKs of the epochs before it
	next      []byte
	steps     int
	renewed   uint64
	damaged   error // first failure to open a block
}

// beginRenewal returns a renewal, or nil if none is due.
func (w *Rewriter) beginRenewal(ctx context.Context) (*renewal, error) {
	if err := w.AcquireTurn(ctx, "renew DEKs"); err != nil {
		return nil, err
	}
	defer w.ReleaseTurn()
	h, err := w.Keys.Acquire()
	if err != nil {
		return nil, err
	}
	defer func() { h.Release() }()
	n := &renewal{session: h.For(inner.Block{}).Session(), rotations: w.rotations}
	bound, err := w.dueBefore(ctx, &h)
	if err != nil || bound == 0 {
		return nil, err
	}
	// It begins at the first id, also after a restart: the records' epochs show what is done.
	n.epoch = bound
	if h.For(inner.Block{}).CurrentEpoch() >= bound {
		return n, nil
	}
	h.Release()
	err = w.Keys.BeginEpoch(ctx)
	if h, err = again(w.Keys, n.session, err); err != nil {
		return nil, err
	}
	return n, nil
}

func again(keys *keyring.Keyring, session uint64, err error) (keyring.Hold, error) {
	if err != nil {
		return keyring.Hold{}, err
	}
	return keys.For(inner.Block{}).AcquireSession(session)
}

func (w *Rewriter) renewTurn(ctx context.Context, n *renewal, mt *progress.Meter) (c cost, done bool, err error) {
	if err := w.AcquireTurn(ctx, "renew DEKs"); err != nil {
		return c, false, err
	}
	defer w.ReleaseTurn()
	if w.rotations != n.rotations {
		return c, false, errOvertaken
	}
	return w.one(ctx, n.session, func(ctx context.Context, h *keyring.Hold, _ int) (cost, bool, error) {
		return w.renewStep(ctx, h, n, mt)
	}, n.steps)
}

func (w *Rewriter) renewStep(ctx context.Context, h *keyring.Hold, n *renewal, mt *progress.Meter) (c cost, done bool, err error) {
	if err := w.MayWrite(ctx, h); err != nil {
		return c, false, err
	}
	if n.steps == 0 {
		if err := w.Table.Part.RaiseFloor(ctx, n.epoch); err != nil {
			return c, false, err
		}
		if err := w.writeMarker(ctx, h, MarkerRenew, Marker{Epoch: n.epoch}); err != nil { // for Inspect
			return c, false, err
		}
	}
	n.steps++
	r := w.replacement()
	w.Use.Track(r)
	defer w.Use.Finish(r)
	next, err := w.collectTooOld(ctx, h, r, n, mt)
	if err != nil {
		return c, false, err
	}
	c = cost{bytes: uint64(r.bytes), blocks: uint64(len(r.was))}
	n.renewed += c.blocks
	if err := r.commit(ctx); err != nil {
		return c, false, err
	}
	if n.next = next; next != nil {
		return c, false, nil
	}
	return c, true, w.endRenewal(ctx, h, n)
}

// endRenewal drops the epochs before n.epoch, which no record names any more. If a block could not
// be opened, its record does, and they stay.
func (w *Rewriter) endRenewal(ctx context.Context, h *keyring.Hold, n *renewal) error {
	if err := w.Table.Part.Sync(ctx); err != nil {
		return err
	}
	if n.damaged == nil {
		a, err := w.dekAge(ctx, h)
		if err != nil {
			return err
		}
		h.Release()
		_, err = w.Keys.For(inner.Block{}).DropEpochs(ctx, n.epoch)
		if *h, err = again(w.Keys, n.session, err); err != nil {
			return err
		}
		if a.epoch < n.epoch {
			if err := w.setMeta(ctx, metaDEKAge, nil); err != nil {
				return err
			}
		}
	}
	return w.removeMarker(ctx, MarkerRenew)
}

// collectTooOld prepares the replacements of the next blocks whose DEKs are too old. It returns the
// next id, nil at the end.
func (w *Rewriter) collectTooOld(ctx context.Context, h *keyring.Hold, r *replacement, n *renewal, mt *progress.Meter) (next []byte, err error) {
	view, err := w.Table.Part.View(ctx)
	if err != nil {
		return nil, row.Damage(err)
	}
	w.Use.Track(view)
	defer w.Use.Finish(view)
	todo, passed, next, err := w.list(ctx, view, n.next, func(in keyring.RecordInfo) bool { return in.Epoch < n.epoch })
	if err != nil {
		return nil, fmt.Errorf("block: renew DEKs: %w", err)
	}
	var found engine.Row
	var plain []byte
	defer func() { clear(plain[:cap(plain)]) }()
	for _, d := range todo {
		mt.Add(d.passed, 0)
		if r.full() {
			return d.ID, nil
		}
		p := row.Pair{ID: d.ID, Record: d.Record}
		if p.Value, err = sealedIn(ctx, view, d.ID, &found); err == nil {
			plain = row.RoomFor(plain, p.Value)
			var out []byte // nil if the block does not open: plain stays, to be overwritten
			if out, err = w.Table.Open(ctx, h, p, plain); err == nil {
				plain = out
			}
		}
		if err == nil {
			err = r.putBlock(ctx, h, d.Was, plain)
		}
		if err = row.Damage(err); errors.Is(err, keyring.ErrCorrupt) || errors.Is(err, keyring.ErrVersion) {
			if n.damaged == nil {
				n.damaged = fmt.Errorf("block: renew DEKs: block %s: %w", row.Shown(d.ID), err)
			}
			continue
		}
		if err != nil {
			return nil, fmt.Errorf("block: renew DEKs: block %s: %w", row.Shown(d.ID), err)
		}
		mt.Add(1, uint64(len(plain)))
	}
	mt.Add(passed, 0)
	return next, nil
}

// sealedIn returns a copy of a sealed block. If it is missing, the row is damaged.
func sealedIn(ctx context.Context, r engine.Reader, id []byte, found *engine.Row) ([]byte, error) {
	err := r.Get(ctx, id, engine.Sealed, found)
	if errors.Is(err, engine.ErrNotFound) {
		return nil, row.ErrNoData
	}
	if err != nil {
		return nil, err
	}
	defer found.Release()
	return bytes.Clone(found.Sealed), nil
}
