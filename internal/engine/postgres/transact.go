package postgres

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"slices"

	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgxpool"

	"github.com/blockseal/blockseal/internal/engine"
)

// statementsAtOnce is how many statements are given to the server together.
const statementsAtOnce = 1000

// applyResting makes changes in a transaction, if the floor lets them pass and what they rest on
// is as it was read.
func (p *partition) applyResting(ctx context.Context, changes []change, g engine.Guard) (applied bool, err error) {
	err = p.e.write(ctx, func(c *pgxpool.Conn) error {
		applied = false
		return p.transact(ctx, c, func(t *transaction) error {
			floor, lost, err := t.hold(changes, g.Was)
			switch {
			case err != nil:
				return err
			case floor == nil || !floor.Admits(g):
				return nil
			case len(lost) > 0:
				return fmt.Errorf("%w: %d of the %d rows that the change rests on, %.40q for one", engine.ErrChanged, len(lost), len(g.Was), lost[0].ID)
			}
			applied = true
			return t.commit(changes)
		})
	})
	return applied && err == nil, err
}

// Replace implements [engine.Rows]. The changes are durable when it returns.
func (p *partition) Replace(ctx context.Context, b engine.Batch, was []engine.Was) (lost int, err error) {
	if err := p.e.ready(ctx); err != nil {
		return 0, err
	}
	o, err := p.own(b)
	if err != nil || len(was) == 0 {
		return 0, err
	}
	skip := map[string]bool{}
	err = p.e.write(ctx, func(c *pgxpool.Conn) error {
		return p.transact(ctx, c, func(t *transaction) error {
			changes := o.folded()
			t.turn = p.turn.Load()
			_, lost, err := t.hold(changes, was)
			if err != nil {
				return err
			}
			clear(skip)
			for _, w := range lost {
				skip[string(w.ID)] = true
			}
			if changes = slices.DeleteFunc(slices.Clone(changes), func(c change) bool { return skip[string(c.id)] }); len(changes) == 0 {
				return nil
			}
			return t.commit(changes)
		})
	})
	if err != nil {
		return 0, err
	}
	o.leaveOut(skip)
	return len(skip), nil
}

// transaction is one in which rows are held while it is decided what is changed.
type transaction struct {
	ctx      context.Context
	p        *partition
	c        *pgxpool.Conn
	turn     *turn           // that the transaction rests on; nil: on none
	reserved map[string]bool // ids of rows that were made so that nobody else makes them
	decided  bool            // the commit was, or may have been, given to the server
}

// begin returns what begins a transaction. One whose process stops in the middle of it, without its
// connection being closed, holds up those who raise the floor for a minute, and no longer.
func begin() *pgx.Batch {
	b := &pgx.Batch{}
	b.Queue(`begin isolation level read committed`)
	b.Queue(`set local idle_in_transaction_session_timeout = 60000`)
	return b
}

// begins is how many statements that are.
const begins = 2

// transact has f do what it does in a transaction, which is rolled back unless f has committed it.
func (p *partition) transact(ctx context.Context, c *pgxpool.Conn, f func(t *transaction) error) error {
	t := &transaction{ctx: ctx, p: p, c: c, reserved: map[string]bool{}}
	err := f(t)
	if !t.decided && err != nil {
		err = notSent{err: err}
	}
	if (err != nil || !t.decided) && !c.Conn().IsClosed() {
		if _, e := c.Exec(ctx, `rollback`); e != nil {
			_ = c.Conn().Close(ctx) // which is a rollback too
		}
	}
	return err
}

