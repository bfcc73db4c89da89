package block

import (
	"bytes"
	"context"
	"errors"
	"fmt"

	"github.com/blockseal/blockseal/internal/engine"
	"github.com/blockseal/blockseal/keyring"
)

// RotateEpoch begins a new epoch, rewraps every DEK record under it, and destroys
// the epoch keys before. Blocks are not touched: about 100 bytes are written for
// each. It runs while the store serves; what is written meanwhile is under the new
// epoch already. No vault is called, whatever the data.
//
// Each call begins an epoch, and when it returns nil everything from before is gone. What
// a call left that was cut off, by a crash or by ctx, the next one finishes with its own.
// Two rewriting operations run one after the other.
//
// Records that only an attacker's earlier copy of the files holds can still be
// opened with that copy's keyring document; see docs/threat-model.md.
func (s *Store) RotateEpoch(ctx context.Context, p Progress) error {
	if err := s.takeRewriting(ctx, "rotate epoch"); err != nil {
		return err
	}
	defer func() { <-s.rewriting }()
	if _, err := s.rotateEpoch(ctx, p); err != nil {
		return fmt.Errorf("block: rotate epoch: %w", err)
	}
	return nil
}

// rotateEpoch returns the epochs that it destroyed. It goes on with nothing: who rotates
// wants an epoch that begins now, because of what happened until now, and whatever says
// that a rotation is under way may be from before that, or put there by somebody. The
// caller has the turn of rewriting operations.
func (s *Store) rotateEpoch(ctx context.Context, p Progress) (dropped []uint32, err error) {
	h, err := s.keys.Acquire()
	if err != nil {
		return nil, err
	}
	session, current := h.Session(), h.CurrentEpoch()
	h.Release()
	err = s.keys.Rotate(ctx)
	if errors.Is(err, keyring.ErrLimit) {
		// No room for one more: it takes a rotation into the present one first.
		if dropped, err = s.rewrapInto(ctx, session, marker{epoch: current}, p); err == nil {
			err = s.keys.Rotate(ctx)
		}
	}
	if err != nil {
		return dropped, err
	}
	if h, err = s.keys.AcquireSession(session); err != nil {
		return dropped, err
	}
	m := marker{epoch: h.CurrentEpoch()}
	s.rotations++
	// A renewal that was cut off went by the epochs before.
	err = errors.Join(s.inheritAge(ctx, &h, m.epoch), s.removeMarker(ctx, metaRenew))
	h.Release()
	if err != nil {
		return dropped, err
	}
	more, err := s.rewrapInto(ctx, session, m, p)
	return append(dropped, more...), err
}

// rewrapInto is the rest of a rotation: it rewraps what names an epoch before the
// marker's, and destroys those. It returns which they were.
func (s *Store) rewrapInto(ctx context.Context, session uint64, m marker, p Progress) (dropped []uint32, err error) {
	mt := s.meter(workRotateEpoch, p, 0, s.countIn(Range{Start: m.next}))
	defer func() { mt.end(err) }()
	for step := 0; ; step++ {
		done, err := s.rewrapStep(ctx, session, &m, mt, step)
		if err != nil {
			return nil, err
		}
		if done {
			break
		}
		mt.between()
	}
	if dropped, err = s.keys.DropEpochs(ctx, m.epoch); err != nil {
		return nil, err
	}
	h, err := s.keys.AcquireSession(session)
	if err != nil {
		return dropped, err
	}
	err = s.removeMarker(ctx, metaRotateEpoch)
	h.Release()
	if err != nil {
		return dropped, err
	}
	mt.done()
	return dropped, nil
}

// rewrapStep rewraps the next chunk of records, in one hold. The first step sets
// the floor under the records that are written from now on; the last makes all of
// it durable, so that the epochs before may go.
func (s *Store) rewrapStep(ctx context.Context, session uint64, m *marker, mt *meter, step int) (done bool, err error) {
	if err := ctx.Err(); err != nil {
		return false, err
	}
	h, err := s.keys.AcquireSession(session)
	if err != nil {
		return false, err
	}
	defer h.Release()
	if step == 0 {
		if err := s.part.RaiseFloor(ctx, m.epoch); err != nil {
			return false, err
		}
		if err := s.writeMarker(ctx, &h, metaRotateEpoch, *m); err != nil { // for Inspect
			return false, err
		}
	}
	w := s.newRewriter()
	defer w.Close()
	seen, next, err := s.collectOld(ctx, &h, w, *m)
	if err != nil {
		return false, err
	}
	if err := w.flush(ctx); err != nil {
		return false, err
	}
	mt.add(seen, 0)
	if m.next = next; next != nil {
		return false, nil
	}
	return true, s.part.Sync(ctx)
}

// collectOld prepares the rewrapping of the next records that name an epoch before
// the marker's, and returns where to go on, nil at the end.
func (s *Store) collectOld(ctx context.Context, h *keyring.Hold, w *rewriter, m marker) (seen uint64, next []byte, err error) {
	mostSeen := uint64(64 * s.steps.records) // so that a hold is short when little is to be done
	it, err := s.part.Cursor(ctx, engine.Record, m.next, nil)
	if err != nil {
		return 0, nil, s.damage(err)
	}
	defer it.Close()
	var bind keyring.Binding
	for ok := it.First(); ok; ok = it.Next() {
		id := it.ID()
		if w.full() || seen == mostSeen {
			return seen, bytes.Clone(id), nil
		}
		seen++
		record, err := it.Value()
		if err != nil {
			return seen, nil, s.damage(err)
		}
		in, err := keyring.ParseRecord(record)
		if err != nil {
			return seen, nil, fmt.Errorf("block %s: %w", shownID(id), err)
		}
		if in.Epoch >= m.epoch {
			continue
		}
		s.bind(&bind, id)
		again, err := h.Rewrap(ctx, nil, record, &bind)
		if err != nil {
			return seen, nil, fmt.Errorf("block %s: %w", shownID(id), err)
		}
		w.was = append(w.was, engine.Was{ID: bytes.Clone(id), Record: bytes.Clone(record)})
		if err := w.batch.PutRecord(id, again); err != nil {
			return seen, nil, err
		}
	}
	return seen, nil, s.damage(it.Err())
}
