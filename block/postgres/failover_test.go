package postgres_test

import (
	"errors"
	"fmt"
	"path/filepath"
	"strconv"
	"sync"
	"sync/atomic"
	"testing"

	"github.com/jackc/pgx/v5"
	"github.com/stretchr/testify/require"

	"github.com/blockseal/blockseal/block"
	"github.com/blockseal/blockseal/internal/test/pgserver"
	"github.com/blockseal/blockseal/keyring"
)

// content is all that the stores of a schema have on a server: what is asked is asked of a standby too.
func (g *rig) content(s *pgserver.Server) (all string) {
	g.t.Helper()
	c, err := pgx.Connect(g.ctx, s.Conn("postgres", "search_path="+g.schema))
	require.NoError(g.t, err)
	defer c.Close(g.ctx)
	require.NoError(g.t, c.QueryRow(g.ctx, `select concat((select string_agg(m::text, ',' order by part, name) from meta m where part >= 0), '/',
		(select string_agg(f::text, ',' order by part) from floor f), '/', (select string_agg(r::text, ',' order by part, id) from rows r))`).Scan(&all))
	return all
}

// value asks a server for one value.
func value[V any](g *rig, s *pgserver.Server, query string) (v V) {
	g.t.Helper()
	c, err := pgx.Connect(g.ctx, s.Conn("postgres", "search_path="+g.schema))
	require.NoError(g.t, err)
	defer c.Close(g.ctx)
	require.NoError(g.t, c.QueryRow(g.ctx, query).Scan(&v))
	return v
}