// hold begins the transaction with a lock on the table, and looks at the floor after it: see
// RaiseFloor. There it also looks whether the turn is still had: see Turn. It locks the rows that are to be changed and those that was has, in the order of
// their ids, and returns those of was that are not as they were. floor is nil if there is none.
func (t *transaction) hold(changes []change, was []engine.Was) (floor *engine.Floor, lost []engine.Was, err error) {
	s, part := t.p.e.sql, t.p.number
	clear(t.reserved)
	var all, absent [][]byte
	for _, c := range changes {
		all = append(all, c.id)
	}
	for _, w := range was {
		if all = append(all, w.ID); w.Record == nil {
			absent = append(absent, w.ID)
		}
	}
	slices.SortFunc(all, bytes.Compare)
	all = slices.CompactFunc(all, bytes.Equal)

	b := begin()
	b.Queue(s.lockTable)
	b.Queue(s.seeFloor, part)
	if t.turn != nil {
		b.Queue(s.hasTurn, t.turn.key, t.turn.session)
	}
	if len(was) > 0 { // else the changes come in this order anyway
		heads, longs, _ := columns(splitAll(all))
		b.Queue(s.lockRows, part, heads, longs)
		heads, longs, rests := columns(splitAll(absent))
		b.Queue(s.reserve, part, heads, longs, rests)
	}
	r := t.c.SendBatch(t.ctx, b)
	defer closeBatch(r, &err)
	for range begins + 1 {
		if _, err := r.Exec(); err != nil {
			return nil, nil, err
		}
	}
	if floor, err = scanFloor(r.QueryRow()); err != nil && !errors.Is(err, pgx.ErrNoRows) {
		return nil, nil, err
	}
	if t.turn != nil {
		if err := hasTurn(r.QueryRow()); err != nil {
			return nil, nil, err
		}
	}
	if len(was) == 0 {
		return floor, nil, nil
	}
	records := map[string][]byte{}
	rows, err := r.Query()
	if err != nil {
		return nil, nil, err
	}
	var at int
	var record []byte
	if _, err = pgx.ForEachRow(rows, []any{&at, &record}, func() error { records[string(all[at-1])] = notNil(record); return nil }); err != nil {
		return nil, nil, err
	}
	if rows, err = r.Query(); err != nil {
		return nil, nil, err
	}
	var head, rest []byte
	if _, err = pgx.ForEachRow(rows, []any{&head, &rest}, func() error { t.reserved[string(join(nil, head, rest))] = true; return nil }); err != nil {
		return nil, nil, err
	}
	for _, w := range was {
		record, found := records[string(w.ID)]
		if w.Record == nil && !t.reserved[string(w.ID)] || w.Record != nil && (!found || !bytes.Equal(record, w.Record)) {
			lost = append(lost, w)
		}
	}
	return floor, lost, nil
}

// commit makes changes and commits them, in the order of their ids.
func (t *transaction) commit(changes []change) error {
	s, part := t.p.e.sql, t.p.number
	b, size := &pgx.Batch{}, 0
	for i := range changes {
		c := &changes[i]
		delete(t.reserved, string(c.id))
		k := split(c.id)
		switch c.kind {
		case wholeRow:
			data, tail := cut(c.sealed)
			b.Queue(s.setRow, part, k.head, k.long, k.rest, c.record, data, tail)
		case recordOnly:
			b.Queue(s.setRecord, part, k.head, k.long, k.rest, c.record)
		case deletion:
			b.Queue(s.remove, part, k.head, k.long)
		}
		if size += c.size(); size > atOnce || b.Len() >= statementsAtOnce {
			if err := t.c.SendBatch(t.ctx, b).Close(); err != nil {
				return err
			}
			b, size = &pgx.Batch{}, 0
		}
	}
	for id := range t.reserved {
		k := split([]byte(id))
		b.Queue(s.remove, part, k.head, k.long)
	}
	b.Queue(`commit`)
	t.decided = true
	return sendCommit(t.ctx, t.c, b)
}

// sendCommit sends a batch whose last statement is a commit. That of a transaction which has
// failed is a rollback, and no error.
func sendCommit(ctx context.Context, c *pgxpool.Conn, b *pgx.Batch) (err error) {
	r := c.SendBatch(ctx, b)
	defer closeBatch(r, &err)
	for range b.Len() - 1 {
		if _, err := r.Exec(); err != nil {
			return err
		}
	}
	tag, err := r.Exec()
	if err == nil && tag.String() != "COMMIT" {
		err = notSent{err: fmt.Errorf("engine: the server answered the commit with %s", tag), final: true}
	}
	return err
}

// closeBatch reads what is left of a batch's results, and keeps the first error.
func closeBatch(r pgx.BatchResults, err *error) {
	if e := r.Close(); *err == nil {
		*err = e
	}
}

func splitAll(ids [][]byte) []key {
	keys := make([]key, len(ids))
	for i, id := range ids {
		keys[i] = split(id)
	}
	return keys
}
