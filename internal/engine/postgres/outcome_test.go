package postgres

import (
	"context"
	"errors"
	"fmt"
	"strings"
	"sync/atomic"
	"testing"

	"github.com/jackc/pgx/v5/pgconn"
	"github.com/jackc/pgx/v5/pgxpool"
	"github.com/stretchr/testify/require"

	"github.com/blockseal/blockseal/internal/engine"
	"github.com/blockseal/blockseal/internal/test/pgserver"
)

// changes is each way in which something is changed, of a row or a meta record, and what is there
// afterwards. A transaction has two steps. Of meta records the server says afterwards what became of them.
var changes = []struct {
	name  string
	steps int64
	make  func(r *rig, id string) error
	there func(r *rig, id string) bool
}{
	{"a row", 1, func(r *rig, id string) error {
		return r.p.Apply(r.ctx, r.batch("new", id), r.guard(), true)
	}, hasRow},
	{"several rows", 1, func(r *rig, id string) error {
		return r.p.Apply(r.ctx, r.batch("new", id, id+" too"), r.guard(), true)
	}, hasRow},
	{"a deletion", 1, func(r *rig, id string) error {
		b := r.p.NewBatch()
		require.NoError(r, b.Delete([]byte("to be deleted "+id)))
		return r.p.Apply(r.ctx, b, r.guard(), true)
	}, func(r *rig, id string) bool { return r.value("to be deleted "+id) == "" }},
	{"what rests on rows", 2, func(r *rig, id string) error {
		g := r.guard()
		g.Was = []engine.Was{{ID: []byte(id)}}
		return r.p.Apply(r.ctx, r.batch("new", id), g, true)
	}, hasRow},
	{"a replacement", 2, func(r *rig, id string) error {
		lost, err := r.p.Replace(r.ctx, r.batch("new", id), []engine.Was{{ID: []byte(id)}})
		if err == nil && lost > 0 {
			err = errors.New("it was lost")
		}
		return err
	}, hasRow},
	{"a meta record", 2, func(r *rig, id string) error {
		_, err := r.p.SwapMeta(r.ctx, engine.Swap{Name: id, Value: []byte("new")})
		return err
	}, hasMeta},
	{"meta records", 2, func(r *rig, id string) error {
		_, err := r.p.SwapMeta(r.ctx, engine.Swap{Name: id, Value: []byte("new")}, engine.Swap{Name: id + " too", Value: []byte("new")})
		return err
	}, hasMeta},
}

func hasRow(r *rig, id string) bool { return r.value(id) == "new" }

func hasMeta(r *rig, id string) bool {
	_, _, err := r.p.LoadMeta(r.ctx, id)
	if errors.Is(err, engine.ErrNotFound) {
		return false
	}
	require.NoError(r, err)
	return true
}

// Where the answer to a change is lost, or the question with the change, nobody knows which it was:
// the error says that, and is never nil. What the server had not been told to commit is done again,
// and so is a change of meta records that the server says it has undone.
func TestAnswersThatAreLost(t *testing.T) {
	own := newRig(t, shared(t))
	proxy := newProxy(t, own.s)
	r := own.through(proxy, "pool_max_conns=2", "pool_min_conns=0")
	for _, c := range changes {
		for _, lost := range []struct {
			name     string
			question bool // it is that which is lost
			at       int64
			how      pgserver.Verdict
			unknown  bool
			made     bool
		}{
			{"the answer", false, c.steps, pgserver.Cut, true, true},
			{"the answer, and the connection is half open", false, c.steps, pgserver.HalfClose, true, true},
			{"the question", true, c.steps, pgserver.Cut, true, false},
			{"the first answer of two", false, 1, pgserver.Cut, c.steps == 1, true},
			{"the first question of two", true, 1, pgserver.Cut, c.steps == 1, c.steps == 2},
		} {
			t.Run(c.name+", "+lost.name, func(t *testing.T) {
				r, own := &rig{t, r.ctx, r.s, r.o, r.e, r.p}, &rig{t, r.ctx, r.s, r.o, own.e, own.p}
				own.put("old", "to be deleted warm", "to be deleted it")
				own.p.RaiseFloor(r.ctx, 1)
				r.p.(*partition).floor.Store(own.p.(*partition).floor.Load())
				require.NoError(t, c.make(r, "warm"), "so that the statements are known to the connection")
				var questions, answers, done atomic.Int64
				proxy.Judge(func(toServer bool, chunk []byte) pgserver.Verdict {
					n := &answers
					if toServer {
						n = &questions
					}
					// Of a connection that was cut before: a request to cancel, or a farewell.
					if toServer && (chunk[0] == 0 || chunk[0] == 'X') {
						return pgserver.Forward
					}
					if toServer == lost.question && n.Add(1) == lost.at && done.Add(1) == 1 {
						return lost.how
					}
					return pgserver.Forward
				})
				err := c.make(r, "it")
				proxy.Judge(nil)
				require.EqualValues(t, 1, done.Load(), "nothing was lost")
				settled := strings.HasPrefix(c.name, "meta") || c.name == "a meta record"
				if lost.unknown && !settled {
					require.ErrorIs(t, err, engine.ErrOutcomeUnknown)
				} else {
					require.NoError(t, err)
				}
				if lost.made || settled {
					require.Eventually(t, func() bool { return c.there(own, "it") }, long, short)
				} else {
					require.False(t, c.there(own, "it"))
				}
				require.NoError(t, own.p.Clear(r.ctx))
			})
		}
	}
	// What only asks is asked again.
	own.put("new", "a")
	r.put("new", "b")
	var cut atomic.Int64
	proxy.Judge(func(toServer bool, _ []byte) pgserver.Verdict {
		if !toServer && cut.Add(1) == 1 {
			return pgserver.Cut
		}
		return pgserver.Forward
	})
	require.Equal(t, "new", r.value("a"))
	require.Positive(t, cut.Load())
}

