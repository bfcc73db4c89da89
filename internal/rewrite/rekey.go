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

// Rekey gives the blocks of [start, end) fresh DEKs. One that was cut off goes on where it was, if
// it is called for the same range in the same epoch. The caller has the turn. refuseFromProgress
// finds this name on the stack.
func (w *Rewriter) Rekey(ctx context.Context, start, end []byte, report progress.Report) (err error) {
	h, err := w.Keys.Acquire()
	if err != nil {
		return err
	}
	session := h.For(inner.Block{}).Session()
	m, found, err := w.readMarker(ctx, &h, MarkerRekey)
	work, workErr := h.For(inner.Block{}).Work()
	current := h.For(inner.Block{}).CurrentEpoch()
	h.Release()
	if err = errors.Join(err, workErr); err != nil {
		return err
	}
	if !found || m.Work != work || m.Epoch != current || !m.isOf(start, end) {
		m = Marker{Epoch: current, Start: start, End: end, Next: start}
		if m.Work, err = w.Keys.For(inner.Block{}).BeginWork(ctx); err != nil {
			return err
		}
	}
	mt := w.meter(WorkRekey, report, m.Next, m.End)
	defer func() { mt.End(err) }()
	if err := w.walk(ctx, session, mt, func(ctx context.Context, h *keyring.Hold, n int) (cost, bool, error) {
		if err := w.MayWrite(ctx, h); err != nil {
			return cost{}, false, err
		}
		if n%w.Steps.Mark == 0 {
			if err := w.writeMarker(ctx, h, MarkerRekey, m); err != nil {
				return cost{}, false, err
			}
		}
		return w.rekeyStep(ctx, h, &m, mt)
	}); err != nil {
		return err
	}
	// From here on no marker of this operation is believed, wherever it comes from.
	if err := w.Keys.For(inner.Block{}).EndWork(ctx); err != nil {
		return err
	}
	if err := w.removeMarker(ctx, MarkerRekey); err != nil {
		return err
	}
	mt.Done()
	return nil
}

func (w *Rewriter) rekeyStep(ctx context.Context, h *keyring.Hold, m *Marker, mt *progress.Meter) (n cost, done bool, err error) {
	c, err := w.Table.Cursor(ctx, w.Table.Part, m.Next, m.End, false)
	if err != nil {
		return n, false, err
	}
	defer c.Finish()
	r := w.replacement()
	w.Use.Track(r)
	defer w.Use.Finish(r)
	var next []byte
	for {
		p, ok, err := c.Pair()
		if err != nil {
			return n, false, err
		}
		if !ok {
			break
		}
		if r.full() {
			next = bytes.Clone(p.ID)
			break
		}
		size, err := rekeyOne(ctx, h, c, r, p)
		if err != nil {
			return n, false, fmt.Errorf("block %s: %w", row.Shown(p.ID), err)
		}
		n.bytes += size
		n.blocks++
		mt.Add(1, size)
	}
	if err := r.commit(ctx); err != nil {
		return n, false, err
	}
	if m.Next = next; next != nil {
		return n, false, nil
	}
	return n, true, w.Table.Part.Sync(ctx)
}

func rekeyOne(ctx context.Context, h *keyring.Hold, c *row.Cursor, r *replacement, p row.Pair) (uint64, error) {
	if err := c.Whole(); err != nil {
		return 0, err
	}
	was := engine.Was{ID: bytes.Clone(p.ID), Record: bytes.Clone(p.Record)}
	data, err := c.Open(ctx, h, p)
	if err != nil {
		return 0, err
	}
	return uint64(len(data)), r.putBlock(ctx, h, was, data)
}
