package postgres

import (
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"slices"

	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgxpool"

	"github.com/blockseal/blockseal/internal/engine"
)

// firstRevision is that of the floor of a partition which nothing has been said about. The next
// ones count in what is above the lowest 24 bits, which are random: one that a failover lost is not
// given again to another floor, as a count alone would be.
const firstRevision = 1

const randomBits = 24

// Floor implements [engine.Rows].
func (p *partition) Floor() engine.Floor { return *p.floor.Load() }

func scanFloor(r pgx.Row) (*engine.Floor, error) {
	var rev, epoch int64
	var keks []int64
	if err := r.Scan(&rev, &epoch, &keks, nil); err != nil { // the last is that it was told of
		return nil, err
	}
	f := &engine.Floor{Revision: revision(rev), Epoch: uint32(epoch)}
	sound := rev >= firstRevision && int64(f.Epoch) == epoch
	for _, k := range keks {
		f.KEKs = append(f.KEKs, uint32(k))
		sound = sound && int64(uint32(k)) == k
	}
	if !sound {
		return nil, fmt.Errorf("%w: a floor has revision %d, epoch %d and KEKs %d", engine.ErrCorrupt, rev, epoch, keks)
	}
	return f, nil
}

// seeFloor looks at the floor, and makes it if there is none.
func (p *partition) seeFloor(ctx context.Context) (engine.Floor, error) {
	return p.lookAtFloor(ctx, true)
}

// lookAtFloor is seeFloor for who may not want it to be made.
func (p *partition) lookAtFloor(ctx context.Context, make bool) (engine.Floor, error) {
	before := p.floor.Load()
	var f *engine.Floor
	look := func(c *pgxpool.Conn) (err error) {
		f, err = scanFloor(c.QueryRow(ctx, p.e.sql.seeFloor, p.number))
		return err
	}
	err := p.e.read(ctx, look)
	if errors.Is(err, pgx.ErrNoRows) && !make {
		return *before, nil
	}
	if errors.Is(err, pgx.ErrNoRows) {
		if err = p.e.writeAgain(ctx, func(c *pgxpool.Conn) error {
			_, err := c.Exec(ctx, p.e.sql.makeFloor, p.number)
			return err
		}); err == nil {
			err = p.e.read(ctx, look)
		}
	}
	if err != nil {
		return engine.Floor{}, fmt.Errorf("engine: the floor of partition %d: %w", p.number, err)
	}
	// What was seen before this look began is not of the future.
	if f.Revision>>randomBits < before.Revision>>randomBits {
		return engine.Floor{}, fmt.Errorf("%w: the floor of partition %d has gone back, from revision %d to %d: "+
			"the server has lost what it had acknowledged, as after a failover to a standby that was behind, or the restoring of a backup; "+
			"open the store again once it is known what is missing", engine.ErrCorrupt, p.number, before.Revision, f.Revision)
	}
	p.saw(f)
	return *f, nil
}

// saw keeps a floor unless a later one is known.
func (p *partition) saw(f *engine.Floor) {
	for {
		before := p.floor.Load()
		if f.Revision>>randomBits < before.Revision>>randomBits || p.floor.CompareAndSwap(before, f) {
			return
		}
	}
}

// RaiseFloor implements [engine.Rows].
func (p *partition) RaiseFloor(ctx context.Context, epoch uint32) error {
	return p.raise(ctx, p.e.sql.raise, int64(epoch))
}

// RefuseKEKs implements [engine.Rows]. It replaces what was refused, and so is, like Replace, of who has
// the turn, if the partition has it: one that was lost takes back nothing that the next owner refuses.
func (p *partition) RefuseKEKs(ctx context.Context, keks []uint32) error {
	numbers := make([]int64, len(keks))
	for i, k := range keks {
		numbers[i] = int64(k)
	}
	if t := p.turn.Load(); t != nil {
		return p.raiseBy(ctx, func(c *pgxpool.Conn) (f *engine.Floor, err error) {
			err = p.transact(ctx, c, func(x *transaction) error {
				x.turn = t
				f, err = x.raise(p.e.sql.refuse, numbers)
				return err
			})
			return f, err
		})
	}
	return p.raise(ctx, p.e.sql.refuse, numbers)
}

// raise changes the floor, and waits until nobody can be writing any more who has seen the one
// of before. It waits also where the floor stands already: whoever raised it may not have.
func (p *partition) raise(ctx context.Context, sql string, args ...any) error {
	return p.raiseBy(ctx, func(c *pgxpool.Conn) (*engine.Floor, error) {
		return scanFloor(c.QueryRow(ctx, sql, p.raising(args)...))
	})
}

// raising is the arguments of a statement that changes the floor.
func (p *partition) raising(args []any) []any {
	return append([]any{p.number, rand.Int64N(1 << randomBits), p.notice()}, args...)
}

func (p *partition) raiseBy(ctx context.Context, change func(c *pgxpool.Conn) (*engine.Floor, error)) error {
	if err := p.e.ready(ctx); err != nil {
		return err
	}
	var f *engine.Floor
	if err := p.e.writeAgain(ctx, func(c *pgxpool.Conn) (err error) {
		f, err = change(c)
		return err
	}); err != nil {
		return err
	}
	p.saw(f)
	return p.e.drain(ctx)
}

// raise changes the floor if the turn is still had. The lock on the table is what the next owner of the
// turn waits for: see Turn.
func (t *transaction) raise(sql string, args ...any) (f *engine.Floor, err error) {
	b := begin()
	b.Queue(t.p.e.sql.lockTable)
	b.Queue(t.p.e.sql.hasTurn, t.turn.key, t.turn.session)
	b.Queue(sql, t.p.raising(args)...)
	r := t.c.SendBatch(t.ctx, b)
	for i := 0; err == nil && i < begins+1; i++ {
		_, err = r.Exec()
	}
	if err == nil {
		err = hasTurn(r.QueryRow())
	}
	if err == nil {
		f, err = scanFloor(r.QueryRow())
	}
	if closeBatch(r, &err); err != nil {
		return nil, err
	}
	t.decided = true
	var end pgx.Batch
	end.Queue(`commit`)
	return f, sendCommit(t.ctx, t.c, &end)
}

// drain waits until every transaction has ended that has, or waits for, the lock on the table of
// rows that a change of some has, whatever stronger one it has besides: VACUUM has none. What is committed when it is called is seen by everyone who
// changes rows after it has returned.
//
// A statement takes that lock before it takes the snapshot by which it reads the floor, under read
// committed. So whoever has a snapshot from before the commit of the floor has, or waits for, the
// lock when that commit has returned, or has ended; and whoever ended is seen by every snapshot
// that is taken since, because its locks went last.
func (e *Engine) drain(ctx context.Context) error {
	var who []string
	err := e.read(ctx, func(c *pgxpool.Conn) error {
		rows, err := c.Query(ctx, e.sql.lockers)
		if err == nil {
			who, err = pgx.CollectRows(rows, pgx.RowTo[string])
		}
		return err
	})
	for try := 0; err == nil && len(who) > 0; try++ {
		var left int
		if err = e.read(ctx, func(c *pgxpool.Conn) error { return c.QueryRow(ctx, e.sql.running, who).Scan(&left) }); err != nil || left == 0 {
			break
		}
		err = pause(ctx, try/4)
	}
	if err != nil {
		return fmt.Errorf("engine: wait for %d transactions that may have gone by the floor of before: %w", len(slices.Compact(who)), err)
	}
	return nil
}
