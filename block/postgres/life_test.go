package postgres_test

import (
	"bytes"
	"context"
	"errors"
	"path/filepath"
	"strings"
	"testing"

	"github.com/cockroachdb/pebble/v2/vfs"
	"github.com/jackc/pgx/v5/pgxpool"
	"github.com/stretchr/testify/require"

	"github.com/blockseal/blockseal/block"
	"github.com/blockseal/blockseal/block/postgres"
	"github.com/blockseal/blockseal/keyring"
)

// requireRemains checks that a receipt says what a database cannot do.
func (g *rig) requireRemains(r block.Receipt) {
	g.t.Helper()
	for _, where := range []string{"VACUUM", "write-ahead log", "standbys, base backups", g.schema} {
		require.Contains(g.t, strings.Join(r.Remains, "\n"), where)
	}
	require.NotEmpty(g.t, r.Hash)
	require.False(g.t, r.Pinned)
	require.Equal(g.t, r.Time.Add(keyring.DefaultLease), r.Until, "then no process has the keys any more")
	require.Len(g.t, r.Keys, 1)
	require.Equal(g.t, g.key, r.Keys[0].Key, "with which what remains could be read")
}

// Erase destroys the keys in the document, and its receipt says where what they had sealed remains.
func TestEraseSaysWhatRemains(t *testing.T) {
	g := newRig(t)
	a, b := g.two()
	put(t, a, "id", "data")
	put(t, a, "gone", "data")
	require.NoError(t, b.Delete(g.ctx, []byte("gone")))
	epoch := a.State().Epoch
	r, err := a.Erase(g.ctx, nil)
	require.NoError(t, err)
	g.requireRemains(r)
	require.Equal(t, []uint32{epoch}, r.Epochs)
	require.EqualValues(t, 1, r.Kept)
	last, found, err := b.LastReceipt(g.ctx)
	require.NoError(t, err)
	require.True(t, found)
	require.Equal(t, r, last, "whoever asks has it")
	requireData(t, b, "id", "data")
	snap := a.Snapshot()
	_, err = a.Erase(g.ctx, nil)
	require.ErrorIs(t, err, block.ErrPinned)
	require.NoError(t, snap.Close())
}

// Drop ends a store for all processes: who has it open writes nothing more to it, and is Inaccessible
// one lease later; the next store of the name has nothing of it.
func TestDropEndsAStoreForAll(t *testing.T) {
	g := newRig(t)
	one, two := g.db(), g.db()
	a := g.create(one, "store")
	other := g.create(one, "another")
	b := g.open(two, "store")
	put(t, a, "id", "data")
	put(t, b, "id", "data")
	put(t, other, "id", "another's")
	r, err := one.Drop(g.ctx, "store")
	require.NoError(t, err)
	g.requireRemains(r)
	require.True(t, r.Dropped)
	require.Equal(t, "store", r.Name)

	err = b.Put(g.ctx, []byte("id"), []byte("after"))
	require.ErrorIs(t, err, keyring.ErrNoDocument)
	require.ErrorIs(t, b.Delete(g.ctx, []byte("id")), keyring.ErrNoDocument)
	_, err = b.Get(g.ctx, []byte("id"), nil)
	require.ErrorIs(t, err, block.ErrNotFound)
	_, err = b.Erase(g.ctx, nil)
	require.Error(t, err)
	g.clock.Advance(keyring.DefaultLease)
	_, err = b.Get(g.ctx, []byte("id"), nil)
	require.ErrorIs(t, err, block.ErrInaccessible, "no check has found a document, and the lease is over")
	_, err = two.Drop(g.ctx, "store")
	require.ErrorIs(t, err, block.ErrNoStore)
	require.NoError(t, b.Close())
	require.Zero(t, ask[int](g, `select count(*) from rows where part = 0`))

	again := g.create(two, "store")
	_, err = again.Get(g.ctx, []byte("id"), nil)
	require.ErrorIs(t, err, block.ErrNotFound)
	require.NotEqual(t, a.StoreID(), again.StoreID())
	require.NoError(t, other.Revalidate(g.ctx), "its checks had the time of the lease, and none to do their work in")
	requireData(t, other, "id", "another's")
}

// What a crash left of a drop the next one who opens the schema finishes, and so do several at once.
func TestDropIsFinishedByOthers(t *testing.T) {
	g := newRig(t)
	put(t, g.create(g.db(), "store"), "id", "data")
	s := g.server
	// The server refuses to delete rows: a step in the middle.
	sql(t, s, "owner", `REVOKE DELETE ON `+g.schema+`.rows FROM program`)
	_, err := g.db().Drop(g.ctx, "store")
	require.ErrorContains(t, err, "GrantSQL")
	if db, err := postgres.Open(g.ctx, g.pool("program"), g.options()); err == nil { // it may go on without
		_, err = db.Open(g.ctx, "store", g.kek, &g.store)
		require.ErrorIs(t, err, block.ErrNoStore)
		require.NoError(t, db.Close())
	}
	sql(t, s, "owner", postgres.GrantSQL(g.schema, "program"))
	for range 3 {
		_, err := g.db().Open(g.ctx, "store", g.kek, &g.store)
		require.ErrorIs(t, err, block.ErrNoStore)
	}
	require.Zero(t, ask[int](g, `select count(*) from rows`))
	require.Zero(t, ask[int](g, `select count(*) from meta where name = 'keyring'`))
	require.Equal(t, 1, ask[int](g, `select count(*) from meta where encode(name, 'escape') like 'receipt/%'`))
}

