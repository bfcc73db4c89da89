package postgres

import (
	"context"
	"errors"
	"sync/atomic"

	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgxpool"

	"github.com/blockseal/blockseal/internal/engine"
)

// partition is one of an Engine's.
type partition struct {
	e      *Engine
	number int64
	floor  atomic.Pointer[engine.Floor] // as it was seen last
	turn   atomic.Pointer[turn]         // nil: it is not had
	lost   atomic.Int32                 // swaps of meta records, in a row
}

var (
	_ engine.Partition = (*partition)(nil)
	_ engine.Turner    = (*partition)(nil)
)

// Release implements [engine.Partition]: there is nothing in memory but p.
func (p *partition) Release() {}

// held is what a row keeps of the engine's, from one Get to the next: the memory of its block.
type held struct{ sealed []byte }

// keptBytes bounds what a row keeps for the next block.
const keptBytes = 1 << 20

// Release implements [engine.Held].
func (h *held) Release() {
	if cap(h.sealed) > keptBytes {
		h.sealed = nil
	}
}

func holdFor(row *engine.Row) *held {
	row.Release()
	row.Has = 0
	h, ok := row.Held.(*held)
	if !ok {
		h = new(held)
		row.Held = h
	}
	return h
}

// into has what is scanned copied to memory that there is, if it is enough, or behind what is there.
type into struct {
	to     *[]byte
	behind bool
	null   bool
}

// ScanBytes implements pgtype.BytesScanner.
func (i *into) ScanBytes(b []byte) error {
	if !i.behind {
		*i.to = (*i.to)[:0]
	}
	*i.to, i.null = append(*i.to, b...), b == nil
	return nil
}

// querier is a connection, in a transaction or not.
type querier interface {
	QueryRow(ctx context.Context, sql string, args ...any) pgx.Row
}

// get finds parts of a row: with one statement, and so in one state.
func (p *partition) get(ctx context.Context, c querier, id []byte, want engine.Parts, row *engine.Row, h *held) error {
	k := split(id)
	record, sealed, tail := into{to: &row.Record}, into{to: &h.sealed}, into{to: &h.sealed, behind: true}
	var err error
	row.Has = want & engine.Both
	switch row.Has {
	case engine.Record:
		err = c.QueryRow(ctx, p.e.sql.getRecord, p.number, k.head, k.long).Scan(&record)
	case engine.Sealed:
		err = c.QueryRow(ctx, p.e.sql.getSealed, p.number, k.head, k.long).Scan(&sealed, &tail)
	default:
		err = c.QueryRow(ctx, p.e.sql.get, p.number, k.head, k.long).Scan(&record, &sealed, &tail)
		if sealed.null {
			row.Has = engine.Record
		}
	}
	if err != nil {
		row.Has = 0
		if errors.Is(err, pgx.ErrNoRows) {
			return engine.ErrNotFound
		}
		return err
	}
	if row.Has&engine.Sealed != 0 {
		row.Sealed = notNil(h.sealed)
	}
	return nil
}

// Get implements [engine.Reader], in one round trip.
func (p *partition) Get(ctx context.Context, id []byte, want engine.Parts, row *engine.Row) error {
	h := holdFor(row)
	if err := p.e.ready(ctx); err != nil {
		return err
	}
	return p.e.read(ctx, func(c *pgxpool.Conn) error { return p.get(ctx, c, id, want, row, h) })
}
