package postgres

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/jackc/pgx/v5/pgxpool"
	"github.com/stretchr/testify/require"

	"github.com/blockseal/blockseal/internal/engine"
	"github.com/blockseal/blockseal/internal/engine/memory"
	"github.com/blockseal/blockseal/internal/test/seed"
)

// lives keeps what ends the views of an engine, for the test to do.
type lives struct {
	mu  sync.Mutex
	all []func()
}

func (l *lives) afterFunc(_ time.Duration, f func()) func() bool {
	l.mu.Lock()
	defer l.mu.Unlock()
	at := len(l.all)
	l.all = append(l.all, f)
	return func() bool {
		l.mu.Lock()
		defer l.mu.Unlock()
		there := l.all[at] != nil
		l.all[at] = nil
		return there
	}
}

// over has the time of all views be over that are open.
func (l *lives) over() {
	l.mu.Lock()
	all := slices.Clone(l.all)
	l.mu.Unlock()
	for _, f := range all {
		if f != nil {
			f()
		}
	}
}

func (l *lives) open() (n int) {
	l.mu.Lock()
	defer l.mu.Unlock()
	for _, f := range l.all {
		if f != nil {
			n++
		}
	}
	return n
}

func withLives(t testing.TB) (*rig, *lives) {
	r, l := newRig(t, shared(t)), new(lives)
	o := *r.o
	o.AfterFunc = l.afterFunc
	r.o = &o
	return r.another("pool_max_conns=4"), l
}

// A view whose time is over says so, and so do the cursors of it; it holds up nobody any more.
func TestViewEndsWithItsTime(t *testing.T) {
	r, lives := withLives(t)
	r.put("1", "a", "b")
	v, err := r.p.View(r.ctx)
	require.NoError(t, err)
	c, err := v.Cursor(r.ctx, engine.Record, nil, nil)
	require.NoError(t, err)
	alone, err := r.p.Cursor(r.ctx, engine.Record, nil, nil)
	require.NoError(t, err)
	clone, err := alone.Clone(engine.Sealed, nil, nil)
	require.NoError(t, err)
	require.True(t, c.First())
	require.EqualValues(t, 2, r.e.pool.Stat().AcquiredConns())
	lives.over()
	require.Eventually(t, func() bool { return r.e.pool.Stat().AcquiredConns() == 0 }, long, short, "the connections are free")
	require.Equal(t, "a", string(c.ID()), "what was read is there")
	require.True(t, c.Next())
	var row engine.Row
	require.ErrorIs(t, v.Get(r.ctx, []byte("a"), engine.Both, &row), engine.ErrViewEnded)
	require.ErrorContains(t, v.Get(r.ctx, []byte("a"), engine.Both, &row), "10m0s are over")
	require.Zero(t, row.Has)
	for _, c := range []engine.Cursor{c, alone, clone} {
		require.False(t, c.SeekGE([]byte("c")))
		require.ErrorIs(t, c.Err(), engine.ErrViewEnded)
		require.False(t, c.Valid())
		require.NoError(t, c.Close())
	}
	require.NoError(t, v.Close())
	require.NoError(t, v.Close(), "again")
	require.Zero(t, lives.open())
	require.Empty(t, r.e.views)
	require.Equal(t, "1", r.value("a"))
}

// The time of a view ends what is being asked.
func TestViewEndsWhileItIsRead(t *testing.T) {
	r, lives := withLives(t)
	r.put("1", "a")
	v, err := r.p.View(r.ctx)
	require.NoError(t, err)
	c := r.session()
	r.exec(c, `begin; lock table rows in access exclusive mode`)
	ended := make(chan error, 1)
	go func() { var row engine.Row; ended <- v.Get(r.ctx, []byte("a"), engine.Both, &row) }()
	other := r.session()
	require.Eventually(t, func() bool { return one[int](r, other, `select count(*) from pg_locks where not granted`) == 1 }, long, short)
	// Who waits for its turn goes when its context ends, and the view stays.
	ctx, cancel := context.WithCancel(r.ctx)
	turn := make(chan error, 1)
	go func() { var row engine.Row; turn <- v.Get(ctx, []byte("a"), engine.Both, &row) }()
	cancel()
	require.ErrorIs(t, <-turn, context.Canceled)
	require.Empty(t, ended)
	lives.over()
	require.ErrorIs(t, <-ended, engine.ErrViewEnded)
	r.exec(c, `commit`)
	require.NoError(t, v.Close())
	require.Empty(t, r.e.views)
}

