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
	sc := s.take(id)
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

// get reads a block that may be written at the same time. The record may come from the
// cache, or be of another moment than the block; if they do not fit, both are read again
// from one state of the engine, which decides. A row that does not open is no evidence of
// anything.
func (s *Store) get(ctx context.Context, h *keyring.Hold, sc *scratch, id, dst []byte) ([]byte, error) {
	row, ticket := s.rows.get(id)
	if row != nil {
		sc.row.Record = append(sc.row.Record[:0], row.record()...)
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
	if out, err = s.getConsistent(ctx, h, sc, s.part, id, dst); err != nil {
		return nil, err
	}
	s.records.put(id, sc.row.Record)
	return out, nil
}

// getOnce is get without the row cache, of what may not fit together.
func (s *Store) getOnce(ctx context.Context, h *keyring.Hold, sc *scratch, id, dst []byte, t ticket) (out []byte, err error) {
	var cached bool
	want := engine.Both
	if sc.row.Record, cached = s.records.get(sc.row.Record[:0], id); cached {
		want = engine.Sealed
	}
	err = s.part.Get(ctx, id, want, &sc.row)
	defer sc.row.Release()
	switch {
	case cached && errors.Is(err, engine.ErrNotFound):
		return nil, errMismatch
	case errors.Is(err, engine.ErrNotFound):
		return nil, ErrNotFound
	case err != nil:
		return nil, s.damage(err)
	case sc.row.Has != want:
		return nil, half(sc.row.Has)
	}
	if !cached {
		s.records.put(id, sc.row.Record)
	}
	return s.openRow(ctx, h, sc, dst, t)
}

// getConsistent reads a block as it is in one state of the engine.
func (s *Store) getConsistent(ctx context.Context, h *keyring.Hold, sc *scratch, r engine.Reader, id, dst []byte) ([]byte, error) {
	err := r.Get(ctx, id, engine.Both|engine.Together, &sc.row)
	defer sc.row.Release()
	switch {
	case errors.Is(err, engine.ErrNotFound):
		return nil, ErrNotFound
	case err != nil:
		return nil, s.damage(err)
	case sc.row.Has != engine.Both:
		return nil, half(sc.row.Has)
	}
	return s.openRow(ctx, h, sc, dst, ticket{})
}

// half says what is missing of a row of which the engine has one part.
func half(has engine.Parts) error {
	if has == engine.Record {
		return errNoData
	}
	return errNoRecord
}

// openRow opens the DEK in the scratch's row and with it the block, which it appends to dst
// and, with a ticket, remembers.
func (s *Store) openRow(ctx context.Context, h *keyring.Hold, sc *scratch, dst []byte, t ticket) ([]byte, error) {
	value := sc.row.Sealed
	if len(sc.row.Record) != keyring.RecordSize {
		// The vault has to be asked. The hold is let go meanwhile, so that nothing of the
		// engine's may be held.
		value = bytes.Clone(value)
		sc.row.Release()
	}
	out, err := s.unseal(ctx, h, sc, value, dst)
	if err == nil {
		s.rows.add(t, sc.row.Record, value)
	}
	return out, err
}

// unseal opens the DEK in sc.row.Record and with it value, a sealed block.
func (s *Store) unseal(ctx context.Context, h *keyring.Hold, sc *scratch, value, dst []byte) ([]byte, error) {
	sealed, err := checkSealed(value)
	if err != nil {
		return nil, err
	}
	if err := h.OpenDEK(ctx, &sc.key, sc.row.Record, &sc.binding); err != nil {
		return nil, err
	}
	out, err := sc.key.Open(dst, sealed, sc.aad)
	if err != nil {
		return nil, fmt.Errorf("the block does not authenticate under its DEK: it was altered, or is another block's or another store's: %w", ErrCorrupt)
	}
	return out, nil
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
	ok, err := s.has(ctx, s.part, id)
	if err != nil {
		return false, wrapErr("has", id, s.counts.fail(failedHas, err))
	}
	return ok, nil
}

func (s *Store) has(ctx context.Context, r engine.Reader, id []byte) (bool, error) {
	sc := s.take(id)
	defer s.give(sc)
	defer sc.row.Release()
	err := r.Get(ctx, id, engine.Record, &sc.row)
	if errors.Is(err, engine.ErrNotFound) {
		return false, nil
	}
	return err == nil, s.damage(err)
}
