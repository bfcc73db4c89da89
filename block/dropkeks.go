package block

import (
	"context"
	"errors"

	"github.com/blockseal/blockseal/internal/engine"
	"github.com/blockseal/blockseal/keyring"
)

// checkKEKs refuses a batch with a record that is wrapped by a KEK which has left the
// keyring, or is leaving it: it would never open again. s.gate is held, and stays held
// until the batch is applied.
//
// An id in the keyring's table means the KEK that it meant when the record was made,
// because none is used again while the keyring is open, which is as long as a batch
// can be. What is in the table now stays in it until dropUnusedKEKs takes it out: that
// has the gate to itself once, before it looks for records, so that the batch is either
// applied before, and seen, or refused here. The KEK that wraps the store is exempt: if
// it was about to be dropped, the store has moved to it since, and it is not dropped.
func (s *Store) checkKEKs(b engine.Batch) error {
	var dropping map[uint32]bool
	if d := s.dropping.Load(); d != nil {
		dropping = *d
	}
	keks, active := s.keys.KEKs()
	return b.Each(func(key, value []byte, deleted bool) error {
		if deleted || key[0] != spaceDEK {
			return nil
		}
		in, err := keyring.ParseRecord(value)
		if err != nil || in.Wrapping != keyring.ByKEK {
			return err
		}
		if _, listed := keks[in.KEK]; !listed || dropping[in.KEK] && in.KEK != active {
			return ErrStale
		}
		return nil
	})
}

// dropUnusedKEKs takes the KEK versions out of the keyring that no record names any
// more, or returns keyring.ErrMoved if the KEK was changed since moves was counted.
// The caller has the turn of rewriting operations: what those write is not checked as
// a commit is, and each of them wraps and writes within one turn.
func (s *Store) dropUnusedKEKs(ctx context.Context, moves uint64) error {
	keks, active := s.keys.KEKs()
	if s.keys.KEKMoves() != moves {
		return keyring.ErrMoved
	}
	dropping := map[uint32]bool{}
	for id := range keks {
		dropping[id] = id != active
	}
	s.setDropping(&dropping)
	unused, err := s.unusedKEKs(ctx, dropping)
	if err == nil {
		if err = s.keys.DropKEKs(ctx, moves, unused...); err != nil && !errors.Is(err, keyring.ErrMoved) {
			// A crash may find the document that could not be saved, as the storage
			// said: what it does not list is not written until there is another.
			return err
		}
	}
	s.setDropping(nil)
	return err
}

// setDropping sets the KEKs that are about to leave the keyring. When it returns, every
// commit that went by those before has been applied.
func (s *Store) setDropping(ids *map[uint32]bool) {
	s.gate.Lock()
	defer s.gate.Unlock()
	s.dropping.Store(ids)
}

// unusedKEKs returns those of the KEKs that no record names: one more walk, because
// writers may have been wrapping with the old ones when the first began.
func (s *Store) unusedKEKs(ctx context.Context, dropping map[uint32]bool) (unused []uint32, err error) {
	h, err := s.keys.Acquire()
	if err != nil {
		return nil, err
	}
	err = s.makeDurable()
	h.Release()
	if err != nil {
		return nil, err
	}
	used := map[uint32]bool{}
	if err := s.eachRecord(ctx, nil, func(_, _ []byte, in keyring.RecordInfo) (bool, error) {
		if in.Wrapping == keyring.ByKEK {
			used[in.KEK] = true
		}
		return true, nil
	}); err != nil {
		return nil, err
	}
	for id, leaving := range dropping {
		if leaving && !used[id] {
			unused = append(unused, id)
		}
	}
	return unused, nil
}
