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

// cost is what a step has sealed anew.
type cost struct{ bytes, blocks uint64 }

// step does step n of an operation, in one hold, and reports whether it was the last.
type step func(ctx context.Context, h *keyring.Hold, n int) (c cost, done bool, err error)

// walk does the steps of an operation, each in a hold of the operation's session. Between two steps
// it has no hold, lets the meter call its Report, and keeps the pace.
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

func (w *Rewriter) one(ctx context.Context, session uint64, s step, n int) (c cost, done bool, err error) {
	if err := ctx.Err(); err != nil {
		return c, false, err
	}
	h, err := w.Keys.For(inner.Block{}).AcquireSession(session)
	if err != nil {
		return c, false, err
	}
	defer func() { h.Release() }()
	if _, shared := w.Table.Part.(engine.Turner); shared { // a lock does not wait for a server
		ctx, end := h.For(inner.Block{}).Within(ctx)
		c, done, err = s(ctx, &h, n)
		return c, done, end(err)
	}
	return s(ctx, &h, n)
}

// due is a record that is to be replaced. passed counts the records between the one before and it
// that are not due.
type due struct {
	engine.Was
	passed uint64
}

// list returns the next records that are due, from an id on, the number of records after the last
// of them that are not due, and the next id, nil at the end. It returns Steps.Records at most, and
// reads 64 times as many at most, so that a hold or a turn is short where little is due.
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
