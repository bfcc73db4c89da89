package postgres

import (
	"context"
	"encoding/binary"

	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgconn"
	"github.com/jackc/pgx/v5/pgtype"
	"github.com/jackc/pgx/v5/pgxpool"

	"github.com/blockseal/blockseal/internal/engine"
)

// params is the parameters of one of the statements that put blocks, in the form in which they are sent, so
// that a block is copied once on its way to the connection, and not by the encoder of the driver before: a
// batch of 4 MiB would grow its memory several times over there. All of them are binary.
type params struct {
	values [][]byte
	types  []uint32 // OIDs
}

// binaryFormat is the format of all parameters, and of results, of which there are none.
var binaryFormat = []int16{pgx.BinaryFormatCode}

// guarded begins parameters with those of the guard: see sql.go.
func (p *partition) guarded(g engine.Guard) *params {
	fixed := make([]byte, 0, 25)
	for _, n := range []int64{p.number, number(g.Floor), int64(g.Epoch)} {
		fixed = binary.BigEndian.AppendUint64(fixed, uint64(n))
	}
	fixed = append(fixed, 0)
	if g.Below {
		fixed[24] = 1
	}
	a := &params{values: make([][]byte, 0, 10), types: make([]uint32, 0, 10)}
	for _, v := range [][]byte{fixed[:8], fixed[8:16], fixed[16:24]} {
		a.add(pgtype.Int8OID, v)
	}
	a.add(pgtype.BoolOID, fixed[24:])
	return a
}

func (a *params) add(oid uint32, value []byte) {
	a.values, a.types = append(a.values, value), append(a.types, oid)
}

// bytes adds values of type bytea. nil is NULL.
func (a *params) bytes(values ...[]byte) {
	for _, v := range values {
		a.add(pgtype.ByteaOID, v)
	}
}

// array adds an array of n values of type bytea. nil is NULL. Its form is that of array_recv in
// PostgreSQL's src/backend/utils/adt/arrayfuncs.c: dimensions, whether there is a NULL, the type, length and first index, and
// each value behind its length.
func (a *params) array(n int, value func(i int) []byte) {
	size, nulls := 20+4*n, uint32(0)
	for i := range n {
		v := value(i)
		if size += len(v); v == nil {
			nulls = 1
		}
	}
	out := make([]byte, 0, size)
	for _, head := range []uint32{1, nulls, pgtype.ByteaOID, uint32(n), 1} {
		out = binary.BigEndian.AppendUint32(out, head)
	}
	for i := range n {
		v := value(i)
		if v == nil {
			out = binary.BigEndian.AppendUint32(out, ^uint32(0))
			continue
		}
		out = append(binary.BigEndian.AppendUint32(out, uint32(len(v))), v...)
	}
	a.add(pgtype.ByteaArrayOID, out)
}

// exec is pgx's Exec of a statement with such parameters: prepared, unless the pool's configuration prepares
// none, and told to its tracer, without the parameters.
func (e *Engine) exec(ctx context.Context, c *pgxpool.Conn, sql string, a *params) (tag pgconn.CommandTag, err error) {
	if e.tracer != nil {
		ctx = e.tracer.TraceQueryStart(ctx, c.Conn(), pgx.TraceQueryStartData{SQL: sql})
		defer func() {
			e.tracer.TraceQueryEnd(ctx, c.Conn(), pgx.TraceQueryEndData{CommandTag: tag, Err: err})
		}()
	}
	pc := c.Conn().PgConn()
	if !e.prepares {
		return pc.ExecParams(ctx, sql, a.values, a.types, binaryFormat, binaryFormat).Close()
	}
	s, err := e.prepare(ctx, c.Conn(), sql)
	if err != nil {
		return tag, notSent{err: err}
	}
	tag, err = pc.ExecPrepared(ctx, s.Name, a.values, binaryFormat, binaryFormat).Close()
	if code(err) == codeNoStatement { // somebody who shares the pool said DISCARD ALL
		_ = c.Conn().Deallocate(ctx, sql) // which is known to be done; and it is prepared when it is tried again
	}
	return tag, err
}

// prepare prepares a statement on a connection, once, until there are as many of such as the pool's configuration has the
// driver keep of its own: a pool may outlive any number of engines, each of which has statements of its own.
func (e *Engine) prepare(ctx context.Context, c *pgx.Conn, sql string) (*pgconn.StatementDescription, error) {
	noted := c.PgConn().CustomData()
	there, ok := noted[isPrepared].(map[string]bool)
	if !ok {
		there = map[string]bool{}
		noted[isPrepared] = there
	}
	if !there[sql] {
		for another := range there {
			if len(there) < e.prepared {
				break
			}
			if err := c.Deallocate(ctx, another); err != nil {
				return nil, err
			}
			delete(there, another)
		}
	}
	s, err := c.Prepare(ctx, sql, sql)
	if err == nil {
		there[sql] = true
	}
	return s, err
}
