package postgres

import (
	"context"
	"errors"
	"fmt"
	"math"
	"math/rand/v2"
	"slices"
	"strings"
	"time"

	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgxpool"

	"github.com/blockseal/blockseal/internal/engine"
)

// newRevision returns one that was never given, as far as 63 random bits go. A sequence of the
// server's would give some again after a failover that lost the last of them.
func newRevision() int64 { return 1 + rand.Int64N(math.MaxInt64) }

// LoadMeta implements [engine.Meta].
func (p *partition) LoadMeta(ctx context.Context, name string) (value []byte, rev uint64, err error) {
	return p.e.load(ctx, p.number, name)
}

// Peek implements [engine.Engine].
func (e *Engine) Peek(ctx context.Context, number uint32, name string) ([]byte, error) {
	value, _, err := e.load(ctx, int64(number), name)
	return value, err
}

func (e *Engine) load(ctx context.Context, number int64, name string) (value []byte, rev uint64, err error) {
	if err := e.ready(ctx); err != nil {
		return nil, 0, err
	}
	var n int64
	err = e.read(ctx, func(c *pgxpool.Conn) error {
		return c.QueryRow(ctx, e.sql.load, number, []byte(name)).Scan(&value, &n)
	})
	switch {
	case errors.Is(err, pgx.ErrNoRows):
		err = engine.ErrNotFound
	case err == nil && n <= 0: // 0 would say that it is not there
		err = fmt.Errorf("%w: meta record %s has revision %d", engine.ErrCorrupt, name, n)
	}
	if err != nil {
		return nil, 0, err
	}
	return notNil(value), revision(n), nil
}

// ListMeta implements [engine.Meta]. It has read all of them before it calls f, which may want a
// connection for itself.
func (p *partition) ListMeta(ctx context.Context, prefix string, f func(name string, value []byte) error) error {
	if err := p.e.ready(ctx); err != nil {
		return err
	}
	type record struct{ name, value []byte }
	var all []record
	if err := p.e.read(ctx, func(c *pgxpool.Conn) error {
		rows, err := c.Query(ctx, p.e.sql.list, p.number, []byte(prefix), len(prefix))
		if err == nil {
			all, err = pgx.CollectRows(rows, func(row pgx.CollectableRow) (r record, err error) {
				return r, row.Scan(&r.name, &r.value)
			})
		}
		return err
	}); err != nil {
		return err
	}
	for _, r := range all {
		if err := f(string(r.name), r.value); err != nil {
			return err
		}
	}
	return nil
}

// swap is a change of a meta record as a statement that changes one row, or none if the record
// has another revision.
type swap struct {
	engine.Swap
	at    int // among the changes that were asked for
	given int64
	sql   string
	args  []any
	any   bool // it may change none
}

func (p *partition) swap(at int, c engine.Swap) swap {
	s, n := swap{Swap: c, at: at}, []byte(c.Name)
	if c.Value == nil {
		switch c.Revision {
		case engine.AnyRevision:
			s.sql, s.args, s.any = p.e.sql.eraseAny, []any{p.number, n}, true
		case 0:
			s.sql, s.args = p.e.sql.absent, []any{p.number, n}
		default:
			s.sql, s.args = p.e.sql.erase, []any{p.number, n, number(c.Revision)}
		}
		return s
	}
	s.given = newRevision()
	s.args = []any{p.number, n, s.given, c.Value}
	switch c.Revision {
	case engine.AnyRevision:
		s.sql = p.e.sql.upsert
	case 0:
		s.sql = p.e.sql.insert
	default:
		s.sql, s.args = p.e.sql.update, append(s.args, number(c.Revision))
	}
	return s
}

// SwapMeta implements [engine.Meta]: a single change is one statement, several are a transaction.
func (p *partition) SwapMeta(ctx context.Context, changes ...engine.Swap) (given []uint64, err error) {
	if err := p.e.ready(ctx); err != nil {
		return nil, err
	}
	if err := engine.CheckSwaps(changes); err != nil {
		return nil, err
	}
	given = make([]uint64, len(changes))
	swaps := make([]swap, len(changes))
	for i, c := range changes {
		swaps[i] = p.swap(i, c)
		given[i] = revision(swaps[i].given)
	}
	switch len(swaps) {
	case 0:
		return nil, nil
	case 1:
		s := swaps[0]
		err = p.e.write(ctx, func(c *pgxpool.Conn) error {
			tag, err := c.Exec(ctx, s.sql, s.args...)
			if err == nil && tag.RowsAffected() == 0 && !s.any {
				err = s.conflict()
			}
			return err
		})
	default:
		// In the order of their names, as others do, so that none waits for another for ever.
		slices.SortFunc(swaps, func(a, b swap) int { return strings.Compare(a.Name, b.Name) })
		err = p.e.write(ctx, func(c *pgxpool.Conn) error {
			return p.transact(ctx, c, func(t *transaction) error { return t.swapAll(swaps) })
		})
	}
	p.stepBack(ctx, err)
	if err != nil {
		return nil, err
	}
	return given, nil
}

// longestStep is the longest pause of stepBack, about what a thousand processes take to replace a
// record one after the other: as a power of two, in milliseconds.
const longestStep = 12

// stepBack has a process that has lost a swap wait before it is told so, for a random time that doubles with
// each one that it loses in a row. It reads the record again then, and without that all those
// whose swaps were lost would do so at once, and all but one of them lose again.
func (p *partition) stepBack(ctx context.Context, err error) {
	if !errors.Is(err, engine.ErrConflict) {
		if err == nil {
			p.lost.Store(0)
		}
		return
	}
	unit := time.Millisecond << min(p.lost.Add(1), longestStep)
	t := time.NewTimer(unit/4 + rand.N(unit*3/4))
	defer t.Stop()
	select {
	case <-t.C:
	case <-ctx.Done(): // what there is to say is that it was lost
	}
}

func (s swap) conflict() error {
	return fmt.Errorf("%w: meta record %s has another revision than %d, which was read; read it again", engine.ErrConflict, s.Name, s.Revision)
}

// swapAll makes all changes, or none.
func (t *transaction) swapAll(swaps []swap) error {
	b := begin()
	for _, s := range swaps {
		b.Queue(s.sql, s.args...)
	}
	r := t.c.SendBatch(t.ctx, b)
	var err error
	for i := 0; err == nil && i < begins; i++ {
		_, err = r.Exec()
	}
	var lost *swap
	for i := 0; err == nil && i < len(swaps); i++ {
		tag, e := r.Exec()
		if err = e; err == nil && tag.RowsAffected() == 0 && !swaps[i].any && lost == nil {
			lost = &swaps[i]
		}
	}
	if closeBatch(r, &err); err != nil {
		return err
	}
	if lost != nil {
		return lost.conflict()
	}
	t.decided = true
	var end pgx.Batch
	end.Queue(`commit`)
	return sendCommit(t.ctx, t.c, &end)
}
