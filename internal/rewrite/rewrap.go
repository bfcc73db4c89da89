package rewrite

import (
	"context"
	"errors"
	"fmt"
	"time"

	"github.com/blockseal/blockseal/internal/engine"
	"github.com/blockseal/blockseal/internal/inner"
	"github.com/blockseal/blockseal/internal/progress"
	"github.com/blockseal/blockseal/internal/row"
	"github.com/blockseal/blockseal/keyring"
	"github.com/blockseal/blockseal/vault"
)

// RewrapDEKs wraps the DEKs that an older KEK wraps (ByKEK) with the KEK that wraps the store, and
// then drops the KEKs that no record names. It acquires the turn for a few records at a time.
//
// It leaves a record alone whose DEK does not open its block, and goes on.
func (w *Rewriter) RewrapDEKs(ctx context.Context, report progress.Report) error {
	for {
		err := w.rewrapAll(ctx, report)
		if !errors.Is(err, keyring.ErrMoved) && !errors.Is(err, errBehind) {
			return err
		}
		// The KEK was changed meanwhile, and all has to be rewrapped again. Or somebody committed
		// records of the KEK before behind the walk; there are fewer of those each time.
	}
}

// errBehind says that a record of an older KEK was written behind the walk.
var errBehind = errors.New("block: written behind the walk")

func (w *Rewriter) rewrapAll(ctx context.Context, report progress.Report) (err error) {
	moves := w.Keys.KEKMoves() // first: DropKEKs fails if the KEK was changed after this
	keks, active := w.Keys.KEKs()
	switch {
	case w.ReadOnly:
		return keyring.ErrReadOnly
	case w.Ctx.Err() != nil:
		return keyring.ErrClosed
	case len(keks) == 1:
		return nil // no record can need another
	}
	isDue := func(in keyring.RecordInfo) bool { return in.Wrapping == keyring.ByKEK && in.KEK != active }
	var total uint64
	if report != nil {
		if total, err = w.countDue(ctx, isDue); err != nil {
			return err
		}
	}
	mt := w.Board.Meter(WorkRewrap, report, total, func(ctx context.Context) (uint64, error) { return w.countDue(ctx, isDue) })
	defer func() {
		if errors.Is(err, keyring.ErrMoved) || errors.Is(err, errBehind) {
			mt.End(nil) // another meter follows
			return
		}
		mt.End(err)
	}()
	var left leftRecords
	for next, more := []byte(nil), true; more; {
		if err := ctx.Err(); err != nil {
			return err
		}
		next, more, err = w.rewrapChunk(ctx, next, isDue, mt, &left)
		if errors.Is(err, vault.ErrThrottled) {
			err = w.Keys.For(inner.Block{}).Sleep(ctx, max(vault.RetryAfter(err), time.Second)) // without the turn
		}
		if err != nil {
			return err
		}
		mt.Between()
	}
	if err := w.AcquireTurn(ctx, "drop KEKs"); err != nil {
		return err
	}
	named, err := w.dropUnusedKEKs(ctx, moves)
	w.ReleaseTurn()
	if err != nil {
		return err
	}
	if named && left.n == 0 {
		return errBehind
	}
	if left.n > 0 {
		return fmt.Errorf("%d records were not rewrapped; the first: %w", left.n, left.first)
	}
	mt.Done()
	return nil
}

func (w *Rewriter) countDue(ctx context.Context, isDue func(keyring.RecordInfo) bool) (n uint64, err error) {
	err = w.Table.EachRecord(ctx, nil, func(_, _ []byte, in keyring.RecordInfo) (bool, error) {
		if isDue(in) {
			n++
		}
		return true, nil
	})
	return n, err
}

type leftRecords struct {
	n     int
	first error
}

