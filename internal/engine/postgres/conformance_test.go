package postgres

import (
	"context"
	"fmt"
	"testing"

	"github.com/jackc/pgx/v5/pgxpool"
	"github.com/stretchr/testify/require"

	"github.com/blockseal/blockseal/internal/engine"
	"github.com/blockseal/blockseal/internal/engine/enginetest"
	"github.com/blockseal/blockseal/internal/test/pgserver"
)

// connect returns a pool that is closed at the end of the test. It asks no connection whether it is
// there still: to find out is left to the engine.
func connect(t enginetest.T, s *pgserver.Server, user string, parameters ...string) *pgxpool.Pool {
	c, err := pgxpool.ParseConfig(s.Conn(user, parameters...))
	require.NoError(t, err)
	Configure(c)
	c.ShouldPing = noPing
	pool, err := pgxpool.NewWithConfig(context.Background(), c)
	require.NoError(t, err)
	t.Cleanup(pool.Close)
	return pool
}

func noPing(context.Context, pgxpool.ShouldPingParams) bool { return false }

// exec runs SQL as the superuser.
func exec(t enginetest.T, s *pgserver.Server, sql string) {
	pool := connect(t, s, "postgres", "pool_max_conns=2")
	defer pool.Close()
	c, err := pool.Acquire(context.Background())
	require.NoError(t, err)
	defer c.Release()
	_, err = c.Conn().PgConn().Exec(context.Background(), sql).ReadAll()
	require.NoError(t, err)
}

// open returns an engine whose own role may do no more than it has to.
func open(t enginetest.T, s *pgserver.Server, o *Options, parameters ...string) *Engine {
	e, err := New(context.Background(), connect(t, s, "data", parameters...), o)
	require.NoError(t, err)
	t.Cleanup(func() { _ = e.Close() })
	return e
}

// newServer returns a server with a role for the schemas, which may make some, and one for the
// data, which may not.
func newServer(t testing.TB, settings ...string) *pgserver.Server {
	s := pgserver.Run(t, settings...)
	roles(t, s)
	return s
}

func roles(t testing.TB, s *pgserver.Server) {
	exec(t, s, `CREATE ROLE owner LOGIN; CREATE ROLE data LOGIN; GRANT CREATE ON DATABASE postgres TO owner`)
}

// newSchema has the role for the schemas make one.
func newSchema(t enginetest.T, s *pgserver.Server, schema string) *Options {
	pool := connect(t, s, "owner", "pool_max_conns=2")
	defer pool.Close()
	e, err := New(context.Background(), pool, &Options{Schema: schema})
	require.NoError(t, err)
	require.NoError(t, e.Close())
	c, err := pool.Acquire(context.Background())
	require.NoError(t, err)
	defer c.Release()
	_, err = c.Conn().PgConn().Exec(context.Background(), GrantSQL(schema, "data")).ReadAll()
	require.NoError(t, err)
	return &Options{Schema: schema, NoCreate: true}
}

// onServer is an engine with what it was opened with.
type onServer struct {
	*Engine
	o *Options
}

// Crash is the end of the server by kill -9, and another one on what it left. Both engines are of
// the same tables then, as those of two processes are.
func TestPostgresConforms(t *testing.T) {
	s := newServer(t)
	for name, parameters := range map[string][]string{
		"as it is": nil,
		// For a pooler between, which does not keep prepared statements apart.
		"without prepared statements": {"default_query_exec_mode=exec"},
	} {
		t.Run(name, func(t *testing.T) {
			parameters := append([]string{"pool_max_conns=12"}, parameters...)
			enginetest.Run(t, enginetest.Subject{
				New: func(t enginetest.T) engine.Engine {
					o := newSchema(t, s, fmt.Sprintf("conform%d", schemas.Add(1)))
					return onServer{open(t, s, o, parameters...), o}
				},
				Crash: func(t enginetest.T, e engine.Engine) engine.Engine {
					require.NoError(t, s.Kill())
					require.NoError(t, s.Restart())
					return onServer{open(t, s, e.(onServer).o, parameters...), e.(onServer).o}
				},
			})
		})
	}
}