// Copies are the database's.
func TestCheckpointIsUnsupported(t *testing.T) {
	g := newRig(t)
	db := g.db()
	s := g.create(db, "store")
	dir := filepath.Join(t.TempDir(), "copy")
	for _, err := range []error{s.Checkpoint(g.ctx, dir), db.Checkpoint(g.ctx, dir)} {
		require.ErrorIs(t, err, errors.ErrUnsupported)
	}
	require.ErrorContains(t, db.Checkpoint(g.ctx, dir), "database's own tools")
	require.NoDirExists(t, dir)
	copies, err := s.Copies(g.ctx)
	require.NoError(t, err)
	require.Empty(t, copies)
}

// A store moves from a directory to the database and back: it arrives as a copy, which waits for
// Revalidate.
func TestMovesBetweenDirectoryAndDatabase(t *testing.T) {
	g := newRig(t)
	o := g.options().DB
	o.Pebble.FS = vfs.NewMem()
	dir, err := block.OpenDB(g.ctx, "dir", &o)
	require.NoError(t, err)
	defer func() { require.NoError(t, dir.Close()) }()
	s := g.create(dir, "store")
	put(t, s, "id", "data")
	db := g.db()
	for _, from := range []*block.DB{dir, db} {
		to := db
		if from == db {
			to = dir
		}
		var b bytes.Buffer
		_, err = from.Export(g.ctx, "store", &b)
		require.NoError(t, err)
		_, err = to.Import(g.ctx, &b)
		require.NoError(t, err)
		s = g.open(to, "store")
		require.Equal(t, keyring.Inaccessible, status(s))
		require.NoError(t, s.Revalidate(g.ctx))
		requireData(t, s, "id", "data")
		put(t, s, "id", "data")
		_, err = from.Drop(g.ctx, "store")
		require.NoError(t, err)
	}
}

// The number of writes is that of all processes, and never less than an anchor was told.
func TestSequenceCountsAllProcesses(t *testing.T) {
	g := newRig(t)
	g.store.Keyring.Anchor = keyring.FileAnchor(filepath.Join(t.TempDir(), "anchor"))
	one, two := g.db(), g.db()
	a := g.create(one, "store")
	b := g.open(two, "store")
	before, err := a.AnchorPoint(g.ctx)
	require.NoError(t, err)
	for range 10 {
		put(t, a, "a", "")
	}
	for range 3 {
		put(t, b, "b", "")
	}
	p, err := a.AnchorPoint(g.ctx)
	require.NoError(t, err)
	q, err := b.AnchorPoint(g.ctx)
	require.NoError(t, err)
	require.GreaterOrEqual(t, p.Sequence, before.Sequence+10)
	require.GreaterOrEqual(t, q.Sequence, before.Sequence+13)
	require.NoError(t, a.Close())
	require.NoError(t, b.Close())
	c := g.open(one, "store")
	require.GreaterOrEqual(t, c.Sequence(), before.Sequence+13)
	put(t, c, "c", "")
	require.NoError(t, c.Close())
	d := g.open(two, "store")
	require.GreaterOrEqual(t, d.Sequence(), before.Sequence+14)
}

// A server that has lost what it acknowledged, as after a failover to a standby that was behind, is
// found out: by who has the store open, who replaces nothing, and by an anchor.
func TestServerThatHasGoneBack(t *testing.T) {
	g := newRig(t)
	g.store.Keyring.Anchor = keyring.FileAnchor(filepath.Join(t.TempDir(), "anchor"))
	db := g.db()
	a := g.create(db, "store")
	put(t, a, "id", "before")
	_, err := a.AnchorPoint(g.ctx)
	require.NoError(t, err)
	copied := func(tables ...string) {
		var s strings.Builder
		for _, name := range tables {
			s.WriteString(strings.ReplaceAll(`CREATE TABLE {s}.old_@ AS SELECT * FROM {s}.@;`, "@", name))
		}
		sql(t, g.server, "owner", strings.ReplaceAll(s.String(), "{s}", g.schema))
	}
	copied("rows", "meta", "floor")
	put(t, a, "id", "after")
	require.NoError(t, a.RotateEpoch(g.ctx, nil))
	put(t, a, "id", "last")
	_, err = a.AnchorPoint(g.ctx)
	require.NoError(t, err)
	var s strings.Builder
	for _, name := range []string{"rows", "meta", "floor"} {
		s.WriteString(strings.ReplaceAll(`DELETE FROM {s}.@; INSERT INTO {s}.@ SELECT * FROM {s}.old_@;`, "@", name))
	}
	sql(t, g.server, "owner", strings.ReplaceAll(s.String(), "{s}", g.schema))

	err = a.Put(g.ctx, []byte("id"), []byte("on what there was"))
	require.ErrorIs(t, err, block.ErrCorrupt)
	require.ErrorContains(t, err, "gone back")
	require.Error(t, a.RotateEpoch(g.ctx, nil))
	require.Error(t, a.RotateKEK(g.ctx))
	_, err = a.AnchorPoint(g.ctx)
	require.Error(t, err)
	require.Zero(t, ask[int](g, `select count(*) from meta m full join old_meta o using (part, name) where m.value is distinct from o.value`), "nothing was replaced")
	require.Zero(t, ask[int](g, `select count(*) from rows m full join old_rows o using (part, id) where (m.data, m.tail) is distinct from (o.data, o.tail)`))
	require.Eventually(t, func() bool {
		g.clock.Advance(keyring.DefaultCheckEvery)
		return status(a) == keyring.Inaccessible
	}, long, short)
	_, err = g.db().Open(g.ctx, "store", g.kek, &g.store)
	require.ErrorIs(t, err, keyring.ErrUnexpected)
	_ = a.Close()
}

