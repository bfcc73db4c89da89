// Package postgres is the engine on a PostgreSQL server that others run, shared by any number of
// processes. Everything that knows PostgreSQL or pgx is here. The server sees sealed blocks,
// wrapped DEKs and ids; it is given no key.
//
// Start with [New]. The tables are in schema.go, all other SQL in sql.go; why they are as they
// are, and what the floor rests on, is docs/adr/0022-postgresql.md.
package postgres

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"math"
	"math/rand/v2"
	"strconv"
	"strings"
	"sync/atomic"
	"time"

	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgxpool"

	"github.com/blockseal/blockseal/internal/engine"
)

// Options configure an Engine. Zero fields mean the default that they state.
type Options struct {
	// Schema is the name of the schema that has the tables, 1 to 63 bytes. Default: blockseal.
	Schema string
	// NoCreate has New refuse a schema without tables instead of making them.
	NoCreate bool
	// ViewLife is how long a view, or a cursor that is of no view, can be read. For as long the
	// server keeps all that is overwritten and deleted, in every table of its database. Default:
	// 10 minutes.
	ViewLife time.Duration
	// NoListen has the engine hear no notices of other processes, for which it has a connection of its
	// own, beside the pool, from the first Hear until Close: for a pooler that has none to give to one
	// client. It tells others all the same.
	NoListen bool
	// ReadOnly has New write nothing.
	ReadOnly bool
	// Logger is told when the database turns out to be on another server than before. Default: nobody is.
	Logger *slog.Logger
	// AfterFunc calls f after d, unless stop is called before. Default: time.AfterFunc.
	AfterFunc func(d time.Duration, f func()) (stop func() bool)
}

const (
	defaultSchema   = "blockseal"
	defaultViewLife = 10 * time.Minute
)

// Engine is an engine on a server. New returns one. Half of the pool's connections are at most in
// use for views and cursors, each of which has one of its own, with the cursors of a view and the
// clones of a cursor; who wants another one waits. One more is in use while it has a turn.
type Engine struct {
	pool      *pgxpool.Pool
	sql       *statements
	viewLife  time.Duration
	afterFunc func(d time.Duration, f func()) (stop func() bool)
	views     chan struct{} // has one element for each snapshot
	schema    string
	turns     turns
	notices   notices
	prepares  bool            // the pool's configuration permits prepared statements
	prepared  int             // how many stay on a connection: see prepare
	tracer    pgx.QueryTracer // of the pool's configuration; nil: there is none
	noListen  bool
	noNote    bool // nothing is noted of the server
	logger    *slog.Logger
	server    atomic.Pointer[server] // of the latest timeline that was seen; nil: none says
	closed    atomic.Bool
}

var (
	_ engine.Engine = (*Engine)(nil)
	_ engine.Sharer = (*Engine)(nil)
)

// New returns an engine on a server, through a pool of at least two connections that stays the
// caller's and outlives the engine. It makes the tables if there are none, and checks them and
// the server. See [Configure] for what the pool's configuration needs where there are
// synchronous standbys.
//
// Errors: engine.ErrVersion, engine.ErrCorrupt, errors.ErrUnsupported for a server that is not
// known to keep the floor, and the pool's.
func New(ctx context.Context, pool *pgxpool.Pool, opts *Options) (*Engine, error) {
	o := Options{}
	if opts != nil {
		o = *opts
	}
	if o.Schema == "" {
		o.Schema = defaultSchema
	}
	if len(o.Schema) > 63 || strings.IndexByte(o.Schema, 0) >= 0 || strings.HasPrefix(o.Schema, "pg_") {
		return nil, fmt.Errorf("engine: %.80q is no name of a schema: it has 1 to 63 bytes, none of them zero, and does not begin with pg_", o.Schema)
	}
	if o.ViewLife < 0 {
		return nil, fmt.Errorf("engine: a view's life of %v is negative", o.ViewLife)
	}
	if o.ViewLife == 0 {
		o.ViewLife = defaultViewLife
	}
	if o.AfterFunc == nil {
		o.AfterFunc = func(d time.Duration, f func()) func() bool { return time.AfterFunc(d, f).Stop }
	}
	if pool == nil {
		return nil, errors.New("engine: there is no pool")
	}
	config := pool.Config()
	most := config.MaxConns
	if most < 2 {
		return nil, fmt.Errorf("engine: the pool has %d connection at most, want 2 or more: a view has one for itself", most)
	}
	e := &Engine{pool: pool, sql: newStatements(o.Schema), viewLife: o.ViewLife, afterFunc: o.AfterFunc, views: make(chan struct{}, most/2),
		schema: o.Schema, turns: newTurns(),
		prepares: config.ConnConfig.DefaultQueryExecMode == pgx.QueryExecModeCacheStatement, prepared: config.ConnConfig.StatementCacheCapacity,
		tracer: config.ConnConfig.Tracer, noListen: o.NoListen, noNote: o.ReadOnly, logger: o.Logger}
	e.notices.sender = strconv.FormatUint(rand.Uint64(), 36)
	if err := e.read(ctx, func(c *pgxpool.Conn) error {
		if err := checkServer(ctx, c); err != nil {
			return err
		}
		return ensureSchema(ctx, c, o.Schema, !o.NoCreate && !o.ReadOnly)
	}); err != nil {
		return nil, err
	}
	e.tellOfAnother(ctx)
	return e, nil
}

// Partition implements [engine.Engine]. It asks the server nothing: the floor is taken for that of
// a partition which nothing has been said about, and is seen when a change is refused by it.
func (e *Engine) Partition(number uint32) engine.Partition {
	p := &partition{e: e, number: int64(number)}
	p.floor.Store(&engine.Floor{Revision: firstRevision})
	return p
}

// Keeps implements [engine.Sharer].
func (e *Engine) Keeps() []string {
	return []string{
		"dead rows in the tables of schema " + e.schema + " until VACUUM, and in free space of their files until it is overwritten",
		"the server's write-ahead log, and its archive",
		"standbys, base backups, snapshots of volumes, and dumps",
	}
}

// Close implements [engine.Engine]. The pool is the caller's.
func (e *Engine) Close() error {
	if e.closed.Swap(true) {
		return engine.ErrClosed
	}
	e.notices.close()
	return nil
}

// ready refuses what comes after Close, or too late.
func (e *Engine) ready(ctx context.Context) error {
	if e.closed.Load() {
		return engine.ErrClosed
	}
	return ctx.Err()
}

// revision makes a database's number a revision, and the reverse. None is negative.
func revision(n int64) uint64 { return uint64(n) }

// number returns a revision as the database has it, or one that it has nowhere.
func number(revision uint64) int64 {
	if revision > math.MaxInt64 {
		return -1
	}
	return int64(revision)
}
