package postgres

import (
	"context"
	"errors"
	"strings"

	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgxpool"
)

// clearedAtOnce is how many rows are deleted in one transaction. Raising a floor waits for it.
const clearedAtOnce = 5000

// Clear implements [engine.Partition]. The meta records go first, at once, and the floor is that
// of a partition without any, of another revision; then the rows do, some thousands at a time. Who
// looks meanwhile finds a part of them, and an error leaves one: Clear goes on with it.
func (p *partition) Clear(ctx context.Context) error {
	if err := p.raise(ctx, p.e.sql.clear); err != nil {
		return err
	}
	for from := none; from != nil; {
		// Done twice it is the same.
		var to []byte
		err := p.e.writeAgain(ctx, func(c *pgxpool.Conn) error {
			return p.transact(ctx, c, func(t *transaction) (err error) {
				to, err = t.clear(from)
				return err
			})
		})
		if err != nil {
			return err
		}
		from = to
	}
	return nil
}

// clear deletes some thousand rows, from an id's head on, and returns that from which there are
// more, or nil.
func (t *transaction) clear(from []byte) (to []byte, err error) {
	p := t.p
	b := begin()
	for _, set := range strings.Split(byIndex, ";") {
		b.Queue(set)
	}
	sets := b.Len()
	b.Queue(p.e.sql.clearTo, p.number, from, clearedAtOnce)
	r := t.c.SendBatch(t.ctx, b)
	for i := 0; err == nil && i < sets; i++ {
		_, err = r.Exec()
	}
	if err == nil {
		err = r.QueryRow().Scan(&to)
	}
	if closeBatch(r, &err); err != nil && !errors.Is(err, pgx.ErrNoRows) {
		return nil, err
	}
	b = &pgx.Batch{}
	if to == nil {
		b.Queue(p.e.sql.clearEnd, p.number, from)
	} else {
		b.Queue(p.e.sql.clearRange, p.number, from, to)
	}
	b.Queue(`commit`)
	t.decided = true
	return to, sendCommit(t.ctx, t.c, b)
}
