package postgres

import (
	"fmt"
	"sync/atomic"
	"testing"

	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgtype"
	"github.com/jackc/pgx/v5/pgxpool"
	"github.com/stretchr/testify/require"

	"github.com/blockseal/blockseal/internal/engine"
)

// Parameters are what the driver makes of the same values.
func TestParamsAreTheDrivers(t *testing.T) {
	m := pgtype.NewMap()
	driver := func(oid uint32, v any) []byte {
		out, err := m.Encode(oid, pgx.BinaryFormatCode, v, nil)
		require.NoError(t, err)
		return out
	}
	for name, values := range map[string][][]byte{
		"one":        {[]byte("a")},
		"empty ones": {{}, []byte("b"), {}},
		"NULLs":      {nil, []byte("c"), nil},
		"large ones": {make([]byte, 70_000), []byte("d")},
	} {
		var a params
		a.array(len(values), func(i int) []byte { return values[i] })
		require.Equal(t, driver(pgtype.ByteaArrayOID, values), a.values[0], name)
		require.Equal(t, cap(a.values[0]), len(a.values[0]), "it has room for itself, and is not copied again")
	}
	p := &partition{number: 1<<32 - 1}
	for _, g := range []engine.Guard{{}, {Floor: 1<<63 - 1, Epoch: 1<<32 - 1, Below: true}, {Floor: 1 << 63}} {
		a := p.guarded(g)
		a.bytes([]byte("x"), nil)
		want := [][]byte{driver(pgtype.Int8OID, p.number), driver(pgtype.Int8OID, number(g.Floor)), driver(pgtype.Int8OID, int64(g.Epoch)),
			driver(pgtype.BoolOID, g.Below), []byte("x"), nil}
		require.Equal(t, want, a.values)
		require.Equal(t, []uint32{pgtype.Int8OID, pgtype.Int8OID, pgtype.Int8OID, pgtype.BoolOID, pgtype.ByteaOID, pgtype.ByteaOID}, a.types)
	}
}

// Who shares the pool may take prepared statements away: they are prepared anew, and no change is unknown for it.
func TestStatementsThatWereTakenAway(t *testing.T) {
	r := newRig(t, shared(t)).another("pool_max_conns=2") // of which one at a time is in use
	for _, take := range []string{`discard all`, `deallocate all`} {
		for _, what := range []func(){
			func() { r.put("one "+take, "a") },
			func() { r.put("many "+take, "a", "b") },
			func() { require.Equal(r, "many "+take, r.value("b")) },
		} {
			what()
			c, err := r.e.pool.Acquire(r.ctx)
			require.NoError(t, err)
			_, err = c.Exec(r.ctx, take)
			require.NoError(t, err)
			c.Release()
			what()
		}
	}
}

// Whoever reads may be given several such connections, one after the other.
func TestReadsAfterStatementsWereTakenAway(t *testing.T) {
	r := newRig(t, shared(t))
	r.put("x", "a")
	const conns = 6
	c, err := pgxpool.ParseConfig(r.s.Conn("data", "pool_max_conns=6"))
	require.NoError(t, err)
	var once atomic.Bool // no connection is had twice
	c.AfterRelease = func(*pgx.Conn) bool { return !once.Load() }
	pool, err := pgxpool.NewWithConfig(r.ctx, c)
	require.NoError(t, err)
	t.Cleanup(pool.Close)
	e, err := New(r.ctx, pool, r.o)
	require.NoError(t, err)
	r.p = e.Partition(7)
	var all []*pgxpool.Conn
	for range conns {
		c, err := pool.Acquire(r.ctx)
		require.NoError(t, err)
		require.NoError(t, e.fit(r.ctx, c))
		var row engine.Row
		require.NoError(t, r.p.(*partition).get(r.ctx, c, []byte("a"), engine.Both, &row, holdFor(&row)))
		_, err = c.Exec(r.ctx, `discard all`)
		require.NoError(t, err)
		all = append(all, c)
	}
	for _, c := range all {
		c.Release()
	}
	require.Eventually(t, func() bool { return pool.Stat().IdleConns() == conns }, long, short)
	once.Store(true)
	require.Equal(t, "x", r.value("a"))
}

// So they are on a connection that a view, or a cursor, is given, which sees what it saw when it was begun.
func TestViewsAfterStatementsWereTakenAway(t *testing.T) {
	r := newRig(t, shared(t)).another("pool_max_conns=2")
	var row engine.Row
	for name, read := range map[string]func() string{
		"view": func() string {
			v, err := r.p.View(r.ctx)
			require.NoError(t, err)
			defer v.Close()
			r.put("new", "a")
			require.NoError(t, v.Get(r.ctx, []byte("a"), engine.Both, &row))
			return string(row.Sealed)
		},
		"cursor": func() string {
			c, err := r.p.Cursor(r.ctx, engine.Sealed, nil, nil)
			require.NoError(t, err)
			defer c.Close()
			r.put("new", "a")
			require.True(t, c.First(), "%v", c.Err())
			value, err := c.Value()
			require.NoError(t, err)
			return string(value)
		},
	} {
		for range 2 {
			r.put("old", "a")
			require.Equal(t, "old", read(), name)
			r.put("old", "a")
			for _, c := range r.e.pool.AcquireAllIdle(r.ctx) {
				_, err := c.Exec(r.ctx, `discard all`)
				require.NoError(t, err)
				c.Release()
			}
			require.Equal(t, "old", read(), name)
		}
	}
}

// A pool that outlives many engines has not the statements of all of them.
func TestStatementsAreNotKeptForEver(t *testing.T) {
	r := newRig(t, shared(t))
	pool := connect(t, r.s, "owner", "pool_max_conns=2", "statement_cache_capacity=8")
	const ours = `select count(*)::int from pg_prepared_statements where name like 'stmt\_%'`
	for n := range 2 {
		for i := range 6 {
			e, err := New(r.ctx, pool, &Options{Schema: fmt.Sprintf("%s_%d", r.o.Schema, i)})
			require.NoError(t, err)
			r.p = e.Partition(7)
			for _, text := range []string{"x", "y"} {
				text = fmt.Sprint(text, n)
				r.put(text, "a")
				r.put(text, "b", "c")
				require.Equal(t, text, r.value("c"))
			}
			require.NoError(t, e.Close())
		}
	}
	most := 0
	for _, c := range pool.AcquireAllIdle(r.ctx) {
		var n int
		require.NoError(t, c.QueryRow(r.ctx, ours, pgx.QueryExecModeSimpleProtocol).Scan(&n))
		most = max(most, n)
		c.Release()
	}
	require.Equal(t, 8, most)
}

// The tracer of a pool's configuration is told of changes too, which do not go through the driver's Exec.
func TestTracerIsTold(t *testing.T) {
	r := newRig(t, shared(t))
	w := &polls{sql: newStatements(r.o.Schema).put}
	r = r.traced(w)
	r.put("x", "a") // and the floor is made
	before := w.n.Load()
	r.put("y", "a")
	require.EqualValues(t, 1, w.n.Load()-before)
}
