package postgres

import (
	"context"
	"errors"
	"fmt"
	"strings"
	"sync"
	"testing"

	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgxpool"
	"github.com/stretchr/testify/require"

	"github.com/blockseal/blockseal/internal/engine"
)

// Of several processes that come at once one makes the tables, and each of them has them.
func TestTablesAreMadeOnce(t *testing.T) {
	s := shared(t)
	first := fmt.Sprint("once", schemas.Add(1))
	for _, schema := range []string{first, `we"ird'schema; drop`, "Größe", "{s}", `back\slash`, `ends it\'`} {
		var all sync.WaitGroup
		failed := make(chan error, 8)
		for range cap(failed) {
			// Where a backslash in a string is not only itself, as it was once.
			pool := connect(t, s, "owner", "pool_max_conns=2", "standard_conforming_strings=off")
			all.Add(1)
			go func() {
				defer all.Done()
				e, err := New(context.Background(), pool, &Options{Schema: schema})
				if err == nil {
					err = e.Partition(1).RaiseFloor(context.Background(), 1)
				}
				failed <- err
			}()
		}
		all.Wait()
		close(failed)
		for err := range failed {
			require.NoError(t, err, schema)
		}
	}
	exec(t, s, fmt.Sprintf(`do $$ begin
		assert (select count(*) from %[1]s.version) = 1, 'made twice';
		assert (select revision >> 24 from %[1]s.floor) = 8, 'not all have the same';
	end $$`, first))
}

// Where there are no tables, or other ones, that is said, with what to do.
func TestTablesThatAreNotAsTheyShould(t *testing.T) {
	s := shared(t)
	pool := func(user string) *pgxpool.Pool { return connect(t, s, user, "pool_max_conns=2") }
	owner, data := pool("owner"), pool("data")
	ctx := context.Background()
	_, err := New(ctx, data, &Options{Schema: "nowhere"})
	require.ErrorContains(t, err, "SchemaSQL, GrantSQL")
	_, err = New(ctx, data, &Options{Schema: "nowhere", NoCreate: true})
	require.ErrorContains(t, err, "SchemaSQL")
	_, err = New(ctx, owner, &Options{Schema: "nowhere", NoCreate: true})
	require.ErrorContains(t, err, "SchemaSQL")
	_, err = New(ctx, owner, &Options{Schema: "theirs"})
	require.NoError(t, err)
	_, err = New(ctx, data, &Options{Schema: "theirs"})
	require.ErrorContains(t, err, "GrantSQL")
	exec(t, s, GrantSQL("theirs", "data"))
	_, err = New(ctx, data, &Options{Schema: "theirs"})
	require.NoError(t, err)
	for _, tt := range []struct {
		sql  string
		is   error
		says string
	}{
		{`update theirs.version set version = 2`, engine.ErrVersion, "of version 2, and this program knows 1"},
		{`insert into theirs.version values (1)`, engine.ErrCorrupt, "has 2 rows, want 1"},
		{`delete from theirs.version`, engine.ErrCorrupt, "has 0 rows, want 1"},
		{`drop table theirs.meta`, engine.ErrCorrupt, "no table meta"},
		{`drop table theirs.rows; create table theirs.rows (part bigint) partition by list (part)`, errors.ErrUnsupported, "not a plain one"},
	} {
		exec(t, s, tt.sql)
		_, err = New(ctx, pool("data"), &Options{Schema: "theirs"})
		require.ErrorIs(t, err, tt.is, tt.sql)
		require.ErrorContains(t, err, tt.says)
		exec(t, s, `drop schema theirs cascade`)
		exec(t, s, `create schema theirs authorization owner; set role owner; `+SchemaSQL("theirs")+GrantSQL("theirs", "data"))
		_, err = New(ctx, pool("data"), &Options{Schema: "theirs", NoCreate: true})
		require.NoError(t, err, "made by hand")
	}
	e, err := New(ctx, pool("data"), &Options{Schema: "theirs"})
	require.NoError(t, err)
	exec(t, s, `drop schema theirs cascade`)
	_, _, err = e.Partition(1).LoadMeta(ctx, "name")
	require.ErrorIs(t, err, engine.ErrCorrupt, "behind its back")
}