// As docs/postgres.md has it: a role that owns the tables, and one for programs, which can do all
// that a DB does and nothing to the tables.
func TestTwoRoles(t *testing.T) {
	g := newRig(t)
	db := g.db() // as "program"
	s := g.create(db, "store")
	put(t, s, "id", "data")
	require.NoError(t, s.RotateEpoch(g.ctx, nil))
	_, err := s.Erase(g.ctx, nil)
	require.NoError(t, err)
	for _, statement := range []string{`DROP TABLE {s}.rows`, `TRUNCATE {s}.rows`, `ALTER TABLE {s}.rows ADD x int`, `DELETE FROM {s}.floor`,
		`CREATE TABLE {s}.more (x int)`, `UPDATE {s}.version SET version = 9`, `DROP SCHEMA {s} CASCADE`, `CREATE INDEX ON {s}.rows (data)`} {
		require.ErrorContains(t, trySQL(t, g.server, "program", strings.ReplaceAll(statement, "{s}", g.schema)), "42501", statement)
	}
	// One that only reads needs less.
	sql(t, g.server, "postgres", strings.ReplaceAll(`CREATE ROLE reader_{s} LOGIN; GRANT USAGE ON SCHEMA {s} TO reader_{s}; GRANT SELECT ON ALL TABLES IN SCHEMA {s} TO reader_{s}`, "{s}", g.schema))
	o := g.options()
	o.DB.ReadOnly = true
	reader, err := postgres.Open(g.ctx, g.pool("reader_"+g.schema), o)
	require.NoError(t, err)
	r := g.open(reader, "store")
	requireData(t, r, "id", "data")
	put(t, s, "id", "more")
	requireData(t, r, "id", "more")
	require.ErrorIs(t, r.Put(g.ctx, []byte("id"), nil), block.ErrReadOnly)
	_, err = reader.Drop(g.ctx, "store")
	require.ErrorIs(t, err, block.ErrReadOnly)
	require.NoError(t, reader.Close())

	_, err = postgres.Open(g.ctx, g.pool("program"), &postgres.Options{Schema: "not_there"})
	require.ErrorContains(t, err, "SchemaSQL")
	_, err = postgres.Open(g.ctx, g.pool("owner"), &postgres.Options{Schema: g.schema + "_own"})
	require.NoError(t, err, "a role that may makes them itself")
}

func TestOpenRefuses(t *testing.T) {
	g := newRig(t)
	nowhere, err := pgxpool.New(g.ctx, "host=/nowhere")
	require.NoError(t, err)
	defer nowhere.Close()
	readOnly := g.options()
	readOnly.DB.ReadOnly = true
	negative := g.options()
	negative.DB.MaxOpen = -1
	for name, tt := range map[string]struct {
		pool *pgxpool.Pool
		opts *postgres.Options
		is   error
		says string
	}{
		"no pool":         {nil, nil, nil, "there is no pool"},
		"a small pool":    {g.pool("program", "pool_max_conns=2"), g.options(), nil, "2 connections at most, want 3"},
		"no server":       {nowhere, g.options(), nil, "/nowhere"},
		"a bad schema":    {g.pool("program"), &postgres.Options{Schema: "pg_x"}, nil, "no name of a schema"},
		"nothing to read": {g.pool("program"), readOnly, block.ErrNotStore, "nothing was made there yet"},
		"bad options":     {g.pool("program"), negative, nil, "must not be negative"},
	} {
		t.Run(name, func(t *testing.T) {
			db, err := postgres.Open(context.Background(), tt.pool, tt.opts)
			require.Nil(t, db)
			require.ErrorContains(t, err, tt.says)
			if tt.is != nil {
				require.ErrorIs(t, err, tt.is)
			}
		})
	}
	sql(t, g.server, "owner", `UPDATE `+g.schema+`.version SET version = 2`)
	_, err = postgres.Open(g.ctx, g.pool("program"), g.options())
	require.ErrorIs(t, err, block.ErrVersion)
}
