package block

import (
	"context"
	"errors"
	"slices"

	"github.com/blockseal/blockseal/internal/engine"
	"github.com/blockseal/blockseal/keyring"
)

// checkKEKs refuses a batch with a record that is wrapped by a KEK which has left the
// keyring, or is leaving it: it would never open again. floor was taken before, and the batch
// is applied by it or looked at again.
//
// An id in the keyring's table means the KEK that it meant when the record was made,
// because none is used again while the keyring is open, which is as long as a batch
// can be. What is in the table now stays in it until dropUnusedKEKs takes it out: that
// has the floor refuse it first, before it looks for records, so that the batch is either
// applied before, and seen, or refused. The KEK that wraps the store is exempt: if
// it was about to be dropped, the store has moved to it since, and it is not dropped.
func (s *Store) checkKEKs(b engine.Batch, floor engine.Floor) error {
	keks, active := s.keys.KEKs()
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

// dropUnusedKEKs takes the KEK versions out of the keyring that no record names any
// more, or returns keyring.ErrMoved if the KEK was changed since moves was counted. It
// reports whether any is still named.
// The caller has the turn of rewriting operations: what those write is not checked as
// a commit is, and each of them wraps and writes within one turn.
func (s *Store) dropUnusedKEKs(ctx context.Context, moves uint64) (named bool, err error) {
	keks, active := s.keys.KEKs()
	if s.keys.KEKMoves() != moves {
		return false, keyring.ErrMoved
	}
	var dropping []uint32
	for id := range keks {
		if id != active {
			dropping = append(dropping, id)
		}
	}
	if err := s.part.RefuseKEKs(ctx, dropping); err != nil {
		return false, err
	}
	unused, err := s.unusedKEKs(ctx, dropping)
	if err == nil {
		if err = s.keys.DropKEKs(ctx, moves, unused...); err != nil && !errors.Is(err, keyring.ErrMoved) {
			// A crash may find the document that could not be saved, as the storage
			// said: what it does not list is not written until there is another.
			return false, err
		}
	}
	return len(unused) < len(dropping), errors.Join(err, s.part.RefuseKEKs(context.WithoutCancel(ctx), nil))
}

// unusedKEKs returns those of the KEKs that no record names: one more walk, because
// writers may have been wrapping with the old ones when the first began.
func (s *Store) unusedKEKs(ctx context.Context, dropping []uint32) (unused []uint32, err error) {
	h, err := s.keys.Acquire()
	if err != nil {
		return nil, err
	}
	err = s.part.Sync(ctx)
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
	for _, id := range dropping {
		if !used[id] {
			unused = append(unused, id)
		}
	}
	return unused, nil
}
