package postgres

import (
	"strconv"
	"strings"
	"sync/atomic"
	"testing"

	"github.com/jackc/pgx/v5"
	"github.com/stretchr/testify/require"

	"github.com/blockseal/blockseal/internal/engine"
	"github.com/blockseal/blockseal/internal/test/pgserver"
)

// hears counts what is heard of partition 7, from when it listens.
func (r *rig) hears() *atomic.Int64 {
	r.Helper()
	n := new(atomic.Int64)
	r.Cleanup(r.p.(engine.Hearer).Hear(func() { n.Add(1) }))
	require.Eventually(r, func() bool { return n.Load() == 1 }, long, short, "what was told before it listened")
	n.Store(0)
	return n
}

// listeners are the sessions that listen to what is told in the schema.
func (r *rig) listeners(c *pgx.Conn) []int32 {
	r.Helper()
	return one[[]int32](r, c, `select coalesce(array_agg(pid), '{}') from pg_stat_activity where query = $1`, r.e.sql.listen)
}

// What others have to take up is told to every process but the one that has done it: what changes a
// floor, and a swap that says so. Blocks are not, nor another partition's.
func TestOthersAreTold(t *testing.T) {
	a := newRig(t, shared(t))
	b := a.another("pool_max_conns=2")
	a.put("1", "x") // and a floor
	own, heard := a.hears(), b.hears()
	told := int64(0)
	for name, tt := range map[string]struct {
		do   func() error
		told int64
	}{
		"RaiseFloor": {func() error { return a.p.RaiseFloor(a.ctx, 2) }, 1},
		"RefuseKEKs": {func() error { return a.p.RefuseKEKs(a.ctx, []uint32{1}) }, 1},
		"RefuseKEKs of who has the turn": {func() error {
			defer a.mustTurn()()
			return a.p.RefuseKEKs(a.ctx, nil)
		}, 1},
		"a swap that tells": {func() error {
			_, err := a.p.SwapMeta(a.ctx, engine.Swap{Name: "a", Revision: engine.AnyRevision, Value: []byte("1"), Tell: true}, engine.Swap{Name: "b", Revision: engine.AnyRevision})
			return err
		}, 1},
		"Clear":   {func() error { return a.e.Partition(7).Clear(a.ctx) }, 1},
		"a swap":  {func() error { return engine.SetMeta(a.ctx, a.p, "a", []byte("2")) }, 0},
		"a block": {func() error { return a.tryPut("2", "x") }, 0},
		"a refusal": {func() error {
			a.put("2", "x")
			return anyFloor(a.p.Apply(a.ctx, a.batch("x", "x"), engine.Guard{}, true))
		}, 0},
		"another partition": {func() error { return a.e.Partition(8).RaiseFloor(a.ctx, 1) }, 0},
	} {
		require.NoError(t, tt.do(), name)
		// Notices come in the order of the commits.
		require.NoError(t, a.p.RaiseFloor(a.ctx, 1))
		told += tt.told + 1
		require.Eventually(t, func() bool { return heard.Load() >= told }, long, short, name)
		require.Equal(t, told, heard.Load(), name)
	}
	require.Zero(t, own.Load(), "it knows")
	f, err := b.p.(engine.Hearer).LookAtFloor(b.ctx)
	require.NoError(t, err)
	require.Equal(t, f, b.p.Floor())
	require.Equal(t, a.p.Floor(), f)
	none, err := b.e.Partition(9).(engine.Hearer).LookAtFloor(b.ctx)
	require.NoError(t, err)
	require.EqualValues(t, firstRevision, none.Revision, "to look makes none")
	require.Zero(t, one[int](a, a.session(), `select count(*) from floor where part = 9`))
	// What somebody else says there is nothing.
	a.exec(a.session(), `notify `+channel(a.o.Schema)+`, 'x'; notify `+channel(a.o.Schema)+`, '7'`)
	require.Eventually(t, func() bool { return heard.Load() > told }, long, short)
	require.Equal(t, told+1, heard.Load())
}

// A listener that lost its connection connects again, and has everyone look, because nobody knows
// what was told meanwhile.
func TestListenerComesBack(t *testing.T) {
	a := newRig(t, shared(t))
	b := a.another("pool_max_conns=2")
	heard := b.hears()
	c := a.session()
	for range 2 {
		pids := b.listeners(c)
		require.Len(t, pids, 1)
		require.True(t, one[bool](a, c, `select pg_terminate_backend($1)`, pids[0]))
		require.Eventually(t, func() bool { return heard.Load() > 0 }, long, short)
		heard.Store(0)
		require.NoError(t, a.p.RaiseFloor(a.ctx, 1))
		require.Eventually(t, func() bool { return heard.Load() > 0 }, long, short)
		heard.Store(0)
	}
}

// There is one listening connection, none of the pool's, and none without anybody who hears, where the
// options say so, or after Close, which waits for no server that is silent.
func TestListeningEndsWithTheEngine(t *testing.T) {
	r := newRig(t, shared(t))
	c := r.session()
	proxy := newProxy(t, r.s)
	for _, silent := range []bool{false, true} {
		b := r.through(proxy, "pool_max_conns=2", "pool_min_conns=0")
		require.Empty(t, b.listeners(c))
		heard := b.hears()
		defer b.e.Partition(8).(engine.Hearer).Hear(func() {})()
		require.Len(t, b.listeners(c), 1)
		require.LessOrEqual(t, b.e.pool.Stat().TotalConns(), int32(1), "none of the pool's")
		if silent {
			proxy.Judge(func(bool, []byte) pgserver.Verdict { return pgserver.Drop })
		}
		require.NoError(t, b.e.Close())
		proxy.Judge(nil)
		require.Eventually(t, func() bool { return len(b.listeners(c)) == 0 }, long, short)
		require.NoError(t, r.p.RaiseFloor(r.ctx, 1))
		require.Zero(t, heard.Load())
		b.p.(engine.Hearer).Hear(func() {})() // of an engine that is closed
	}
	o := *r.o
	o.NoListen = true
	e := open(t, r.s, &o)
	defer e.Partition(7).(engine.Hearer).Hear(func() { t.Error("it heard something") })()
	require.NoError(t, r.p.RaiseFloor(r.ctx, 1))
	require.NoError(t, e.Partition(7).RaiseFloor(r.ctx, 1))
	require.Empty(t, r.listeners(c))
}

// A channel's name is one that PostgreSQL takes as it is, whatever the schema is called.
func TestChannelOfASchema(t *testing.T) {
	seen := map[string]bool{}
	for _, schema := range []string{"a", "b", "A", `"; drop table x; --`, strings.Repeat("x", 63)} {
		name := channel(schema)
		require.Regexp(t, `^[a-z_][a-z0-9_]{0,62}$`, name)
		require.False(t, seen[name])
		seen[name] = true
	}
	p := &partition{e: &Engine{notices: notices{sender: "me"}}, number: 4294967295}
	part, sender, _ := strings.Cut(p.notice(), " ")
	n, err := strconv.ParseInt(part, 10, 64)
	require.NoError(t, err)
	require.Equal(t, p.number, n)
	require.Equal(t, "me", sender)
}
