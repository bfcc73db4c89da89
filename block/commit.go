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

// commit applies a batch whose DEK records name no epoch before oldest, and waits
// until it is durable, unless Options.NoSync.
func (s *Store) commit(ctx context.Context, h *keyring.Hold, b engine.Batch, oldest uint32) error {
	sync := !s.opts.NoSync
	s.gate.RLock()
	err := s.refresh(ctx, h, b, oldest)
	if err == nil {
		err = s.db.Apply(b, sync)
	}
	s.gate.RUnlock()
	if err != nil || !sync {
		return err
	}
	return b.Wait()
}

// commitMany is commit for a batch of several changes, with which it keeps the
// caches in step.
func (s *Store) commitMany(ctx context.Context, h *keyring.Hold, b engine.Batch, oldest uint32) error {
	// The engine may keep a large batch and empty it, so that the cache is told
	// before. Until the commit it is ahead of the engine, which readers notice.
	var changes []uint64
	defer func() {
		for _, c := range changes {
			s.rows.report(c)
		}
	}()
	err := b.Each(func(key, value []byte, deleted bool) error {
		if len(key) <= prefixSize || key[0] != spaceDEK {
			return nil
		}
		if deleted {
			s.records.drop(key[prefixSize:])
		} else {
			s.records.put(key[prefixSize:], value)
		}
		changes = append(changes, s.rows.announce(key[prefixSize:]))
		return nil
	})
	if err != nil {
		return err
	}
	return s.commit(ctx, h, b, oldest)
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
	if oldest >= floor {
		return nil
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
