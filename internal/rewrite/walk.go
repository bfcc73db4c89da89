package rewrite

import (
	"bytes"
	"context"
	"fmt"

	"github.com/blockseal/blockseal/internal/engine"
	"github.com/blockseal/blockseal/internal/inner"
	"github.com/blockseal/blockseal/internal/progress"
	"github.com/blockseal/blockseal/internal/row"
	"github.com/blockseal/blockseal/keyring"
)

// cost is what a step of re-encrypting took.
type cost struct{ bytes, blocks uint64 }

// step does the next part of an operation, in one hold, and reports whether it was the last.
type step func(ctx context.Context, h *keyring.Hold, n int) (c cost, done bool, err error)

// walk takes the steps of an operation, each in a hold of the session that it began in. Between
// two of them nothing is held, the meter may tell its Report, and the pace is kept.
func (w *Rewriter) walk(ctx context.Context, session uint64, mt *progress.Meter, s step) error {
	for n := 0; ; n++ {
		c, done, err := w.one(ctx, session, s, n)
		if err != nil || done {
			return err
		}
		mt.Between()
		if err := w.pace(ctx, c); err != nil {
			return err
		}
	}
}

// one takes a step.
func (w *Rewriter) one(ctx context.Context, session uint64, s step, n int) (c cost, done bool, err error) {
	if err := ctx.Err(); err != nil {
		return c, false, err
	}
	h, err := w.Keys.For(inner.Block{}).AcquireSession(session)
	if err != nil {
		return c, false, err
	}
	defer func() { h.Release() }()
	return s(ctx, &h, n)
}

// due is a record that is to be replaced, and how many others came by since the one before.
type due struct {
	engine.Was
	passed uint64
}

// list returns the next records from an id on that are due, how many others came by behind the
// last of them, and where to go on, nil at the end. It returns a step's records at the most, and
// stops after some that are not due, so that a hold, or a turn, is short when little is to be done.
func (w *Rewriter) list(ctx context.Context, r engine.Reader, from []byte, isDue func(keyring.RecordInfo) bool) (todo []due, passed uint64, next []byte, err error) {
	it, err := r.Cursor(ctx, engine.Record, from, nil)
	if err != nil {
		return nil, 0, nil, row.Damage(err)
	}
	defer it.Close()
	most := 64 * w.Steps.Records
	for ok := it.First(); ok; ok = it.Next() {
		id := it.ID()
		if len(todo) == w.Steps.Records || most == 0 {
			return todo, passed, bytes.Clone(id), nil
		}
		most--
		record, err := it.Value()
		if err != nil {
			return nil, 0, nil, row.Damage(err)
		}
		in, err := keyring.ParseRecord(record)
		if err != nil {
			return nil, 0, nil, fmt.Errorf("block %s: %w", row.Shown(id), err)
		}
		if !isDue(in) {
			passed++
			continue
		}
		todo = append(todo, due{engine.Was{ID: bytes.Clone(id), Record: bytes.Clone(record)}, passed})
		passed = 0
	}
	return todo, passed, nil, row.Damage(it.Err())
}
