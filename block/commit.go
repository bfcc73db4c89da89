package block

import (
	"context"
	"encoding/binary"
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
	s.gate.RLock()
	defer s.gate.RUnlock()
	if err := s.refresh(ctx, h, b, oldest); err != nil {
		return err
	}
	if err := s.db.Apply(b, !s.opts.NoSync); err != nil {
		return err
	}
	s.changed()
	return nil
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
	err := eachRecord(b, func(id, _ []byte, _ bool) { changes = append(changes, s.rows.announce(id)) })
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
	if !b.Empty() {
		_ = eachRecord(b, func(id, record []byte, deleted bool) { // it was read once
			if deleted {
				s.records.drop(id)
			} else {
				s.records.put(id, record)
			}
		})
	}
	return s.durable(b)
}

// eachRecord calls f for each DEK record that a batch sets or deletes, with its block's id.
func eachRecord(b engine.Batch, f func(id, record []byte, deleted bool)) error {
	return b.Each(func(key, value []byte, deleted bool) error {
		if len(key) > prefixSize && key[0] == spaceDEK {
			f(key[prefixSize:], value, deleted)
		}
		return nil
	})
}

// refresh rewraps, in the batch's own memory, the records that name an epoch which
// is being replaced: those of a batch that was begun before RotateEpoch was.
// s.gate is held.
func (s *Store) refresh(ctx context.Context, h *keyring.Hold, b engine.Batch, oldest uint32) error {
	if oldest != noEpoch && h.Wrapping() == keyring.ByKEK {
		if err := s.checkKEKs(b); err != nil {
			return err
		}
	}
	floor := s.floor.Load()
	if oldest >= floor || oldest == h.CurrentEpoch() && !h.EpochIsShared() {
		return nil // the second if there are too many epochs for another; see Checkpoint
	}
	var bind keyring.Binding
	return b.Each(func(key, value []byte, deleted bool) error {
		if deleted || key[0] != spaceDEK || binary.BigEndian.Uint32(value[1:]) >= floor {
			return nil
		}
		bind.Set(key[1:])
		again, err := h.Rewrap(ctx, make([]byte, 0, len(value)), value, &bind)
		if err != nil {
			return err
		}
		copy(value, again) // a record's size depends on its type alone
		return nil
	})
}
