package block

import (
	"context"
	"errors"
	"math"

	"github.com/blockseal/blockseal/internal/engine"
	"github.com/blockseal/blockseal/keyring"
)

// noEpoch is the epoch of a batch that has no DEK records.
const noEpoch = math.MaxUint32

// recordEpoch returns the epoch of a record that was just made.
func recordEpoch(record []byte) uint32 {
	in, err := keyring.ParseRecord(record)
	if err != nil {
		return 0 // older than any: whoever asks will look at the record, and say
	}
	return in.Epoch
}

// apply makes the changes of a batch visible, whose DEK records name no epoch before
// oldest. Unless Options.NoSync, durable must be called before the batch is closed; what has
// to be done besides is best done between the two, while the log is written.
func (s *Store) apply(ctx context.Context, h *keyring.Hold, b engine.Batch, oldest uint32) error {
	for {
		g, err := s.judge(ctx, h, b, oldest)
		if err != nil {
			return err
		}
		err = s.part.Apply(ctx, b, g, !s.opts.NoSync)
		if err == nil {
			s.changed()
			return nil
		}
		if !errors.Is(err, engine.ErrFloor) {
			return err
		}
		oldest = g.Epoch // and the floor was raised in between: judge it again
	}
}

// durable waits until what was applied is durable, unless Options.NoSync.
func (s *Store) durable(b engine.Batch) error {
	if s.opts.NoSync {
		return nil
	}
	return b.Wait()
}

// commitMany applies a batch of several changes, with which it keeps the caches in step,
// and waits until it is durable.
func (s *Store) commitMany(ctx context.Context, h *keyring.Hold, b engine.Batch, oldest uint32) error {
	changes := make([]uint64, 0, 64) // no allocation for a small batch
	c, next, err := b.Change(0)
	for ; err == nil && next > 0; c, next, err = b.Change(next) {
		changes = append(changes, s.rows.announce(c.ID))
	}
	if err == nil {
		err = s.apply(ctx, h, b, oldest)
	}
	for _, c := range changes {
		s.rows.report(c)
	}
	if err != nil {
		return err
	}
	// The engine may have kept a large batch and left an empty one. Then the cache holds
	// older records of these blocks, which readers notice.
	for c, next, err = b.Change(0); err == nil && next > 0; c, next, err = b.Change(next) { // it was read once
		if c.Deleted {
			s.records.drop(c.ID)
		} else {
			s.records.put(c.ID, c.Record)
		}
	}
	return s.durable(b)
}

// judge looks at a batch by the floor of now, and rewraps, in the batch's own memory, the
// records that name an epoch which is being replaced: those of a batch that was begun before
// RotateEpoch was. Whatever raises the floor after this look has the engine refuse the batch.
func (s *Store) judge(ctx context.Context, h *keyring.Hold, b engine.Batch, oldest uint32) (engine.Guard, error) {
	floor := s.part.Floor()
	g := engine.Guard{Floor: floor.Revision, Epoch: oldest}
	if oldest != noEpoch && h.Wrapping() == keyring.ByKEK {
		if err := s.checkKEKs(b, floor); err != nil {
			return g, err
		}
	}
	if oldest >= floor.Epoch {
		return g, nil
	}
	if oldest == h.CurrentEpoch() && !h.EpochIsShared() {
		g.Below = true // there are too many epochs for another; see Checkpoint
		return g, nil
	}
	g.Epoch = noEpoch
	var bind keyring.Binding
	c, next, err := b.Change(0)
	for ; err == nil && next > 0; c, next, err = b.Change(next) {
		if c.Deleted {
			continue
		}
		if recordEpoch(c.Record) < floor.Epoch {
			s.bind(&bind, c.ID)
			again, err := h.Rewrap(ctx, make([]byte, 0, len(c.Record)), c.Record, &bind)
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
