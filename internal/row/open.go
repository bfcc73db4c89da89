package row

import (
	"bytes"
	"context"
	"errors"
	"fmt"

	"github.com/blockseal/blockseal/internal/engine"
	"github.com/blockseal/blockseal/keyring"
)

// errMismatch says that a DEK record and a sealed block were read from two engine states.
var errMismatch = errors.New("the DEK record and the block do not fit together")

// Get appends a block to dst; others may write the block meanwhile.
//
// The record may come from the cache, or from another engine state than the sealed block. If they
// do not fit, Get reads both again from one state, and only that result counts. A row from the row
// cache that does not open proves nothing. Where other processes write too, it is taken only if the
// engine still has its record.
func (t *Table) Get(ctx context.Context, h *keyring.Hold, id, dst []byte) ([]byte, error) {
	if t.common.Ready != nil {
		if err := t.common.Ready(); err != nil {
			return nil, err
		}
	}
	if !t.common.Shared {
		return t.getNow(ctx, h, id, dst)
	}
	ctx, end := within(ctx, h)
	out, err := t.getNow(ctx, h, id, dst)
	return out, end(err)
}

func (t *Table) getNow(ctx context.Context, h *keyring.Hold, id, dst []byte) ([]byte, error) {
	sc := t.borrow(id)
	defer t.giveBack(sc)
	r, tk := t.common.rows.get(t.salt, id)
	if r != nil && t.common.Shared {
		fresh, err := t.isFresh(ctx, sc, id, r)
		if err != nil {
			return nil, err
		}
		if !fresh {
			t.common.rows.drop(r)
			r = nil
		}
	}
	if r != nil {
		sc.row.Record = append(sc.row.Record[:0], r.record()...)
		if out, err := t.unseal(ctx, h, sc, r.sealed(), dst); err == nil {
			return out, nil
		}
		t.common.rows.drop(r)
	}
	out, err := t.getOnce(ctx, h, sc, id, dst, tk)
	if err == nil || errors.Is(err, keyring.ErrInaccessible) || errors.Is(err, keyring.ErrClosed) {
		return out, err
	}
	if !errors.Is(err, keyring.ErrCorrupt) && !errors.Is(err, errMismatch) && !errors.Is(err, keyring.ErrVersion) {
		return nil, err
	}
	if out, err = t.getAt(ctx, h, sc, t.Part, id, dst); err != nil {
		return nil, err
	}
	t.common.records.put(t.salt, id, sc.row.Record)
	return out, nil
}

// isFresh reports whether the engine has a row as it is in the cache: whether it has its DEK record.
// A record is made for one version of a block and is never used twice, so that it stands for the
// block. That costs a round trip, and not the block's.
func (t *Table) isFresh(ctx context.Context, sc *scratch, id []byte, r *row) (bool, error) {
	err := t.Part.Get(ctx, id, engine.Record, &sc.row)
	defer sc.row.Release()
	if errors.Is(err, engine.ErrNotFound) {
		return false, nil
	}
	return err == nil && bytes.Equal(sc.row.Record, r.record()), Damage(err)
}

// getOnce is Get without the row cache. Its record and block may not fit together.
func (t *Table) getOnce(ctx context.Context, h *keyring.Hold, sc *scratch, id, dst []byte, tk ticket) (out []byte, err error) {
	var cached bool
	want := engine.Both
	if sc.row.Record, cached = t.common.records.get(t.salt, sc.row.Record[:0], id); cached {
		want = engine.Sealed
	}
	err = t.Part.Get(ctx, id, want, &sc.row)
	defer sc.row.Release()
	switch {
	case cached && errors.Is(err, engine.ErrNotFound):
		return nil, errMismatch
	case errors.Is(err, engine.ErrNotFound):
		return nil, ErrNotFound
	case err != nil:
		return nil, Damage(err)
	case sc.row.Has != want:
		return nil, half(sc.row.Has)
	}
	if !cached {
		t.common.records.put(t.salt, id, sc.row.Record)
	}
	return t.openRow(ctx, h, sc, dst, tk)
}

// GetAt appends a block, as it is in one engine state, to dst.
func (t *Table) GetAt(ctx context.Context, h *keyring.Hold, r engine.Reader, id, dst []byte) ([]byte, error) {
	sc := t.borrow(id)
	defer t.giveBack(sc)
	if !t.common.Shared {
		return t.getAt(ctx, h, sc, r, id, dst)
	}
	ctx, end := within(ctx, h)
	out, err := t.getAt(ctx, h, sc, r, id, dst)
	return out, end(err)
}

func (t *Table) getAt(ctx context.Context, h *keyring.Hold, sc *scratch, r engine.Reader, id, dst []byte) ([]byte, error) {
	err := r.Get(ctx, id, engine.Both|engine.Together, &sc.row)
	defer sc.row.Release()
	switch {
	case errors.Is(err, engine.ErrNotFound):
		return nil, ErrNotFound
	case err != nil:
		return nil, Damage(err)
	case sc.row.Has != engine.Both:
		return nil, half(sc.row.Has)
	}
	return t.openRow(ctx, h, sc, dst, ticket{})
}

func half(has engine.Parts) error {
	if has == engine.Record {
		return ErrNoData
	}
	return errNoRecord
}

// openRow opens the DEK and then the block of the scratch's row, appends the block to dst, and adds
// the row to the row cache if tk is valid.
func (t *Table) openRow(ctx context.Context, h *keyring.Hold, sc *scratch, dst []byte, tk ticket) ([]byte, error) {
	value := sc.row.Sealed
	if len(sc.row.Record) != keyring.RecordSize {
		// The vault has to be asked, and the hold is released meanwhile: the row must not pin the
		// engine.
		value = bytes.Clone(value)
		sc.row.Release()
	}
	out, err := t.unseal(ctx, h, sc, value, dst)
	if err == nil {
		t.common.rows.add(tk, sc.row.Record, value)
	}
	return out, err
}

// unseal opens the DEK record in sc.row and then value, a sealed block.
func (t *Table) unseal(ctx context.Context, h *keyring.Hold, sc *scratch, value, dst []byte) ([]byte, error) {
	sealed, err := checkSealed(value)
	if err != nil {
		return nil, err
	}
	if err := h.OpenDEK(ctx, &sc.key, sc.row.Record, &sc.binding); err != nil {
		return nil, err
	}
	out, err := sc.key.Open(dst, sealed, sc.aad)
	if err != nil {
		return nil, fmt.Errorf("the block does not authenticate under its DEK: it was altered, or is another block's or another store's: %w", keyring.ErrCorrupt)
	}
	return out, nil
}

// Open appends the block of a whole pair to dst.
func (t *Table) Open(ctx context.Context, h *keyring.Hold, p Pair, dst []byte) ([]byte, error) {
	sc := t.borrow(p.ID)
	defer t.giveBack(sc)
	sc.row.Record = append(sc.row.Record[:0], p.Record...)
	return t.unseal(ctx, h, sc, p.Value, dst)
}

// Has reports whether a row has a DEK record. It opens nothing.
func (t *Table) Has(ctx context.Context, r engine.Reader, id []byte) (bool, error) {
	sc := t.borrow(id)
	defer t.giveBack(sc)
	defer sc.row.Release()
	err := r.Get(ctx, id, engine.Record, &sc.row)
	if errors.Is(err, engine.ErrNotFound) {
		return false, nil
	}
	return err == nil, Damage(err)
}
