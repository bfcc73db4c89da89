package postgres

import (
	"bytes"
	"context"
	"encoding/binary"
	"errors"
	"flag"
	"fmt"
	"sync"
	"sync/atomic"
	"testing"

	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgxpool"
	"github.com/stretchr/testify/require"

	"github.com/blockseal/blockseal/internal/engine"
)

var raises = flag.Int("raises", 20, "how often the floor is raised while writers try to slip an older epoch past it")

func isFloor(err error) bool { return errors.Is(err, engine.ErrFloor) }

// polls counts how often it is asked whether transactions are still running.
type polls struct {
	sql string
	n   atomic.Int64
}

func (p *polls) TraceQueryStart(ctx context.Context, _ *pgx.Conn, d pgx.TraceQueryStartData) context.Context {
	if d.SQL == p.sql {
		p.n.Add(1)
	}
	return ctx
}

func (p *polls) TraceQueryEnd(context.Context, *pgx.Conn, pgx.TraceQueryEndData) {}

// watched is another process that says how often it has looked for who it waits for.
func (r *rig) watched() (*rig, *polls) {
	w := &polls{sql: newStatements(r.o.Schema).running}
	return r.traced(w), w
}

// traced is another process, whose statements a tracer is told of.
func (r *rig) traced(w pgx.QueryTracer) *rig {
	c, err := pgxpool.ParseConfig(r.s.Conn("data", "pool_max_conns=2"))
	require.NoError(r, err)
	c.ConnConfig.Tracer = w
	pool, err := pgxpool.NewWithConfig(r.ctx, c)
	require.NoError(r, err)
	r.Cleanup(pool.Close)
	e, err := New(r.ctx, pool, r.o)
	require.NoError(r, err)
	return &rig{r.TB, r.ctx, r.s, r.o, e, e.Partition(7)}
}

// raiseBeside raises the floor, and calls end when the raise waits, which it must.
func (r *rig) raiseBeside(raise func(p engine.Partition) error, end func()) {
	r.Helper()
	w, polls := r.watched()
	raised := make(chan error, 1)
	go func() { raised <- raise(w.p) }()
	require.Eventually(r, func() bool { return polls.n.Load() >= 3 || len(raised) > 0 }, long, short)
	require.Empty(r, raised, "it did not wait")
	end()
	require.NoError(r, <-raised)
}

// A raise waits for a change that has seen the floor of before and is not committed: it is there
// when the raise returns.
func TestRaiseWaitsForWhoSawTheFloorOfBefore(t *testing.T) {
	r := newRig(t, shared(t))
	r.put("there", "x") // and a floor
	for name, raise := range map[string]func(p engine.Partition) error{
		"RaiseFloor": func(p engine.Partition) error { return p.RaiseFloor(r.ctx, 5) },
		"RefuseKEKs": func(p engine.Partition) error { return p.RefuseKEKs(r.ctx, []uint32{1}) },
		"again":      func(p engine.Partition) error { return p.RaiseFloor(r.ctx, 5) }, // who raised it first may have died
	} {
		t.Run(name, func(t *testing.T) {
			r := &rig{t, r.ctx, r.s, r.o, r.e, r.p}
			c := r.session()
			_, err := r.p.(*partition).seeFloor(r.ctx)
			require.NoError(t, err)
			g := r.guard()
			r.exec(c, `begin`)
			tag, err := c.Exec(r.ctx, r.e.sql.put, 7, number(g.Floor), g.Epoch, false, []byte(name), none, none, []byte("late"), []byte("late"), nil)
			require.NoError(t, err)
			require.EqualValues(t, 1, tag.RowsAffected())
			r.raiseBeside(raise, func() { r.exec(c, `commit`) })
			require.Equal(t, "late", r.value(name))
			require.ErrorIs(t, r.p.Apply(r.ctx, r.batch("too late", "y"), g, true), engine.ErrFloor)
		})
	}
}

// Nor does one slip through that waits for the lock on the table and has seen nothing yet; and the
// raise waits for it as well, because it might have.
func TestRaiseWaitsForWhoWaitsForTheTable(t *testing.T) {
	r := newRig(t, shared(t))
	r.put("there", "x")
	c := r.session()
	r.exec(c, `begin; lock table rows in access share mode; lock table rows in share mode`)
	g := r.guard()
	applied := make(chan error, 3)
	waiting := `select count(*) from pg_locks where relation = 'rows'::regclass and not granted`
	go func() { applied <- r.p.Apply(r.ctx, r.batch("1", "a"), g, true) }()
	go func() { applied <- r.p.Apply(r.ctx, r.batch("1", "b", "c"), g, true) }()
	resting := g
	resting.Was = []engine.Was{{ID: []byte("d")}}
	go func() { applied <- r.p.Apply(r.ctx, r.batch("1", "d"), resting, true) }()
	other := r.session()
	require.Eventually(t, func() bool { return one[int](r, other, waiting) == 3 }, long, short)
	r.raiseBeside(func(p engine.Partition) error { return p.RaiseFloor(r.ctx, 5) }, func() { r.exec(c, `commit`) })
	for range 3 {
		require.ErrorIs(t, <-applied, engine.ErrFloor)
	}
	for _, id := range []string{"a", "b", "c", "d"} {
		require.Empty(t, r.value(id))
	}
	require.EqualValues(t, 5, r.p.Floor().Epoch, "the refusal says what it is")
}