// A context that ends while a change waits leaves it open whether it is made, if it was given to
// the server; and what was not is surely not made.
func TestContextThatEndsMeanwhile(t *testing.T) {
	r := newRig(t, shared(t))
	r.put("old", "a", "b")
	c, other := r.session(), r.session()
	for name, tt := range map[string]struct {
		do      func(ctx context.Context) error
		unknown bool
	}{
		"a statement": {func(ctx context.Context) error { return r.p.Apply(ctx, r.batch("new", "a"), r.guard(), true) }, true},
		"a transaction": {func(ctx context.Context) error {
			_, err := r.p.Replace(ctx, r.batch("new", "a"), []engine.Was{{ID: []byte("a"), Record: []byte("old")}})
			return err
		}, false},
	} {
		t.Run(name, func(t *testing.T) {
			r.exec(c, `begin; select from rows where id = 'a' for update`)
			ctx, cancel := context.WithCancel(r.ctx)
			ended := make(chan error, 1)
			go func() { ended <- tt.do(ctx) }()
			require.Eventually(t, func() bool {
				return one[int](r, other, `select count(*) from pg_locks where not granted`) == 1
			}, long, short)
			cancel()
			err := <-ended
			require.ErrorIs(t, err, context.Canceled)
			require.Equal(t, tt.unknown, errors.Is(err, engine.ErrOutcomeUnknown))
			r.exec(c, `rollback`)
		})
	}
	require.Equal(t, "old", r.value("b"))
}

// Of two who wait for each other the server ends one, and that one tries again.
func TestDeadlocksAreTriedAgain(t *testing.T) {
	r := newRig(t, shared(t))
	r.put("old", "a", "b")
	exec(t, r.s, `alter role data set deadlock_timeout = '200ms'`)
	defer exec(t, r.s, `alter role data reset deadlock_timeout`)
	r = r.another("pool_max_conns=2")
	c, other := r.session(), r.session()
	applied := make(chan error, 1)
	before := strings.Count(r.s.Log(), "deadlock detected")
	// Who waits looks for a deadlock once, after deadlock_timeout. On a machine that does much else the
	// second wait may begin after that: then nobody ends them, and both begin again.
	r.exec(c, `set deadlock_timeout = '1h'; set lock_timeout = '2s'`)
	for tries, over := 0, false; !over; tries++ {
		require.Less(t, tries, 30, "they wait for each other, and nobody sees it")
		r.exec(c, `begin; select from rows where id = 'b' for update`)
		go func() { applied <- r.tryPut("new", "a", "b") }()
		require.Eventually(t, func() bool { return one[int](r, other, `select count(*) from pg_locks where not granted`) == 1 }, long, short)
		_, err := c.PgConn().Exec(r.ctx, `select from rows where id = 'a' for update; commit`).ReadAll() // when the other one has given up
		if over = err == nil; !over {
			refused, ok := errors.AsType[*pgconn.PgError](err)
			require.True(t, ok && refused.Code == "55P03", "lock_timeout: %v", err)
			r.exec(c, `rollback`)
		}
		require.NoError(t, <-applied)
	}
	require.Equal(t, "new", r.value("a"))
	require.Equal(t, "new", r.value("b"))
	require.Greater(t, strings.Count(r.s.Log(), "deadlock detected"), before, "there was none")
}