// A primary and its standby, through what operators do with them: a failover with everything there, the
// old primary that comes back as one, and then as a standby, and a failover to one that was behind.
func TestFailover(t *testing.T) {
	anchors := t.TempDir()
	first := pgserver.Run(t, "wal_log_hints=on", "wal_keep_size=128MB")
	roles(t, first)
	g := newRigOn(t, first)
	second, err := first.NewStandby("wal_log_hints=on", "wal_keep_size=128MB")
	require.NoError(t, err)
	t.Cleanup(func() { require.NoError(t, second.Stop()) })
	both := []*pgserver.Server{first, second}
	pool := newPool(t, pgserver.ConnAny("program", both, "pool_max_conns=8"))
	g.store.Keyring.Anchor = keyring.FileAnchor(filepath.Join(anchors, "first"))
	db := g.dbOf(pool)
	s := g.create(db, "store")

	step := func(name string, f func(g *rig)) {
		ok := t.Run(name, func(t *testing.T) {
			at := *g
			at.t = t
			f(&at)
		})
		require.True(t, ok)
	}
	step("to a synchronous standby", func(g *rig) {
		t := g.t
		sql(t, first, "postgres", `ALTER SYSTEM SET synchronous_standby_names = '*'`)
		sql(t, first, "postgres", `SELECT pg_reload_conf()`)
		require.Eventually(t, func() bool {
			return value[int](g, first, `select count(*) from pg_stat_replication where sync_state = 'sync'`) == 1
		}, long, short)
		const writers = 3
		var acknowledged, tried [writers]int
		var all atomic.Int64
		var stop atomic.Bool
		var wg sync.WaitGroup
		for w := range writers {
			wg.Go(func() {
				for !stop.Load() {
					tried[w]++
					if err := s.Put(g.ctx, fmt.Appendf(nil, "writer %d", w), fmt.Append(nil, tried[w])); err == nil {
						acknowledged[w] = tried[w]
						all.Add(1)
					}
				}
			})
		}
		progress := func() {
			from := all.Load()
			require.Eventually(t, func() bool { return all.Load() >= from+50 }, long, short)
		}
		progress()
		require.NoError(t, first.Kill())
		require.NoError(t, second.Promote())
		progress()
		stop.Store(true)
		wg.Wait()
		for w := range writers {
			got, err := s.Get(g.ctx, fmt.Appendf(nil, "writer %d", w), nil)
			require.NoError(t, err)
			n, err := strconv.Atoi(string(got))
			require.NoError(t, err)
			require.GreaterOrEqual(t, n, acknowledged[w], "lost")
			require.LessOrEqual(t, n, tried[w])
		}
		require.NoError(t, s.RotateEpoch(g.ctx, nil))
		require.Len(t, requireWhole(t, s).DEKs, 1)
		_, err := s.AnchorPoint(g.ctx)
		require.NoError(t, err)
		require.NoError(t, s.Revalidate(g.ctx))
	})
	step("the old primary comes back as one", func(g *rig) {
		t := g.t
		require.NoError(t, first.Restart())
		t.Cleanup(func() { require.NoError(t, first.Kill()) }) // after what is open there was closed
		sql(t, first, "postgres", `ALTER SYSTEM RESET synchronous_standby_names`)
		sql(t, first, "postgres", `SELECT pg_reload_conf()`)
		was := g.content(first)
		pool.Reset() // it is the first that is found
		err := s.Put(g.ctx, []byte("id"), []byte("to the wrong one"))
		require.ErrorContains(t, err, "the primary of before a failover")
		require.NotErrorIs(t, err, block.ErrOutcomeUnknown)
		_, err = s.Get(g.ctx, []byte("writer 0"), nil)
		require.ErrorContains(t, err, "timeline 2 was seen")
		require.Equal(t, was, g.content(first))
		// Who has seen nothing is told by the anchor.
		_, err = g.dbOf(newPool(t, first.Conn("program", "pool_max_conns=8"))).Open(g.ctx, "store", g.kek, &g.store)
		require.ErrorIs(t, err, keyring.ErrUnexpected)
		require.Equal(t, was, g.content(first))
	})
	step("it is rewound", func(g *rig) {
		t := g.t
		sql(t, second, "postgres", `CHECKPOINT`)
		require.NoError(t, first.Rewind(second))
		require.NoError(t, first.Restart())
		require.Eventually(t, func() bool { return s.Put(g.ctx, []byte("id"), []byte("after")) == nil }, long, short)
		require.Eventually(t, func() bool { return g.content(first) == g.content(second) }, long, short, "%s", lateLog{first})
		require.True(t, value[bool](g, first, `select pg_is_in_recovery()`))
	})
	step("to a standby that was behind", func(g *rig) {
		t := g.t
		sql(t, first, "postgres", `ALTER SYSTEM SET primary_conninfo = ''`)
		sql(t, first, "postgres", `SELECT pg_reload_conf()`)
		require.Eventually(t, func() bool { return value[int](g, second, `select count(*) from pg_stat_replication`) == 0 }, long, short)
		put(t, s, "id", "lost")
		require.NoError(t, s.RotateEpoch(g.ctx, nil))
		put(t, s, "id", "lost too")
		_, err := s.AnchorPoint(g.ctx)
		require.NoError(t, err)
		require.NoError(t, second.Kill())
		require.NoError(t, first.Promote())
		was := g.content(first)

		require.Eventually(t, func() bool {
			err = s.Put(g.ctx, []byte("id"), []byte("on what there is"))
			require.Error(t, err)
			return errors.Is(err, block.ErrCorrupt)
		}, long, short, "connections are made again")
		require.ErrorContains(t, err, "has gone back")
		require.ErrorContains(t, err, "a failover to a standby that was behind")
		require.Error(t, s.RotateEpoch(g.ctx, nil))
		require.Error(t, s.RotateKEK(g.ctx))
		_, err = s.AnchorPoint(g.ctx)
		require.Error(t, err)
		require.Equal(t, was, g.content(first), "nothing was overwritten")
		require.Eventually(t, func() bool {
			g.clock.Advance(keyring.DefaultCheckEvery)
			return status(s) == keyring.Inaccessible
		}, long, short)
		_ = s.Close()
		require.Equal(t, was, g.content(first))

		again := g.dbOf(newPool(t, first.Conn("program", "pool_max_conns=8")))
		_, err = again.Open(g.ctx, "store", g.kek, &g.store)
		require.ErrorIs(t, err, keyring.ErrUnexpected)
		require.ErrorContains(t, err, "empty anchor", "what to do")
		require.Equal(t, was, g.content(first), "nothing was overwritten")
		// It is known what is missing, and accepted.
		g.store.Keyring.Anchor = keyring.FileAnchor(filepath.Join(anchors, "another"))
		s := g.open(again, "store")
		requireData(t, s, "id", "after")
		put(t, s, "id", "anew")
		require.NoError(t, s.RotateEpoch(g.ctx, nil))
		require.Len(t, requireWhole(t, s).DEKs, 1)
	})
}

// lateLog is the end of a server's log, when it is wanted.
type lateLog struct{ s *pgserver.Server }

func (l lateLog) String() string {
	log := l.s.Log()
	return "its log: " + log[max(0, len(log)-4000):]
}
