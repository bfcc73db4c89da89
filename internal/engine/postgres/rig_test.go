package postgres

import (
	"context"
	"errors"
	"fmt"
	"os"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgxpool"
	"github.com/stretchr/testify/require"

	"github.com/blockseal/blockseal/internal/engine"
	"github.com/blockseal/blockseal/internal/test/pgserver"
	"github.com/blockseal/blockseal/internal/test/seldom"
)

// The server of those tests that leave it as it is, each of which has a schema of its own in it.
var (
	startShared = sync.OnceValues(func() (*pgserver.Server, error) { return pgserver.Start() })
	started     atomic.Bool
	schemas     atomic.Int64
)

func TestMain(m *testing.M) {
	seldom.Collect()
	code := m.Run()
	if started.Load() {
		if s, err := startShared(); err == nil {
			if err := s.Stop(); err != nil {
				fmt.Fprintln(os.Stderr, err)
				code = 1
			}
		}
	}
	os.Exit(code)
}

func shared(t testing.TB) *pgserver.Server {
	t.Helper()
	first := !started.Swap(true)
	s, err := startShared()
	if errors.Is(err, pgserver.ErrNone) {
		t.Skip(err)
	}
	require.NoError(t, err)
	if first {
		roles(t, s)
	}
	return s
}

// rig is an engine in a schema of its own, and partition 7 of it.
type rig struct {
	testing.TB
	ctx context.Context
	s   *pgserver.Server
	o   *Options
	e   *Engine
	p   engine.Partition
}

func newRig(t testing.TB, s *pgserver.Server) *rig {
	t.Helper()
	o := newSchema(t, s, fmt.Sprintf("of%d", schemas.Add(1)))
	r := &rig{TB: t, ctx: context.Background(), s: s, o: o}
	return r.another("pool_max_conns=12")
}

// another is what another process has.
func (r *rig) another(parameters ...string) *rig {
	r.Helper()
	e := open(r.TB, r.s, r.o, parameters...)
	return &rig{r.TB, r.ctx, r.s, r.o, e, e.Partition(7)}
}

// through is what another process has whose connections go through a proxy.
func (r *rig) through(proxy *pgserver.Proxy, parameters ...string) *rig {
	r.Helper()
	c, err := pgxpool.ParseConfig(proxy.Conn("data", parameters...))
	require.NoError(r, err)
	c.ShouldPing = noPing
	pool, err := pgxpool.NewWithConfig(r.ctx, c)
	require.NoError(r, err)
	r.Cleanup(pool.Close)
	e, err := New(r.ctx, pool, r.o)
	require.NoError(r, err)
	return &rig{r.TB, r.ctx, r.s, r.o, e, e.Partition(7)}
}

func newProxy(t testing.TB, s *pgserver.Server) *pgserver.Proxy {
	p, err := pgserver.NewProxy(s)
	require.NoError(t, err)
	t.Cleanup(func() { require.NoError(t, p.Close()) })
	return p
}

// session is a connection of the superuser's.
func (r *rig) session() *pgx.Conn {
	r.Helper()
	c, err := pgx.Connect(r.ctx, r.s.Conn("postgres", "search_path="+r.o.Schema))
	require.NoError(r, err)
	r.Cleanup(func() { _ = c.Close(r.ctx) })
	return c
}

func (r *rig) exec(c *pgx.Conn, sql string) {
	r.Helper()
	_, err := c.PgConn().Exec(r.ctx, sql).ReadAll()
	require.NoError(r, err)
}

// one asks for one value.
func one[V any](r *rig, c *pgx.Conn, sql string, args ...any) (v V) {
	r.Helper()
	require.NoError(r, c.QueryRow(r.ctx, sql, args...).Scan(&v))
	return v
}

// batch returns a batch with rows whose records and blocks are text.
func (r *rig) batch(text string, ids ...string) engine.Batch {
	r.Helper()
	b := r.p.NewBatch()
	for _, id := range ids {
		room, err := b.Put([]byte(id), []byte(text), len(text))
		require.NoError(r, err)
		copy(room, text)
	}
	return b
}

func (r *rig) guard() engine.Guard { return guard(r.p) }

func guard(p engine.Partition) engine.Guard {
	f := p.Floor()
	return engine.Guard{Floor: f.Revision, Epoch: f.Epoch}
}

// tryPut sets rows, by the floor of now.
func (r *rig) tryPut(text string, ids ...string) error {
	b := r.batch(text, ids...)
	defer b.Close()
	for {
		err := r.p.Apply(r.ctx, b, r.guard(), true)
		if !isFloor(err) {
			return err
		}
	}
}

func (r *rig) put(text string, ids ...string) {
	r.Helper()
	require.NoError(r, r.tryPut(text, ids...))
}

// value returns the record of a row, or "".
func (r *rig) value(id string) string {
	r.Helper()
	var row engine.Row
	defer row.Release()
	err := r.p.Get(r.ctx, []byte(id), engine.Both, &row)
	if err == engine.ErrNotFound {
		return ""
	}
	require.NoError(r, err)
	require.Equal(r, string(row.Record), string(row.Sealed))
	return string(row.Record)
}

// How long a test waits for what it is about, on a machine that does much else, and how often it
// looks.
const long, short = 2 * time.Minute, 2 * time.Millisecond
