package postgres

import (
	"context"
	"errors"
	"fmt"
	"strings"

	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgconn"
	"github.com/jackc/pgx/v5/pgxpool"

	"github.com/blockseal/blockseal/internal/engine"
)

// schemaVersion is that of the tables. Another one is refused.
const schemaVersion = 1

// oldestServer is the oldest PostgreSQL: rows come in the order of long ids without all of them
// being sorted since 13.
const oldestServer = 130000

// schemaSQL makes the tables.
//
// The record is in the row, and a block that makes the row larger than 2 kB is out of line, as it
// is (blocks do not compress), but for a tail (cut.go): who replaces the record leaves it where it is. Nothing but the key
// has an index, so that such a replacement touches none, and a part of each page is left free for
// it. Overwritten blocks leave more behind than the defaults of autovacuum keep up with.
const schemaSQL = `CREATE TABLE {s}.rows (
	part bigint NOT NULL,
	id bytea NOT NULL,
	long bytea NOT NULL,
	rest bytea NOT NULL,
	record bytea NOT NULL,
	data bytea,
	tail bytea,
	PRIMARY KEY (part, id, long)
) WITH (fillfactor = 85, autovacuum_vacuum_scale_factor = 0.05, autovacuum_vacuum_cost_delay = 0,
	toast.autovacuum_vacuum_scale_factor = 0.05, toast.autovacuum_vacuum_cost_delay = 0);
ALTER TABLE {s}.rows ALTER COLUMN record SET STORAGE MAIN, ALTER COLUMN tail SET STORAGE MAIN, ALTER COLUMN data SET STORAGE EXTERNAL;
CREATE TABLE {s}.meta (
	part bigint NOT NULL,
	name bytea NOT NULL,
	revision bigint NOT NULL,
	value bytea NOT NULL,
	PRIMARY KEY (part, name)
);
ALTER TABLE {s}.meta ALTER COLUMN value SET STORAGE EXTERNAL;
CREATE TABLE {s}.floor (
	part bigint PRIMARY KEY,
	revision bigint NOT NULL,
	epoch bigint NOT NULL,
	keks bigint[] NOT NULL
) WITH (fillfactor = 50);
CREATE TABLE {s}.version (version integer NOT NULL);
INSERT INTO {s}.version VALUES ({version});
`

// SchemaSQL returns what makes the tables of an engine in a schema that there is, for who does so
// with a role of its own: [New] does it otherwise.
func SchemaSQL(schema string) string {
	return strings.NewReplacer("{s}", pgx.Identifier{schema}.Sanitize(), "{version}", fmt.Sprint(schemaVersion)).Replace(schemaSQL)
}

// GrantSQL returns what gives a role all that an engine needs of the tables once they are there,
// and no more. It may neither change nor drop them.
func GrantSQL(schema, role string) string {
	return strings.NewReplacer("{s}", pgx.Identifier{schema}.Sanitize(), "{role}", pgx.Identifier{role}.Sanitize()).Replace(
		`GRANT USAGE ON SCHEMA {s} TO {role};
GRANT SELECT ON {s}.version TO {role};
GRANT SELECT, INSERT, UPDATE ON {s}.floor TO {role};
GRANT SELECT, INSERT, UPDATE, DELETE ON {s}.rows, {s}.meta TO {role};
`)
}

// checkServer refuses what is not known to do what raising the floor rests on.
func checkServer(ctx context.Context, c *pgxpool.Conn) error {
	var version string
	var number int
	if err := c.QueryRow(ctx, `SELECT version(), current_setting('server_version_num')::int`).Scan(&version, &number); err != nil {
		return err
	}
	return refuseServer(version, number)
}

func refuseServer(version string, number int) error {
	if !strings.HasPrefix(version, "PostgreSQL ") || strings.Contains(version, "-YB-") {
		return fmt.Errorf("engine: the server is %.60q: %w: only with PostgreSQL itself it is known that nothing passes a raised floor", version, errors.ErrUnsupported)
	}
	if number < oldestServer {
		return fmt.Errorf("engine: the server is PostgreSQL %d.%d: %w: it must be %d at least", number/10000, number%10000, errors.ErrUnsupported, oldestServer/10000)
	}
	return nil
}