// VACUUM, and whoever keeps others from changing the table and changes nothing, hold up no raise.
func TestRaiseDoesNotWaitForVacuum(t *testing.T) {
	r := newRig(t, shared(t))
	r.put("there", "x")
	for _, mode := range []string{"share update exclusive", "share"} {
		c := r.session()
		r.exec(c, `begin; lock table rows in `+mode+` mode`)
		require.NoError(t, r.p.RaiseFloor(r.ctx, 5), mode)
		r.exec(c, `commit`)
	}
}

// A change under another isolation goes by a snapshot that may be older than its lock, and is
// refused whatever the floor is.
func TestIsolationIsReadCommitted(t *testing.T) {
	r := newRig(t, shared(t))
	r.put("there", "x")
	r.e.pool.Reset()
	c, err := r.e.pool.Acquire(r.ctx)
	require.NoError(t, err)
	require.NoError(t, r.e.fit(r.ctx, c)) // it is not looked at again
	_, err = c.Exec(r.ctx, `set default_transaction_isolation = 'repeatable read'`)
	require.NoError(t, err)
	g := r.guard()
	for name, b := range map[string]engine.Batch{"one": r.batch("1", "a"), "several": r.batch("1", "a", "b")} {
		sql, args := r.e.sql.put, []any{7, number(g.Floor), g.Epoch, false, []byte("a"), none, none, none, none, nil}
		if name == "several" {
			sql, args = r.e.sql.putAll, []any{7, number(g.Floor), g.Epoch, false, [][]byte{none}, [][]byte{none}, [][]byte{none}, [][]byte{none}, [][]byte{none}, [][]byte{nil}}
		}
		tag, err := c.Exec(r.ctx, sql, args...)
		require.NoError(t, err)
		require.Zero(t, tag.RowsAffected(), name)
		require.NoError(t, b.Close())
	}
	c.Release()
	// Whoever is given that connection is told, and has changed nothing.
	for range 20 {
		if err = r.p.Apply(r.ctx, r.batch("1", "a"), g, true); err != nil {
			break
		}
	}
	require.ErrorIs(t, err, errUnfit)
	require.ErrorContains(t, err, "read committed")
	record, deletion := r.p.NewBatch(), r.p.NewBatch()
	require.NoError(t, errors.Join(record.PutRecord([]byte("x"), []byte("1")), deletion.Delete([]byte("x"))))
	for name, b := range map[string]engine.Batch{"several": r.batch("1", "x", "a"), "a record": record, "a deletion": deletion} {
		require.ErrorIs(t, r.p.Apply(r.ctx, b, g, true), errUnfit, name)
		require.NoError(t, b.Close())
	}
	require.Equal(t, "there", r.value("x"))
	require.Empty(t, r.value("a"))
	// A transaction says itself what it is.
	g.Was = []engine.Was{{ID: []byte("z")}}
	require.NoError(t, r.p.Apply(r.ctx, r.batch("1", "z"), g, true))
}

// A floor that another process has raised is seen when a change is refused by it.
func TestFloorIsThatOfAllProcesses(t *testing.T) {
	a := newRig(t, shared(t))
	b := a.another("pool_max_conns=4")
	require.NoError(t, a.p.RaiseFloor(a.ctx, 5))
	require.NoError(t, a.p.RefuseKEKs(a.ctx, []uint32{3, 1<<32 - 1}))
	require.Zero(t, b.p.Floor().Epoch)
	require.ErrorIs(t, b.p.Apply(b.ctx, b.batch("1", "a"), b.guard(), true), engine.ErrFloor)
	require.Equal(t, a.p.Floor(), b.p.Floor())
	require.EqualValues(t, 5, b.p.Floor().Epoch)
	require.Equal(t, []uint32{3, 1<<32 - 1}, b.p.Floor().KEKs)
	b.put("1", "a")
	require.NoError(t, b.p.RaiseFloor(b.ctx, 4))
	require.EqualValues(t, 5, b.p.Floor().Epoch)
	require.ErrorIs(t, a.p.Apply(a.ctx, a.batch("2", "a"), a.guard(), true), engine.ErrFloor, "each raise is another")
	again := a.e.Partition(7)
	require.Zero(t, again.Floor().Epoch, "nothing is known yet")
	require.ErrorIs(t, again.Apply(a.ctx, again.NewBatch(), guard(again), true), nil, "which changes nothing")
	bb := again.NewBatch()
	require.NoError(t, bb.Delete([]byte("a")))
	require.ErrorIs(t, again.Apply(a.ctx, bb, guard(again), true), engine.ErrFloor)
	require.EqualValues(t, 5, again.Floor().Epoch)
	require.NoError(t, again.Apply(a.ctx, bb, guard(again), true))
	require.Empty(t, a.value("a"))
}