// A view ends with its connection, and says why.
func TestViewEndsWithItsConnection(t *testing.T) {
	r, lives := withLives(t)
	r.put("1", "a")
	v, err := r.p.View(r.ctx)
	require.NoError(t, err)
	c := r.session()
	require.Eventually(t, func() bool { // those of tests before may have to go yet
		return one[int](r, c, `select count(*) from pg_stat_activity where state = 'idle in transaction'`) == 1
	}, long, short)
	require.Equal(t, 1, one[int](r, c, `select count(pg_terminate_backend(pid)) from pg_stat_activity where state = 'idle in transaction'`))
	require.Eventually(t, func() bool {
		return one[int](r, c, `select count(*) from pg_stat_activity where state = 'idle in transaction'`) == 0
	}, long, short)
	var row engine.Row
	require.ErrorIs(t, v.Get(r.ctx, []byte("a"), engine.Both, &row), engine.ErrViewEnded)
	require.Zero(t, row.Has)
	require.ErrorIs(t, v.Get(r.ctx, []byte("a"), engine.Both, &row), engine.ErrViewEnded)
	require.NoError(t, v.Close())
	require.Empty(t, r.e.views)
	require.Zero(t, lives.open())
}

// Views leave connections to those who write: who wants one more waits.
func TestViewsLeaveConnections(t *testing.T) {
	r, _ := withLives(t)
	r.put("1", "a")
	var open []engine.View
	for range 2 { // of four connections
		v, err := r.p.View(r.ctx)
		require.NoError(t, err)
		open = append(open, v)
	}
	ctx, cancel := context.WithCancel(r.ctx)
	got := make(chan error, 2)
	go func() { _, err := r.p.View(ctx); got <- err }()
	go func() { _, err := r.p.Cursor(ctx, engine.Record, nil, nil); got <- err }()
	r.put("2", "a")
	c, err := open[0].Cursor(r.ctx, engine.Record, nil, nil)
	require.NoError(t, err, "that of a view has the view's")
	require.True(t, c.First())
	require.NoError(t, c.Close())
	require.Empty(t, got)
	cancel()
	require.ErrorIs(t, <-got, context.Canceled)
	require.ErrorIs(t, <-got, context.Canceled)
	require.NoError(t, open[0].Close())
	v, err := r.p.View(r.ctx)
	require.NoError(t, err)
	require.NoError(t, v.Close())
	require.NoError(t, open[1].Close())
}

// A view's connection is given back as it was: nothing of the view is left in it.
func TestViewLeavesNothingBehind(t *testing.T) {
	r, _ := withLives(t)
	r.put("1", "a")
	v, err := r.p.View(r.ctx)
	require.NoError(t, err)
	require.NoError(t, v.Close())
	require.EqualValues(t, 1, r.e.pool.Stat().TotalConns(), "it is the same connection")
	for setting, want := range map[string]string{"transaction_isolation": "read committed", "enable_seqscan": "on", "idle_in_transaction_session_timeout": "0", "transaction_read_only": "off"} {
		var got string
		require.NoError(t, r.e.pool.QueryRow(r.ctx, `select current_setting($1)`, setting).Scan(&got))
		require.Equal(t, want, got, setting)
	}
}

// What a process leaves open that was stopped, and whose connections nobody closes, the server ends.
func TestStoppedProcessesAreEnded(t *testing.T) {
	r := newRig(t, shared(t))
	o := *r.o
	o.ViewLife = time.Millisecond
	o.AfterFunc = func(time.Duration, func()) func() bool { return func() bool { return true } } // it never comes to it
	r.o = &o
	r = r.another("pool_max_conns=4")
	r.put("1", "a")
	v, err := r.p.View(r.ctx)
	require.NoError(t, err)
	c := r.session()
	require.Eventually(t, func() bool {
		return one[int](r, c, `select count(*) from pg_stat_activity where state = 'idle in transaction'`) == 0
	}, long, short)
	var row engine.Row
	require.ErrorIs(t, v.Get(r.ctx, []byte("a"), engine.Both, &row), engine.ErrViewEnded)
	require.NoError(t, v.Close())
	// A change has a minute, and holds up raises for no longer.
	require.NoError(t, r.e.on(r.ctx, func(c *pgxpool.Conn) error {
		return r.p.(*partition).transact(r.ctx, c, func(tx *transaction) error {
			_, _, err := tx.hold(nil, nil)
			require.NoError(t, err)
			var left string
			require.NoError(t, c.QueryRow(r.ctx, `select current_setting('idle_in_transaction_session_timeout')`).Scan(&left))
			require.Equal(t, "1min", left)
			return nil
		})
	}))
}

