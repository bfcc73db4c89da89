package postgres

import (
	"context"
	"fmt"

	"github.com/jackc/pgx/v5/pgxpool"

	"github.com/blockseal/blockseal/internal/engine"
)

// atOnce is how many bytes of changes are given to the server in one statement, or together; a
// single row may have more. The server has them in memory several times over.
const atOnce = 4 << 20

// Apply implements [engine.Rows]. What it has returned nil for is durable already, with sync or
// without, as far as the server's fsync and synchronous_commit go.
//
// A single change, and a batch of at most 4 MiB that only puts blocks, is one statement and one
// round trip. Another batch, and one that rests on rows, is a transaction of two.
func (p *partition) Apply(ctx context.Context, b engine.Batch, g engine.Guard, _ bool) error {
	if err := p.e.ready(ctx); err != nil {
		return err
	}
	o, err := p.own(b)
	if err != nil {
		return err
	}
	changes := o.folded()
	for look := 0; ; look++ {
		applied := false
		switch {
		case len(g.Was) > 0 || len(changes) > 1 && !puts(changes):
			applied, err = p.applyResting(ctx, changes, g)
		case len(changes) == 0:
			applied = p.Floor().Admits(g)
		default:
			applied, err = p.applyAtOnce(ctx, changes, g)
		}
		if applied || err != nil {
			return err
		}
		if f, err := p.seeFloor(ctx); err != nil {
			return err
		} else if !f.Admits(g) {
			return fmt.Errorf("%w: it is epoch %d, revision %d; the change names epoch %d and went by revision %d",
				engine.ErrFloor, f.Epoch, f.Revision, g.Epoch, g.Floor)
		}
		// There was no floor, and there is now. Else it is another thing that it was refused for.
		if look > 0 {
			return fmt.Errorf("%w: its transaction isolation is not read committed, which the floor needs", errUnfit)
		}
	}
}

// puts reports whether changes are all of whole rows, and few enough for one statement.
func puts(changes []change) bool {
	size := 0
	for i := range changes {
		if size += changes[i].size(); changes[i].kind != wholeRow {
			return false
		}
	}
	return size <= atOnce
}

// applyAtOnce makes changes with one statement, if the floor lets them pass.
func (p *partition) applyAtOnce(ctx context.Context, changes []change, g engine.Guard) (applied bool, err error) {
	sql, args := p.e.sql.putAll, p.guarded(g)
	if len(changes) == 1 {
		c := &changes[0]
		k := split(c.id)
		switch c.kind {
		case wholeRow:
			sql = p.e.sql.put
			data, tail := cut(c.sealed)
			args.bytes(k.head, k.long, k.rest, c.record, data, tail)
		case recordOnly:
			sql = p.e.sql.putRecord
			args.bytes(k.head, k.long, k.rest, c.record)
		case deletion:
			sql = p.e.sql.delete
			args.bytes(k.head, k.long)
		}
	} else {
		keys := make([]key, len(changes))
		for i := range changes {
			keys[i] = split(changes[i].id)
		}
		for _, column := range []func(i int) []byte{
			func(i int) []byte { return keys[i].head },
			func(i int) []byte { return keys[i].long },
			func(i int) []byte { return keys[i].rest },
			func(i int) []byte { return changes[i].record },
			func(i int) []byte { data, _ := cut(changes[i].sealed); return data },
			func(i int) []byte { _, tail := cut(changes[i].sealed); return tail },
		} {
			args.array(len(changes), column)
		}
	}
	err = p.e.write(ctx, func(c *pgxpool.Conn) error {
		tag, err := p.e.exec(ctx, c, sql, args)
		applied = err == nil && tag.RowsAffected() > 0
		return err
	})
	return applied, err
}

// Sync implements [engine.Rows]: what was applied is durable.
func (p *partition) Sync(ctx context.Context) error { return p.e.ready(ctx) }
