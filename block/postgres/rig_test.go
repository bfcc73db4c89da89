package postgres_test

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

	"github.com/blockseal/blockseal/block"
	"github.com/blockseal/blockseal/block/postgres"
	"github.com/blockseal/blockseal/internal/test/pgserver"
	"github.com/blockseal/blockseal/kek"
	"github.com/blockseal/blockseal/keyring"
	"github.com/blockseal/blockseal/vault"
	"github.com/blockseal/blockseal/vault/vaulttest"
)

// The server of these tests, each of which has a schema of its own in it.
var (
	startServer = sync.OnceValues(func() (*pgserver.Server, error) { return pgserver.Start() })
	started     atomic.Bool
	schemas     atomic.Int64
)

func TestMain(m *testing.M) {
	if child() {
		return
	}
	code := m.Run()
	if started.Load() {
		if s, err := startServer(); err == nil {
			if err := s.Stop(); err != nil {
				fmt.Fprintln(os.Stderr, err)
				code = 1
			}
		}
	}
	os.Exit(code)
}

// server returns the server, with a role that owns the schemas and one that programs have.
func server(t testing.TB) *pgserver.Server {
	t.Helper()
	first := !started.Swap(true)
	s, err := startServer()
	if errors.Is(err, pgserver.ErrNone) {
		t.Skip(err)
	}
	require.NoError(t, err)
	if first {
		roles(t, s)
	}
	return s
}

func roles(t testing.TB, s *pgserver.Server) {
	t.Helper()
	sql(t, s, "postgres", `CREATE ROLE owner LOGIN; CREATE ROLE program LOGIN; GRANT CREATE ON DATABASE postgres TO owner`)
}

// sql runs statements as a user.
func sql(t testing.TB, s *pgserver.Server, user, statements string) {
	t.Helper()
	require.NoError(t, trySQL(t, s, user, statements))
}

func trySQL(t testing.TB, s *pgserver.Server, user, statements string) error {
	t.Helper()
	c, err := pgx.Connect(t.Context(), s.Conn(user))
	require.NoError(t, err)
	defer c.Close(t.Context())
	_, err = c.PgConn().Exec(t.Context(), statements).ReadAll()
	return err
}

// ask asks the server for one value.
func ask[V any](g *rig, query string, args ...any) (v V) {
	g.t.Helper()
	c, err := pgx.Connect(g.ctx, g.server.Conn("postgres", "search_path="+g.schema))
	require.NoError(g.t, err)
	defer c.Close(g.ctx)
	require.NoError(g.t, c.QueryRow(g.ctx, query, args...).Scan(&v))
	return v
}

// rig is a schema, whose DBs have one vault and one clock.
type rig struct {
	t      *testing.T
	ctx    context.Context
	server *pgserver.Server
	schema string
	clock  *vaulttest.Clock
	vault  *vaulttest.Vault
	key    vault.KeyID // the first version of the key "customer"
	kek    *kek.KEK    // that key, without a version
	store  block.Options
	deaf   bool // its DBs hear nothing of each other
}

func newRig(t *testing.T) *rig {
	t.Helper()
	return newRigOn(t, server(t))
}

func newRigOn(t *testing.T, s *pgserver.Server) *rig {
	t.Helper()
	schema := fmt.Sprint("s", schemas.Add(1))
	sql(t, s, "owner", `CREATE SCHEMA `+schema+`; `+postgres.SchemaSQL(schema)+postgres.GrantSQL(schema, "program"))
	clock := vaulttest.NewClock(time.Date(2026, 3, 1, 12, 0, 0, 0, time.UTC))
	v := vaulttest.New(&vaulttest.Options{Clock: clock})
	id := v.CreateKey("customer")
	return &rig{t: t, ctx: context.Background(), server: s, schema: schema, clock: clock, vault: v, key: id, kek: kek.New(v, id.Versionless()),
		store: block.Options{Keyring: keyring.Options{Clock: clock}}}
}

func (g *rig) pool(user string, parameters ...string) *pgxpool.Pool {
	g.t.Helper()
	return newPool(g.t, g.server.Conn(user, parameters...))
}

func newPool(t testing.TB, conn string) *pgxpool.Pool {
	t.Helper()
	c, err := pgxpool.ParseConfig(conn)
	require.NoError(t, err)
	postgres.Configure(c)
	pool, err := pgxpool.NewWithConfig(context.Background(), c)
	require.NoError(t, err)
	t.Cleanup(pool.Close)
	return pool
}

// options are those of a DB, which no role but the owner's may make.
func (g *rig) options() *postgres.Options {
	return &postgres.Options{Schema: g.schema, NoCreate: true, NoListen: g.deaf, DB: block.DBOptions{Clock: g.clock, RecordCache: 1 << 16, RowCache: 1 << 20,
		Resolve: func(context.Context, string) (*kek.KEK, *block.Options, error) { return g.kek, &g.store, nil }}}
}

// db returns what another process has: a DB with a pool and an engine of its own.
func (g *rig) db() *block.DB {
	g.t.Helper()
	return g.dbOf(g.pool("program", "pool_max_conns=8"))
}

func (g *rig) dbOf(pool *pgxpool.Pool) *block.DB {
	g.t.Helper()
	db, err := postgres.Open(g.ctx, pool, g.options())
	require.NoError(g.t, err)
	g.t.Cleanup(func() { require.NoError(g.t, db.Close()) })
	return db
}

func (g *rig) create(db *block.DB, name string) *block.Store {
	g.t.Helper()
	s, err := db.Create(g.ctx, name, g.kek, &g.store)
	require.NoError(g.t, err)
	return s
}

func (g *rig) open(db *block.DB, name string) *block.Store {
	g.t.Helper()
	s, err := db.Open(g.ctx, name, g.kek, &g.store)
	require.NoError(g.t, err)
	return s
}

// two returns one store that two processes have open.
func (g *rig) two() (a, b *block.Store) {
	g.t.Helper()
	a = g.create(g.db(), "store")
	return a, g.open(g.db(), "store")
}

func put(t testing.TB, s *block.Store, id, data string) {
	t.Helper()
	require.NoError(t, s.Put(context.Background(), []byte(id), []byte(data)))
}

func requireData(t testing.TB, s *block.Store, id, want string) {
	t.Helper()
	got, err := s.Get(context.Background(), []byte(id), nil)
	require.NoError(t, err)
	require.Equal(t, want, string(got))
}

// requireWhole checks that every block of a store opens, and returns what Verify says.
func requireWhole(t testing.TB, s *block.Store) block.Report {
	t.Helper()
	rep, err := s.Verify(context.Background(), nil)
	require.NoError(t, err)
	require.Empty(t, rep.Problems)
	return rep
}

func status(s *block.Store) keyring.Status { return s.State().Status }

// How long a test waits for what it is about, on a machine that does much else, and how often it
// looks.
const long, short = 2 * time.Minute, 5 * time.Millisecond