// ensureSchema checks the tables, and makes them if there are none and create says so.
func ensureSchema(ctx context.Context, c *pgxpool.Conn, schema string, create bool) error {
	err := checkSchema(ctx, c, schema)
	if !missing(err) || !create {
		return sayMissing(err, schema)
	}
	// Of several processes that come at once one makes them.
	err = pgx.BeginFunc(ctx, c, func(tx pgx.Tx) error {
		if _, err := tx.Exec(ctx, `SELECT pg_advisory_xact_lock(hashtextextended('blockseal schema ' || $1, 0))`, schema); err != nil {
			return err
		}
		var there, tables bool
		if err := tx.QueryRow(ctx, `SELECT EXISTS (SELECT FROM pg_namespace WHERE nspname = $1),
			EXISTS (SELECT FROM pg_tables WHERE schemaname = $1 AND tablename = 'version')`, schema).Scan(&there, &tables); err != nil || tables {
			return err
		}
		if !there {
			if _, err := tx.Exec(ctx, `CREATE SCHEMA `+pgx.Identifier{schema}.Sanitize()); err != nil {
				return err
			}
		}
		_, err := tx.Conn().PgConn().Exec(ctx, SchemaSQL(schema)).ReadAll()
		return err
	})
	if code(err) == codePrivilege {
		return fmt.Errorf("engine: the tables of schema %q are not there, and this role may not make them: have another one do so (SchemaSQL, GrantSQL): %w", schema, err)
	}
	if err != nil {
		return fmt.Errorf("engine: make the tables of schema %q: %w", schema, err)
	}
	return sayMissing(checkSchema(ctx, c, schema), schema)
}

func checkSchema(ctx context.Context, c *pgxpool.Conn, schema string) error {
	s := pgx.Identifier{schema}.Sanitize()
	rows, err := c.Query(ctx, `SELECT version FROM `+s+`.version`)
	if err != nil {
		return err
	}
	versions, err := pgx.CollectRows(rows, pgx.RowTo[int])
	if err != nil {
		return err
	}
	if len(versions) != 1 {
		return fmt.Errorf("%w: table version of schema %q has %d rows, want 1", engine.ErrCorrupt, schema, len(versions))
	}
	if versions[0] != schemaVersion {
		return fmt.Errorf("%w: the tables of schema %q are of version %d, and this program knows %d", engine.ErrVersion, schema, versions[0], schemaVersion)
	}
	for _, table := range []string{"rows", "meta", "floor"} {
		var kind string
		err := c.QueryRow(ctx, `SELECT relkind::text FROM pg_class WHERE oid = to_regclass($1)`, s+"."+table).Scan(&kind)
		if errors.Is(err, pgx.ErrNoRows) {
			return fmt.Errorf("%w: schema %q has no table %s", engine.ErrCorrupt, schema, table)
		}
		if err != nil {
			return err
		}
		// A partitioned table's locks are those of its parts as well, which is not tried.
		if kind != "r" {
			return fmt.Errorf("engine: table %s of schema %q is not a plain one (%q): %w", table, schema, kind, errors.ErrUnsupported)
		}
	}
	return nil
}

// missing reports whether there is no schema, or no table of it.
func missing(err error) bool {
	c := code(err)
	return c == codeNoTable || c == codeNoSchema
}

func sayMissing(err error, schema string) error {
	if missing(err) {
		return fmt.Errorf("engine: schema %q has no tables of blockseal: have them made (SchemaSQL): %w", schema, err)
	}
	if code(err) == codePrivilege {
		return fmt.Errorf("engine: this role may not use the tables of schema %q: grant it that (GrantSQL): %w", schema, err)
	}
	return err
}

// code returns the SQLSTATE of an error of the server, or "".
func code(err error) string {
	var pg *pgconn.PgError
	if errors.As(err, &pg) {
		return pg.Code
	}
	return ""
}
