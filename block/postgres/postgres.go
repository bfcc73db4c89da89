// Package postgres keeps stores in a PostgreSQL database that others run. A [block.DB] over it does
// what one in a directory does, and any number of processes may have it open at once, with the same
// stores, all of them for writing.
//
// The server is given sealed blocks, wrapped DEKs, the ids of blocks and the names of stores, and no
// key. Each process asks the vault for itself, and locks for itself.
//
// # What is different
//
//   - What Put, Delete and Commit return nil for, every process reads from then on. PutIf has one
//     winner among all processes.
//   - A write whose answer was lost on the way is [block.ErrOutcomeUnknown].
//   - A snapshot or scan can be read for Options.ViewLife; then it is [block.ErrViewEnded].
//   - What one process does to a store's keys the others take up at once, if they hear of it
//     (Options.NoListen); else when they meet it, and at each check in any case. A key that was destroyed is gone there at the next check, and
//     when none succeeds, with the lease.
//   - RotateEpoch, Rekey, RewrapDEKs, Erase and renewals of one store take turns among all processes.
//   - A block that is in this process's cache is looked at before it is served: if the server has
//     another DEK record for it by now, the cached one is dropped. That is a round trip, without the block.
//   - Drop ends a store for all. Another process that has it open finds no blocks any more, can write none,
//     and is Inaccessible one lease later.
//   - A lock, and Close, wait for no server that is silent: what is under way there ends with
//     [block.ErrInaccessible] or [block.ErrClosed], and a write with block.ErrOutcomeUnknown
//     besides. A step of a scan may take as long as Options.ViewLife.
//   - Sequence counts the writes of all processes as of when it was saved.
//
// # What a database cannot do
//
//   - It does not promise that its files forget. Erase and Drop destroy the keys, and say in
//     [block.Receipt].Remains where what they had sealed may still be: in dead rows until VACUUM, in the log
//     and its archive, in standbys, backups and dumps. Whoever has that, and one of the KEK versions in
//     Receipt.Keys, reads it: destroy those versions.
//   - Checkpoint is errors.ErrUnsupported: copies are the database's. A database that was restored
//     from one is not known to be a copy, and goes on with the keys of its source: DBOptions.Logger is told
//     that it is on another server or timeline than before, as after a failover. An anchor
//     (keyring.Options.Anchor) refuses one that is older. A process that has seen a failover uses no
//     server of before it. DB.Export and DB.Import move one store.
//   - Nothing is known of the disk: Stats.Engine is zero.
//
// # Rights
//
// Two roles: one makes the tables and owns them ([SchemaSQL], or Open with a role that may create a
// schema); the other, which programs use, reads and writes rows, and may neither alter, truncate
// nor drop anything ([GrantSQL]). A role that can use the tables can destroy every store in them,
// and read none.
package postgres

import (
	"context"
	"errors"
	"fmt"
	"time"

	"github.com/jackc/pgx/v5/pgxpool"

	"github.com/blockseal/blockseal/block"
	"github.com/blockseal/blockseal/internal/engine/postgres"
	"github.com/blockseal/blockseal/internal/inner"
	"github.com/blockseal/blockseal/internal/row"
)

// DefaultSchema is the default of Options.Schema.
const DefaultSchema = "blockseal"

// Options configure a DB. A nil *Options, and each zero field, means the default that the field
// states.
type Options struct {
	// Schema is the name of the schema that has the tables, 1 to 63 bytes. One schema is one DB.
	// Default: [DefaultSchema].
	Schema string
	// NoCreate has Open refuse a schema without tables instead of making them. Default: it makes
	// them if its role may.
	NoCreate bool
	// ViewLife is how long a snapshot or a scan can be read. For as long the server keeps all that is
	// overwritten and deleted, in every table of its database. Default: 10 minutes.
	ViewLife time.Duration
	// NoListen has the DB hear no notices of other processes. Else it has one connection beside the
	// pool for them, made as the pool's are, from when the first store is opened. What the others do
	// to keys it takes up at once then, and not at its next check. Set it where a pooler stands between:
	// in transaction mode it gives a notice to nobody for certain. Nothing that is promised rests on notices.
	NoListen bool
	// DB configures what is not the database's. Its field Pebble means nothing. With ReadOnly
	// nothing is written, and the schema must have been opened for writing once.
	DB block.DBOptions
}

// minConns is the least number of connections that a pool may have: one for a scan, one for the
// turn of a rewriting operation, and one for what both of them write.
const minConns = 3

// Open opens the stores in a schema, and makes the schema and its tables if they are not there. It
// asks no vault. The pool stays the caller's, who closes it after the DB; it has at least 3
// connections. Half of them are at most in use for snapshots and scans. Have [Configure] look at the
// pool's configuration before the pool is made.
//
// The server is PostgreSQL 13 or later, its primary, reached directly or through a pooler in
// session mode, with default_transaction_isolation = read committed and synchronous_commit not off;
// how much a commit survives is up to that, to fsync and to the standbys.
//
// Errors: [block.ErrVersion], [block.ErrCorrupt], [block.ErrNotStore] for a schema that is opened
// ReadOnly before anybody opened it, errors.ErrUnsupported for a server that only speaks the protocol,
// and those of the pool.
func Open(ctx context.Context, pool *pgxpool.Pool, opts *Options) (*block.DB, error) {
	var o Options
	if opts != nil {
		o = *opts
	}
	if o.Schema == "" {
		o.Schema = DefaultSchema
	}
	if pool == nil {
		return nil, errors.New("block: open: there is no pool")
	}
	c := pool.Config()
	name := fmt.Sprintf("schema %q of database %q at %s:%d", o.Schema, c.ConnConfig.Database, c.ConnConfig.Host, c.ConnConfig.Port)
	if c.MaxConns < minConns {
		return nil, fmt.Errorf("block: open %s: the pool has %d connections at most, want %d or more", name, c.MaxConns, minConns)
	}
	e, err := postgres.New(ctx, pool, &postgres.Options{Schema: o.Schema, NoCreate: o.NoCreate, ViewLife: o.ViewLife,
		NoListen: o.NoListen, ReadOnly: o.DB.ReadOnly, Logger: o.DB.Logger})
	if err != nil {
		return nil, fmt.Errorf("block: open %s: %w", name, row.Damage(err))
	}
	return o.DB.For(inner.Block{}).Open(ctx, e, name)
}

// Configure has the connections of a pool that is made with c note what PostgreSQL says with the
// success of a commit which a synchronous standby may not have, because the wait for it was
// cancelled. Such a write is [block.ErrOutcomeUnknown] then. It matters only where there are
// synchronous standbys.
func Configure(c *pgxpool.Config) { postgres.Configure(c) }

// SchemaSQL returns the SQL that makes the tables in a schema that there is, for whoever has them
// made by a role of its own.
func SchemaSQL(schema string) string { return postgres.SchemaSQL(schema) }

// GrantSQL returns the SQL that gives a role all that a program needs of the tables once they are
// there, and no more.
func GrantSQL(schema, role string) string { return postgres.GrantSQL(schema, role) }