// A role that has what GrantSQL gives, and no more, can neither change the tables nor drop them.
func TestRoleOfTheDataMayDoNoMore(t *testing.T) {
	r := newRig(t, shared(t))
	r.put("1", "a")
	for _, sql := range []string{`drop table %s.rows`, `truncate %s.rows`, `alter table %s.rows add x int`, `delete from %s.floor`,
		`update %s.version set version = 2`, `create table %s.more (x int)`} {
		_, err := r.e.pool.Exec(r.ctx, fmt.Sprintf(sql, r.o.Schema))
		require.Equal(t, codePrivilege, code(err), sql)
	}
	exec(t, r.s, fmt.Sprintf(`revoke delete on %s.rows from data`, r.o.Schema))
	b := r.p.NewBatch()
	require.NoError(t, b.Delete([]byte("a")))
	err := r.p.Apply(r.ctx, b, r.guard(), true)
	require.ErrorContains(t, err, "GrantSQL")
	require.NotErrorIs(t, err, engine.ErrOutcomeUnknown)
}

func TestOptionsThatAreNone(t *testing.T) {
	pool, err := pgxpool.New(context.Background(), "host=/nowhere pool_max_conns=2")
	require.NoError(t, err)
	defer pool.Close()
	small, err := pgxpool.New(context.Background(), "host=/nowhere pool_max_conns=1")
	require.NoError(t, err)
	defer small.Close()
	for _, tt := range []struct {
		pool *pgxpool.Pool
		o    *Options
		says string
	}{
		{nil, nil, "no pool"},
		{small, nil, "1 connection"},
		{pool, &Options{Schema: string(make([]byte, 64))}, "no name of a schema"},
		{pool, &Options{Schema: "a\x00"}, "no name of a schema"},
		{pool, &Options{Schema: "pg_mine"}, "no name of a schema"},
		{pool, &Options{ViewLife: -1}, "negative"},
		{pool, nil, "/nowhere"}, // the server's
	} {
		_, err := New(context.Background(), tt.pool, tt.o)
		require.ErrorContains(t, err, tt.says)
		require.NotErrorIs(t, err, engine.ErrOutcomeUnknown)
	}
}

// Settings of a connection by which what is promised would not hold are refused, and said.
func TestSettingsThatDoNotFit(t *testing.T) {
	s := shared(t)
	newSchema(t, s, "fit")
	for set, says := range map[string]string{
		"synchronous_commit=off":                                      "may be lost",
		"default_transaction_isolation=serializable":                  "read committed",
		"default_transaction_isolation='repeatable read'":             "read committed",
		"synchronous_commit=local default_transaction_read_only=true": "",
	} {
		pool := connect(t, s, "data", "pool_max_conns=2", set)
		e, err := New(context.Background(), pool, &Options{Schema: "fit"})
		if says != "" {
			require.ErrorIs(t, err, errUnfit, set)
			require.ErrorContains(t, err, says)
			continue
		}
		require.NoError(t, err)
		err = e.Partition(1).RaiseFloor(context.Background(), 1)
		require.Equal(t, "25006", code(err), "the server says it")
		require.NotErrorIs(t, err, engine.ErrOutcomeUnknown)
	}
}

// Servers of which it is not known that they keep the floor are refused, and those that are too old.
func TestServersThatAreRefused(t *testing.T) {
	for _, tt := range []struct {
		version string
		number  int
		refused string
	}{
		{"PostgreSQL 15.18 (Debian 15.18-0+deb12u1) on x86_64-pc-linux-gnu, compiled by gcc", 150018, ""},
		{"PostgreSQL 13.0, compiled by Visual C++", 130000, ""},
		{"PostgreSQL 12.22 on x86_64", 120022, "PostgreSQL 12.22"},
		{"PostgreSQL 15.12-YB-2025.1.0.0-b0 on x86_64-pc-linux-gnu", 150012, "-YB-"},
		{"CockroachDB CCL v25.2.0 (x86_64-pc-linux-gnu, built 2025)", 130000, "CockroachDB"},
		{"", 0, `""`},
	} {
		err := refuseServer(tt.version, tt.number)
		if tt.refused == "" {
			require.NoError(t, err, tt.version)
			continue
		}
		require.ErrorIs(t, err, errors.ErrUnsupported, tt.version)
		require.ErrorContains(t, err, tt.refused)
	}
}

// Numbers that the tables cannot have from here are damage.
func TestNumbersThatAreNone(t *testing.T) {
	r := newRig(t, shared(t))
	require.NoError(t, r.p.RaiseFloor(r.ctx, 1))
	require.NoError(t, engine.SetMeta(r.ctx, r.p, "name", []byte("value")))
	c := r.session()
	for _, set := range []string{"epoch = -1", "epoch = 4294967296", "revision = 0", "revision = -1", "keks = '{1,-1}'", "keks = '{4294967296}'"} {
		r.exec(c, `begin; update floor set `+set+`; commit`)
		require.ErrorIs(t, r.p.Apply(r.ctx, r.batch("x", "a"), engine.Guard{}, true), engine.ErrCorrupt, set)
		require.ErrorIs(t, r.p.RefuseKEKs(r.ctx, []uint32{1}), map[bool]error{true: engine.ErrCorrupt}[strings.HasPrefix(set, "epoch")], set)
		r.exec(c, `update floor set epoch = 1, keks = '{}', revision = 1 << 30`)
	}
	for _, n := range []int{0, -5} {
		r.exec(c, fmt.Sprintf(`update meta set revision = %d`, n))
		_, _, err := r.p.LoadMeta(r.ctx, "name")
		require.ErrorIs(t, err, engine.ErrCorrupt)
	}
	require.NoError(t, engine.SetMeta(r.ctx, r.p, "name", []byte("value")), "it can be set anew")
	_, rev, err := r.p.LoadMeta(r.ctx, "name")
	require.NoError(t, err)
	require.Positive(t, rev)
}

