package row

import (
	"context"
	"errors"
	"math"
	"slices"

	"github.com/blockseal/blockseal/internal/engine"
	"github.com/blockseal/blockseal/internal/inner"
	"github.com/blockseal/blockseal/keyring"
)

// NoEpoch is the epoch of a batch that has no DEK records.
const NoEpoch = math.MaxUint32

// recordEpoch returns the epoch of a record that was just made.
func recordEpoch(record []byte) uint32 {
	in, err := keyring.ParseRecord(record)
	if err != nil {
		return 0 // older than any: whoever asks will look at the record, and say
	}
	return in.Epoch
}

// apply makes the changes of a batch visible, whose DEK records name no epoch before
// oldest. Unless Config.NoSync, durable must be called before the batch is closed; what has
// to be done besides is best done between the two, while the log is written.
func (t *Table) apply(ctx context.Context, h *keyring.Hold, b engine.Batch, oldest uint32, was ...engine.Was) error {
	for {
		g, err := t.judge(ctx, h, b, oldest)
		if err != nil {
			return err
		}
		g.Was = was
		err = t.Part.Apply(ctx, b, g, !t.noSync)
		if err == nil {
			t.changed()
			return nil
		}
		if !errors.Is(err, engine.ErrFloor) {
			return Damage(err) // of the rows that it rests on, which the engine reads
		}
		oldest = g.Epoch // and the floor was raised in between: judge it again
	}
}

// durable waits until what was applied is durable, unless Config.NoSync.
func (t *Table) durable(b engine.Batch) error {
	if t.noSync {
		return nil
	}
	return b.Wait()
}

// Commit applies a batch of several changes, with which it keeps the caches in step,
// and waits until it is durable.
func (t *Table) Commit(ctx context.Context, h *keyring.Hold, b engine.Batch, oldest uint32) error {
	changes := make([]uint64, 0, 64) // no allocation for a small batch
	c, next, err := b.Change(0)
	for ; err == nil && next > 0; c, next, err = b.Change(next) {
		changes = append(changes, t.rows.announce(c.ID))
	}
	if err == nil {
		err = t.apply(ctx, h, b, oldest)
	}
	for _, c := range changes {
		t.rows.report(c)
	}
	if err != nil {
		return err
	}
	// The engine may have kept a large batch and left an empty one. Then the cache holds
	// older records of these blocks, which readers notice.
	for c, next, err = b.Change(0); err == nil && next > 0; c, next, err = b.Change(next) { // it was read once
		if c.Deleted {
			t.records.drop(c.ID)
		} else {
			t.records.put(c.ID, c.Record)
		}
	}
	return t.durable(b)
}

// judge looks at a batch by the floor of now, and rewraps, in the batch's own memory, the
// records that name an epoch which is being replaced: those of a batch that was begun before
// RotateEpoch was. Whatever raises the floor after this look has the engine refuse the batch.
func (t *Table) judge(ctx context.Context, h *keyring.Hold, b engine.Batch, oldest uint32) (engine.Guard, error) {
	floor := t.Part.Floor()
	g := engine.Guard{Floor: floor.Revision, Epoch: oldest}
	if oldest != NoEpoch && h.For(inner.Block{}).Wrapping() == keyring.ByKEK {
		if err := t.checkKEKs(b, floor); err != nil {
			return g, err
		}
	}
	if oldest >= floor.Epoch {
		return g, nil
	}
	if oldest == h.For(inner.Block{}).CurrentEpoch() && !h.For(inner.Block{}).EpochIsShared() {
		g.Below = true // there are too many epochs for another; see Checkpoint
		return g, nil
	}
	g.Epoch = NoEpoch
	var bind keyring.Binding
	c, next, err := b.Change(0)
	for ; err == nil && next > 0; c, next, err = b.Change(next) {
		if c.Deleted {
			continue
		}
		if recordEpoch(c.Record) < floor.Epoch {
			t.Bind(&bind, c.ID)
			again, err := h.For(inner.Block{}).Rewrap(ctx, make([]byte, 0, len(c.Record)), c.Record, &bind)
			if err != nil {
				return g, err
			}
			copy(c.Record, again) // a record's size depends on its type alone
		}
		g.Epoch = min(g.Epoch, recordEpoch(c.Record))
	}
	g.Below = g.Epoch < floor.Epoch // likewise
	return g, err
}

// checkKEKs refuses a batch with a record that is wrapped by a KEK which has left the
// keyring, or is leaving it: it would never open again. floor was taken before, and the batch
// is applied by it or looked at again.
//
// An id in the keyring's table means the KEK that it meant when the record was made,
// because none is ever given twice. What is in the table now stays in it until dropUnusedKEKs takes it out: that
// has the floor refuse it first, before it looks for records, so that the batch is either
// applied before, and seen, or refused. The KEK that wraps the store is exempt: if
// it was about to be dropped, the store has moved to it since, and it is not dropped.
func (t *Table) checkKEKs(b engine.Batch, floor engine.Floor) error {
	keks, active := t.keys.KEKs()
	c, next, err := b.Change(0)
	for ; err == nil && next > 0; c, next, err = b.Change(next) {
		if c.Deleted {
			continue
		}
		in, err := keyring.ParseRecord(c.Record)
		if err != nil {
			return err
		}
		if in.Wrapping != keyring.ByKEK {
			continue
		}
		if _, listed := keks[in.KEK]; !listed || slices.Contains(floor.KEKs, in.KEK) && in.KEK != active {
			return ErrStale
		}
	}
	return err
}

// Replace applies a batch in the place of the records that were read, but for those which
// somebody else has replaced meanwhile, which it counts. It is not durable yet. The caller's
// records are of the batch's changes.
func (t *Table) Replace(ctx context.Context, b engine.Batch, was []engine.Was) (lost int, err error) {
	if lost, err = t.Part.Replace(ctx, b, was); err != nil {
		return lost, Damage(err)
	}
	if lost == len(was) {
		return lost, nil
	}
	t.changed()
	c, next, err := b.Change(0)
	for ; err == nil && next > 0; c, next, err = b.Change(next) {
		t.records.replace(c.ID, c.Record)
	}
	return lost, nil // what is in the cache is not trusted
}