// rewrapChunk rewraps the next records that are due, until the vault throttles or the meter is due,
// and returns the next id. It has a hold for one record at a time, since each asks the vault.
func (w *Rewriter) rewrapChunk(ctx context.Context, from []byte, isDue func(keyring.RecordInfo) bool, mt *progress.Meter, left *leftRecords) (next []byte, more bool, err error) {
	if err := w.AcquireTurn(ctx, "rewrap DEKs"); err != nil {
		return nil, false, err
	}
	defer w.ReleaseTurn()
	if err := w.Use.Begin(); err != nil {
		return nil, false, err
	}
	todo, _, next, err := w.list(ctx, w.Table.Part, from, isDue)
	w.Use.End()
	if err != nil {
		return nil, false, err
	}
	for i, d := range todo {
		if err := w.Budget.Wait(ctx, callsPerRewrap); err != nil {
			return nil, false, err
		}
		if mt.Due() && i > 0 {
			return d.ID, true, nil
		}
		mt.Called(callsPerRewrap)
		if err := w.rewrap(ctx, d.Was); errors.Is(err, row.ErrUnopened) {
			if left.n++; left.n == 1 {
				left.first = err
			}
		} else if err != nil {
			return d.ID, true, err
		}
		mt.Add(1, 0)
	}
	return next, next != nil, nil
}

// rewrap moves one record to the present KEK, unless somebody writes the block meanwhile.
func (w *Rewriter) rewrap(ctx context.Context, was engine.Was) error {
	h, err := w.Keys.Acquire()
	if err != nil {
		return err
	}
	defer func() { h.Release() }()
	record, err := w.Table.RewrapKEK(ctx, &h, was)
	if errors.Is(err, row.ErrWritten) {
		return nil
	}
	var in keyring.RecordInfo
	if err == nil {
		in, err = keyring.ParseRecord(record)
	}
	if err == nil {
		err = w.inheritAge(ctx, &h, in.Epoch) // the DEK is older than this epoch
	}
	if err != nil {
		return fmt.Errorf("block %s: %w", row.Shown(was.ID), err)
	}
	r := w.replacement()
	defer r.Close()
	if err := r.putRecord(was, record); err != nil {
		return err
	}
	return r.commit(ctx)
}

// dropUnusedKEKs drops the KEK versions that no record names from the keyring. named reports
// whether records name any of the others but the present one. It returns keyring.ErrMoved if the
// KEK was changed since KEKMoves returned moves.
//
// The caller has the turn: nobody checks what rewriting operations write as checkKEKs checks a
// commit, so that each of them wraps and writes within one turn.
func (w *Rewriter) dropUnusedKEKs(ctx context.Context, moves uint64) (named bool, err error) {
	keks, active := w.Keys.KEKs()
	if w.Keys.KEKMoves() != moves {
		return false, keyring.ErrMoved
	}
	var dropping []uint32
	for id := range keks {
		if id != active {
			dropping = append(dropping, id)
		}
	}
	part := w.Table.Part
	if err := part.RefuseKEKs(ctx, dropping); err != nil {
		return false, err
	}
	unused, err := w.unusedKEKs(ctx, dropping)
	if _, shared := part.(engine.Turner); shared && err == nil && len(unused) > 0 {
		// If the turn was lost during the walk, the next owner may have taken the refusal back, and
		// somebody written behind the walk. To refuse once more is refused then.
		err = part.RefuseKEKs(ctx, dropping)
	}
	if err == nil {
		if err = w.Keys.DropKEKs(ctx, moves, unused...); err != nil && !errors.Is(err, keyring.ErrMoved) {
			// A crash may find the document that the storage says it did not save. So nothing is
			// written under a KEK that this document does not list, until there is another
			// document.
			return false, err
		}
	}
	return len(unused) < len(dropping), errors.Join(err, part.RefuseKEKs(context.WithoutCancel(ctx), nil))
}

// unusedKEKs returns the KEKs of dropping that no record names. It walks all records again: when
// the first walk began, writers may still have been wrapping with them.
func (w *Rewriter) unusedKEKs(ctx context.Context, dropping []uint32) (unused []uint32, err error) {
	h, err := w.Keys.Acquire()
	if err != nil {
		return nil, err
	}
	err = w.Table.Part.Sync(ctx)
	h.Release()
	if err != nil {
		return nil, err
	}
	used := map[uint32]bool{}
	if err := w.Table.EachRecord(ctx, nil, func(_, _ []byte, in keyring.RecordInfo) (bool, error) {
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