// A standby is no server to write to.
func TestStandbyIsRefused(t *testing.T) {
	s := newServer(t)
	newSchema(t, s, "primary")
	require.NoError(t, s.Quit())
	require.NoError(t, s.Standby())
	require.NoError(t, s.Restart())
	_, err := New(context.Background(), connect(t, s, "data", "pool_max_conns=2"), &Options{Schema: "primary"})
	require.ErrorIs(t, err, errUnfit)
	require.ErrorContains(t, err, "target_session_attrs")
}

// The table is as the measurements that it was chosen by: blocks are out of line as they are, and a
// record is replaced without touching the index or the block.
func TestRecordIsReplacedWithoutItsBlock(t *testing.T) {
	r := newRig(t, shared(t))
	c := r.session()
	block := string(make([]byte, 100<<10)) // which would compress well
	r.put(block, "a")
	require.EqualValues(t, len(block), one[int](r, c, `select pg_column_size(data) from rows`))
	toast := `select pg_relation_size(reltoastrelid) from pg_class where oid = 'rows'::regclass`
	before := one[int64](r, c, toast)
	require.GreaterOrEqual(t, before, int64(len(block)))
	index := one[int64](r, c, `select pg_relation_size('rows_pkey')`)
	for i := range 50 {
		b := r.p.NewBatch()
		require.NoError(t, b.PutRecord([]byte("a"), fmt.Append(nil, i)))
		require.NoError(t, r.p.Apply(r.ctx, b, r.guard(), true))
	}
	require.Equal(t, before, one[int64](r, c, toast))
	require.Equal(t, index, one[int64](r, c, `select pg_relation_size('rows_pkey')`))
}

// Whatever the planner thinks of a table that was filled since it was looked at last, nothing goes
// through more rows than it is about.
func TestPlansGoByTheIndex(t *testing.T) {
	r := newRig(t, shared(t))
	c := r.session()
	r.exec(c, `alter table rows set (autovacuum_enabled = off);
		insert into rows select p, int8send(n), '', '', 'record', 'data' from generate_series(1, 10000) n, generate_series(6, 8) p`)
	ids, empty := [][]byte{{1}, {2}, {3}}, [][]byte{none, none, none}
	for _, analysed := range []bool{false, true} {
		if analysed {
			r.exec(c, `analyze rows`)
		}
		for _, mode := range []string{"force_generic_plan", "force_custom_plan"} {
			r.exec(c, `set plan_cache_mode = `+mode)
			plan := func(how, sql string, args ...any) {
				r.exec(c, `begin; `+how)
				defer r.exec(c, `rollback`)
				rows, err := c.Query(r.ctx, `explain `+sql, args...)
				require.NoError(t, err)
				lines, err := pgx.CollectRows(rows, pgx.RowTo[string])
				require.NoError(t, err)
				text := strings.Join(lines, "\n")
				require.Contains(t, text, "using rows_pkey", sql)
				for _, not := range []string{"Seq Scan on rows", "Bitmap", "Hash", "Merge", "->  Sort"} {
					require.NotContains(t, text, not, sql)
				}
			}
			s := r.e.sql
			for part := range 2 {
				for direction := range 2 {
					plan(byIndex, s.chunks[part][direction][unbounded], 7, none, none, 100, chunkBytes)
					plan(byIndex, s.chunks[part][direction][below], 7, none, none, 100, chunkBytes, []byte{0xff}, none)
				}
			}
			for _, get := range []string{s.get, s.getRecord, s.getSealed} {
				plan(``, get, 7, none, none)
			}
			plan(``, s.lockRows, 7, ids, empty)
			plan(``, s.remove, 7, none, none)
			plan(``, s.delete, 7, firstRevision, 0, false, none, none)
			plan(byIndex, s.clearTo, 7, none, clearedAtOnce)
			plan(byIndex, s.clearRange, 7, none, []byte{0xff})
			plan(byIndex, s.clearEnd, 7, none)
		}
	}
}