// Whatever way a cursor goes, it comes by what one in memory comes by: in chunks of rows and of
// bytes, and with ids of which the index has only the head.
func TestCursorsGoAsInMemory(t *testing.T) {
	r := newRig(t, shared(t))
	m := memory.New().Partition(7)
	rng := rand.New(rand.NewPCG(seed.Of(t), 0))
	head := strings.Repeat("h", headSize-2)
	id := func() []byte {
		out := []byte{}
		if rng.IntN(2) == 0 {
			out = append(out, head...)
		}
		for range rng.IntN(6) {
			out = append(out, []byte{0, 'h', 'i', 0xff}[rng.IntN(4)])
		}
		if rng.IntN(8) == 0 {
			out = append(out, make([]byte, rng.IntN(engine.MaxID-len(out)))...)
		}
		return out
	}
	for range 30 {
		texts := map[string]string{}
		for range 20 {
			texts[string(id())] = fmt.Sprint(rng.Uint64())
		}
		for _, p := range []engine.Partition{r.p, m} {
			b := p.NewBatch()
			for id, text := range texts {
				room, err := b.Put([]byte(id), []byte(text), len(text))
				require.NoError(t, err)
				copy(room, text)
			}
			for !errors.Is(p.Apply(r.ctx, b, guard(p), true), nil) {
			}
			require.NoError(t, b.Close())
		}
	}
	steps := 0
	for range 40 {
		var lower, upper []byte
		if rng.IntN(2) == 0 {
			lower = id()
		}
		if rng.IntN(2) == 0 {
			upper = id()
		}
		a, err := r.p.Cursor(r.ctx, engine.Record, lower, upper)
		require.NoError(t, err)
		b, err := m.Cursor(r.ctx, engine.Record, lower, upper)
		require.NoError(t, err)
		same := func(what string, x, y bool) {
			t.Helper()
			require.NoError(t, a.Err())
			require.Equal(t, y, x, "%s in [%q, %q)", what, lower, upper)
			require.Equal(t, y, a.Valid())
			if x {
				require.True(t, bytes.Equal(b.ID(), a.ID()), "%s in [%q, %q)", what, lower, upper)
				u, err := a.Value()
				require.NoError(t, err)
				v, err := b.Value()
				require.NoError(t, err)
				require.Equal(t, v, u)
			}
			steps++
		}
		same("first", a.First(), b.First())
		for range 25 {
			switch to := id(); rng.IntN(6) {
			case 0:
				same("first", a.First(), b.First())
			case 1:
				same("last", a.Last(), b.Last())
			case 2:
				same(fmt.Sprintf("seek %q", to), a.SeekGE(to), b.SeekGE(to))
			case 3:
				same(fmt.Sprintf("seek before %q", to), a.SeekLT(to), b.SeekLT(to))
			case 4:
				for range rng.IntN(40) {
					same("next", a.Next(), b.Next())
				}
			case 5:
				for range rng.IntN(40) {
					same("previous", a.Prev(), b.Prev())
				}
			}
		}
		require.NoError(t, a.Close())
	}
	require.Greater(t, steps, 1000)
}

// A chunk has few bytes, whatever the rows have.
func TestCursorReadsFewBytesAtOnce(t *testing.T) {
	r := newRig(t, shared(t))
	block := bytes.Repeat([]byte{1, 2, 3}, 1<<20)
	var ids []string
	for i := range 9 {
		b := r.p.NewBatch()
		ids = append(ids, fmt.Sprint(i))
		room, err := b.Put([]byte(ids[i]), []byte("record"), len(block))
		require.NoError(t, err)
		copy(room, block)
		require.NoError(t, r.p.Apply(r.ctx, b, r.guard(), true))
		require.NoError(t, b.Close())
	}
	got, err := r.p.Cursor(r.ctx, engine.Sealed, nil, nil)
	require.NoError(t, err)
	c := got.(*cursor)
	var walked []string
	for ok := c.First(); ok; ok = c.Next() {
		require.LessOrEqual(t, len(c.rows), 2, "more than 4 MiB and one row")
		v, err := c.Value()
		require.NoError(t, err)
		require.True(t, bytes.Equal(block, v))
		walked = append(walked, string(c.ID()))
	}
	require.NoError(t, c.Err())
	require.Equal(t, ids, walked)
	for ok := c.Last(); ok; ok = c.Prev() {
		require.LessOrEqual(t, len(c.rows), 2)
		walked = walked[:len(walked)-1]
	}
	require.Empty(t, walked)
	require.NoError(t, c.Close())
}
