package block

import (
	"bytes"
	"context"
	"errors"
	"fmt"

	"github.com/blockseal/blockseal/internal/engine"
	"github.com/blockseal/blockseal/keyring"
)

// Get appends the block with the given id to dst and returns the extended slice.
// On error it returns nil, and dst's spare capacity may have been written to.
//
// Errors: [ErrNotFound], [ErrInaccessible], [ErrCorrupt], [ErrInvalidID],
// [ErrClosed].
func (s *Store) Get(ctx context.Context, id, dst []byte) ([]byte, error) {
	if err := s.mayRead(ctx, failedGet, id); err != nil {
		return nil, wrapErr("get", id, err)
	}
	h, err := s.keys.Acquire()
	if err != nil {
		s.counts.get(0, err)
		return nil, wrapErr("get", id, err)
	}
	defer func() { h.Release() }()
	sc := s.take(0, id)
	defer s.give(sc)
	out, err := s.get(ctx, &h, sc, id, dst)
	s.counts.get(len(out)-len(dst), err)
	if err != nil {
		return nil, wrapErr("get", id, err)
	}
	return out, nil
}

func (s *Store) mayRead(ctx context.Context, op failureOp, id []byte) error {
	if err := checkID(id); err != nil {
		return err
	}
	return s.counts.fail(op, ctx.Err())
}

// errMismatch says that a DEK record and a block that were read one after the
// other do not fit together.
var errMismatch = errors.New("the DEK record and the block do not fit together")

// errAskVault says that a scratch holds a record and a sealed block that the vault is
// needed for. The hold is let go while it is asked, so that nothing of the engine's may
// be held.
var errAskVault = errors.New("the vault has to be asked")

// get reads a block that may be written at the same time. The record and the block
// are two look-ups, and the record may come from the cache; if they do not fit,
// both are read again from one state of the engine, which decides. A row that does
// not open is no evidence of anything.
func (s *Store) get(ctx context.Context, h *keyring.Hold, sc *scratch, id, dst []byte) ([]byte, error) {
	row, ticket := s.rows.get(id)
	if row != nil {
		sc.record = append(sc.record[:0], row.record()...)
		if out, err := s.unseal(ctx, h, sc, row.sealed(), dst); err == nil {
			return out, nil
		}
		s.rows.drop(row)
	}
	out, err := s.getOnce(ctx, h, sc, id, dst, ticket)
	if err == nil || errors.Is(err, ErrInaccessible) || errors.Is(err, ErrClosed) {
		return out, err
	}
	if !errors.Is(err, ErrCorrupt) && !errors.Is(err, errMismatch) && !errors.Is(err, ErrVersion) {
		return nil, err
	}
	state := s.db.State()
	out, err = s.getConsistent(ctx, h, sc, state, 0, id, dst)
	state.Release()
	if err == errAskVault {
		out, err = s.unsealKept(ctx, h, sc, dst)
	}
	if err != nil {
		return nil, err
	}
	s.records.put(id, sc.record)
	return out, nil
}

// getOnce is get without the row cache, of what may not fit together.
func (s *Store) getOnce(ctx context.Context, h *keyring.Hold, sc *scratch, id, dst []byte, t ticket) (out []byte, err error) {
	var cached bool
	if sc.record, cached = s.records.get(sc.record[:0], id); cached {
		return s.openBlock(ctx, h, sc, s.db, 0, id, dst, t)
	}
	// Not one of the latest, whose records are cached and which Pebble finds in its
	// memtables at once: now iterators are faster, if there are any.
	if l := s.db.Lookup(&sc.reading); l != nil {
		out, err = s.getBoth(ctx, h, sc, l, id, dst, t)
		l.Release()
	} else {
		out, err = s.getBoth(ctx, h, sc, s.db, id, dst, t)
	}
	if err == errAskVault {
		return s.unsealKept(ctx, h, sc, dst)
	}
	return out, err
}

func (s *Store) getBoth(ctx context.Context, h *keyring.Hold, sc *scratch, r engine.Getter, id, dst []byte, t ticket) (_ []byte, err error) {
	if sc.record, err = lookup(r, sc, spaceDEK, 0, id, sc.record[:0]); errors.Is(err, engine.ErrNotFound) {
		// A block never exists without its record.
		return nil, s.absent(r, sc, 0, id)
	} else if err != nil {
		return nil, s.damage(err)
	}
	s.records.put(id, sc.record)
	return s.openBlock(ctx, h, sc, r, 0, id, dst, t)
}