// What the server answers decides what becomes of it.
func TestErrorsOfTheServer(t *testing.T) {
	ended := errors.New("unexpected EOF")
	for _, tt := range []struct {
		err          error
		undone, next bool
		is           error
	}{
		{&pgconn.PgError{Code: codeSerialization, SeverityUnlocalized: "ERROR"}, true, true, nil},
		{&pgconn.PgError{Code: codeDeadlock, Severity: "ERROR"}, true, true, nil},
		{&pgconn.PgError{Code: "57014", SeverityUnlocalized: "ERROR"}, true, false, nil}, // statement_timeout
		{&pgconn.PgError{Code: codeDiskFull, SeverityUnlocalized: "ERROR"}, true, false, engine.ErrNoRoom},
		{&pgconn.PgError{Code: codeDataCorrupted, SeverityUnlocalized: "ERROR"}, true, false, engine.ErrCorrupt},
		{&pgconn.PgError{Code: codeNoTable, SeverityUnlocalized: "ERROR"}, true, false, engine.ErrCorrupt},
		{&pgconn.PgError{Code: "57P01", SeverityUnlocalized: "FATAL"}, false, false, nil}, // after the commit, it may be
		{&pgconn.PgError{Code: "XX000", SeverityUnlocalized: "PANIC"}, false, false, nil},
		{&pgconn.PgError{Code: codeUnknown, SeverityUnlocalized: "ERROR"}, false, false, nil},
		{&pgconn.PgError{Code: codeStatement, SeverityUnlocalized: "ERROR"}, false, false, nil},
		{ended, false, true, nil},
		{notSent{err: ended}, true, true, nil},
		{notSent{err: ended, final: true}, true, false, nil},
		{notSent{err: context.Canceled}, true, false, context.Canceled},
		{notSent{err: engine.ErrChanged}, true, false, engine.ErrChanged},
	} {
		require.Equal(t, tt.undone, undone(fmt.Errorf("of a change: %w", tt.err)), "%v", tt.err)
		require.Equal(t, tt.next, again(tt.err), "%v", tt.err)
		if tt.is != nil {
			require.ErrorIs(t, translate(tt.err), tt.is)
		}
		require.ErrorIs(t, translate(tt.err), tt.err)
	}
}

// A commit that the server says was not waited for is not known to be with a standby.
func TestCommitThatNoStandbyHas(t *testing.T) {
	r := newRig(t, newServer(t, "synchronous_standby_names=nobody", "synchronous_commit=local"))
	for _, change := range changes {
		r.put("old", "to be deleted it "+change.name)
	}
	c := r.session()
	r = r.another("pool_max_conns=12", "synchronous_commit=on")
	for _, change := range changes {
		t.Run(change.name, func(t *testing.T) {
			ended := make(chan error, 1)
			go func() { ended <- change.make(r, "it "+change.name) }()
			cancel := `select count(pg_cancel_backend(pid)) from pg_stat_activity where wait_event = 'SyncRep'`
			require.Eventually(t, func() bool { return one[int](r, c, cancel) > 0 || len(ended) > 0 }, long, short)
			require.ErrorIs(t, <-ended, engine.ErrOutcomeUnknown)
			require.True(t, change.there(r, "it "+change.name), "it is here")
		})
	}
}

// Connections that ended with the server while nobody used them cost no change: they are found
// before anything is sent.
func TestIdleConnectionsOfBefore(t *testing.T) {
	r := newRig(t, newServer(t))
	for n, end := range []func() error{r.s.Kill, r.s.Quit} {
		var all []*pgxpool.Conn
		for range 8 {
			c, err := r.e.pool.Acquire(r.ctx)
			require.NoError(t, err)
			require.NoError(t, r.e.fit(r.ctx, c))
			all = append(all, c)
		}
		require.NoError(t, end())
		require.NoError(t, r.s.Restart())
		for _, c := range all {
			c.Release()
		}
		for i := range 20 {
			require.NoError(t, r.tryPut(fmt.Sprint(n, i), "a"))
			require.Equal(t, fmt.Sprint(n, i), r.value("a"))
		}
	}
}