// A server that has lost a floor which it had acknowledged is found, and nothing is written to it.
func TestFloorThatWentBack(t *testing.T) {
	r := newRig(t, shared(t))
	require.NoError(t, r.p.RaiseFloor(r.ctx, 5))
	before := r.p.Floor()
	require.NoError(t, r.p.RaiseFloor(r.ctx, 6))
	c := r.session()
	_, err := c.Exec(r.ctx, `update floor set epoch = 5, revision = $1`, number(before.Revision))
	require.NoError(t, err)
	err = r.p.Apply(r.ctx, r.batch("1", "a"), r.guard(), true)
	require.ErrorIs(t, err, engine.ErrCorrupt)
	require.ErrorContains(t, err, "has gone back")
	require.Empty(t, r.value("a"))
	// The next revision is not the one that was lost, by which somebody may have judged.
	require.NoError(t, r.another("pool_max_conns=2").p.RaiseFloor(r.ctx, 5))
	require.NotEqual(t, number(r.p.Floor().Revision), one[int64](r, c, `select revision from floor`))
	require.ErrorIs(t, r.p.Apply(r.ctx, r.batch("1", "a"), r.guard(), true), engine.ErrFloor)
}

// Writers in several processes, in each way in which something can be written, while somebody locks
// the table now and then: once a floor was raised, nothing older is committed that was not there.
func TestNothingPassesARaisedFloor(t *testing.T) {
	r := newRig(t, shared(t))
	const processes, writers = 3, 5
	var written, refused, made atomic.Int64
	ctx, stop := context.WithCancel(r.ctx)
	var all sync.WaitGroup
	failed := make(chan error, 100)
	run := func(f func() error) {
		all.Add(1)
		go func() {
			defer all.Done()
			for ctx.Err() == nil {
				if err := f(); err != nil && ctx.Err() == nil {
					failed <- err
					return
				}
			}
		}()
	}
	for n := range processes {
		p := r.another("pool_max_conns=8")
		for w := range writers {
			run(func() error {
				f := p.p.Floor()
				b := p.p.NewBatch()
				defer b.Close()
				g := engine.Guard{Floor: f.Revision, Epoch: f.Epoch}
				turn := made.Add(1)
				put := func(id string) error {
					record := binary.BigEndian.AppendUint64(binary.BigEndian.AppendUint32(nil, f.Epoch), uint64(turn))
					_, err := b.Put(fmt.Appendf(nil, "%d %s", turn%20, id), record, 10)
					return err
				}
				err := put("a")
				switch w {
				case 0: // one statement
				case 1: // one of several rows
					err = errors.Join(err, put("b"), put("c"))
				case 2: // a transaction
					err = errors.Join(err, put("b"), b.Delete(fmt.Appendf(nil, "%d d", turn%20)))
				case 3: // one that rests on rows
					g.Was = []engine.Was{{ID: fmt.Appendf(nil, "new %d %d", n, turn)}}
				case 4:
					err = errors.Join(b.PutRecord(fmt.Appendf(nil, "%d e", turn%20), binary.BigEndian.AppendUint64(binary.BigEndian.AppendUint32(nil, f.Epoch), uint64(turn))), err)
				}
				if err == nil {
					err = p.p.Apply(ctx, b, g, true)
				}
				if isFloor(err) {
					refused.Add(1)
					return nil
				}
				if err == nil {
					written.Add(1)
				}
				return err
			})
		}
	}
	c := r.session()
	run(func() error {
		_, err := c.PgConn().Exec(ctx, `begin; lock table rows in share mode; commit`).ReadAll()
		return err
	})

	// low is the rows of older epochs.
	low := func(epoch uint32) map[string]string {
		t.Helper()
		out := map[string]string{}
		cur, err := r.p.Cursor(r.ctx, engine.Record, nil, nil)
		require.NoError(t, err)
		for ok := cur.First(); ok; ok = cur.Next() {
			if v, err := cur.Value(); err == nil && binary.BigEndian.Uint32(v) < epoch {
				out[string(cur.ID())] = string(bytes.Clone(v))
			}
		}
		require.NoError(t, errors.Join(cur.Err(), cur.Close()))
		return out
	}
	slipped := 0
	for epoch := uint32(1); epoch <= uint32(*raises) && len(failed) == 0; epoch++ {
		require.NoError(t, r.p.RaiseFloor(r.ctx, epoch))
		there := low(epoch)
		before := written.Load()
		require.Eventually(t, func() bool { return written.Load() >= before+10 || len(failed) > 0 }, long, short)
		for id, record := range low(epoch) {
			if there[id] != record {
				slipped++
			}
		}
	}
	stop()
	all.Wait()
	close(failed)
	for err := range failed {
		require.NoError(t, err)
	}
	require.Zero(t, slipped, "in %d raises", *raises)
	require.Positive(t, refused.Load(), "nobody tried")
	t.Logf("%d raises, %d written, %d refused, none slipped through", *raises, written.Load(), refused.Load())
}