// getConsistent reads a block from a state of the engine that does not change.
func (s *Store) getConsistent(ctx context.Context, h *keyring.Hold, sc *scratch, r engine.Getter, partition uint32, id, dst []byte) ([]byte, error) {
	var err error
	sc.record, err = lookup(r, sc, spaceDEK, partition, id, sc.record[:0])
	switch {
	case errors.Is(err, engine.ErrNotFound):
		return nil, s.absent(r, sc, partition, id)
	case err != nil:
		return nil, s.damage(err)
	}
	out, err := s.openBlock(ctx, h, sc, r, partition, id, dst, ticket{})
	if errors.Is(err, errMismatch) {
		return nil, fmt.Errorf("the block has a DEK record and no data: %w", ErrCorrupt)
	}
	return out, err
}

// absent returns ErrNotFound for a block without a DEK record, unless its data is
// there, which is damage.
func (s *Store) absent(r engine.Getter, sc *scratch, partition uint32, id []byte) error {
	sc.lookup = appendKey(sc.lookup[:0], spaceData, partition, id)
	_, closer, err := r.Get(sc.lookup)
	if errors.Is(err, engine.ErrNotFound) {
		return ErrNotFound
	}
	if err != nil {
		return s.damage(err)
	}
	closer.Close()
	if r == engine.Getter(s.db) {
		// The block may have been written between the two look-ups.
		state := s.db.State()
		defer state.Release()
		sc.lookup[0] = spaceDEK
		if _, closer, err := state.Get(sc.lookup); err == nil {
			closer.Close()
			return ErrNotFound // as it was at the first look-up
		}
		return s.absent(state, sc, partition, id)
	}
	return fmt.Errorf("the block has data and no DEK record: %w", ErrCorrupt)
}

// lookup appends the value of a block's key in a space to dst.
func lookup(r engine.Getter, sc *scratch, space byte, partition uint32, id, dst []byte) ([]byte, error) {
	sc.lookup = appendKey(sc.lookup[:0], space, partition, id)
	v, closer, err := r.Get(sc.lookup)
	if err != nil {
		return dst, err
	}
	dst = append(dst, v...)
	return dst, closer.Close()
}

// openBlock opens the DEK in sc.record and with it the block, which it appends to
// dst and, with a ticket, remembers; or it returns errAskVault and leaves the sealed
// block in sc.
func (s *Store) openBlock(ctx context.Context, h *keyring.Hold, sc *scratch, r engine.Getter, partition uint32, id, dst []byte, t ticket) ([]byte, error) {
	sc.lookup = appendKey(sc.lookup[:0], spaceData, partition, id)
	value, closer, err := r.Get(sc.lookup)
	if errors.Is(err, engine.ErrNotFound) {
		return nil, errMismatch
	}
	if err != nil {
		return nil, s.damage(err)
	}
	if len(sc.record) != keyring.RecordSize {
		sc.sealed = bytes.Clone(value)
		closer.Close()
		return nil, errAskVault
	}
	defer closer.Close()
	out, err := s.unseal(ctx, h, sc, value, dst)
	if err == nil {
		s.rows.add(t, sc.record, value)
	}
	return out, err
}

// unseal opens the DEK in sc.record and with it value, a sealed block.
func (s *Store) unseal(ctx context.Context, h *keyring.Hold, sc *scratch, value, dst []byte) ([]byte, error) {
	sealed, err := checkSealed(value)
	if err != nil {
		return nil, err
	}
	if err := h.OpenDEK(ctx, &sc.key, sc.record, &sc.binding); err != nil {
		return nil, err
	}
	out, err := sc.key.Open(dst, sealed, sc.aad)
	if err != nil {
		return nil, fmt.Errorf("the block does not authenticate under its DEK: it was altered, or is another block's or another store's: %w", ErrCorrupt)
	}
	return out, nil
}

// unsealKept is unseal of the sealed block that openBlock left in sc.
func (s *Store) unsealKept(ctx context.Context, h *keyring.Hold, sc *scratch, dst []byte) ([]byte, error) {
	value := sc.sealed
	sc.sealed = nil // which may be large, and scratches are kept
	return s.unseal(ctx, h, sc, value, dst)
}

// Has reports whether there is a block with the given id. It opens nothing: a
// damaged block is there too.
func (s *Store) Has(ctx context.Context, id []byte) (bool, error) {
	if err := s.mayRead(ctx, failedHas, id); err != nil {
		return false, wrapErr("has", id, err)
	}
	h, err := s.keys.Acquire()
	if err != nil {
		return false, wrapErr("has", id, s.counts.fail(failedHas, err))
	}
	defer h.Release()
	ok, err := s.has(s.db, id)
	if err != nil {
		return false, wrapErr("has", id, s.counts.fail(failedHas, err))
	}
	return ok, nil
}

func (s *Store) has(r engine.Getter, id []byte) (bool, error) {
	_, closer, err := r.Get(appendKey(nil, spaceDEK, 0, id))
	if errors.Is(err, engine.ErrNotFound) {
		return false, nil
	}
	if err != nil {
		return false, s.damage(err)
	}
	return true, closer.Close()
}
