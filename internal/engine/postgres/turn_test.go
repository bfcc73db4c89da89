package postgres

import (
	"context"
	"sync"
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/blockseal/blockseal/internal/engine"
)

func (r *rig) turn(ctx context.Context) (release func(), err error) {
	return r.p.(engine.Turner).Turn(ctx)
}

func (r *rig) mustTurn() (release func()) {
	r.Helper()
	release, err := r.turn(r.ctx)
	require.NoError(r, err)
	return release
}

// replace puts text in place of what is there, which must be was.
func (r *rig) replace(text, was string, ids ...string) error {
	b := r.batch(text, ids...)
	defer b.Close()
	var all []engine.Was
	for _, id := range ids {
		all = append(all, engine.Was{ID: []byte(id), Record: []byte(was)})
	}
	_, err := r.p.Replace(r.ctx, b, all)
	return err
}

// terminate ends the connection that has the turn, as a network or an administrator does.
func (r *rig) terminate() {
	r.Helper()
	pid := r.e.turns.c.Conn().PgConn().PID()
	c := r.session()
	require.True(r, one[bool](r, c, `select pg_terminate_backend($1)`, pid))
	require.Eventually(r, func() bool {
		return !one[bool](r, c, `select exists (select from pg_stat_activity where pid = $1)`, pid)
	}, long, short)
}

// One at a time has the turn of a partition: of two processes, of two in one, and of many who add to
// what they have read without any other care.
func TestTurnIsOnes(t *testing.T) {
	a := newRig(t, shared(t))
	b := a.another("pool_max_conns=4")
	ended, cancel := context.WithCancel(a.ctx)
	cancel()
	for _, other := range []*rig{b, {TB: a.TB, ctx: a.ctx, e: a.e, p: a.e.Partition(7)}} {
		release := a.mustTurn()
		_, err := other.turn(ended)
		require.ErrorIs(t, err, context.Canceled)
		waiting, stop := context.WithCancel(a.ctx)
		failed := make(chan error)
		go func() {
			_, err := other.turn(waiting)
			failed <- err
		}()
		elsewhere, err := other.e.Partition(8).(engine.Turner).Turn(a.ctx)
		require.NoError(t, err, "of another partition")
		elsewhere()
		stop()
		require.ErrorIs(t, <-failed, context.Canceled)
		release()
		other.mustTurn()()
	}
	var all sync.WaitGroup
	n := 0 // that the race detector and the count agree
	for _, r := range []*rig{a, b} {
		for range 2 {
			p := &rig{TB: r.TB, ctx: r.ctx, e: r.e, p: r.e.Partition(7)}
			all.Go(func() {
				for range 5 {
					release, err := p.turn(p.ctx)
					if err != nil {
						t.Error(err)
						return
					}
					n++
					release()
				}
			})
		}
	}
	all.Wait()
	require.Equal(t, 20, n)
	require.Zero(t, one[int](a, a.session(), `select count(*) from pg_locks where locktype = 'advisory'`), "all were given back")
	require.Nil(t, a.e.turns.c, "and the connection")
}

// A turn that was lost replaces nothing, also where another one already has it, and what its owner
// writes as anybody does is written.
func TestTurnThatWasLost(t *testing.T) {
	a := newRig(t, shared(t))
	b := a.another("pool_max_conns=4")
	a.put("1", "x", "y")
	release := a.mustTurn()
	require.NoError(t, a.replace("2", "1", "x", "y"))
	a.terminate()
	err := a.replace("3", "2", "x", "y")
	require.ErrorIs(t, err, engine.ErrTurnLost)
	require.NotErrorIs(t, err, engine.ErrOutcomeUnknown)
	other := b.mustTurn()
	require.ErrorIs(t, a.replace("3", "2", "x", "y"), engine.ErrTurnLost)
	require.Equal(t, "2", b.value("x"))
	require.NoError(t, b.replace("4", "2", "x"))
	a.put("5", "y")
	release()
	require.NoError(t, b.replace("6", "5", "y"), "another one's is not given back")
	other()
	a.mustTurn()()
	require.NoError(t, a.replace("7", "6", "y"), "without a turn it rests on none")

	// A server that is gone takes all turns along, and the next one is had all the same.
	release = a.mustTurn()
	second, err := a.e.Partition(8).(engine.Turner).Turn(a.ctx)
	require.NoError(t, err)
	a.terminate()
	third, err := a.e.Partition(9).(engine.Turner).Turn(a.ctx)
	require.NoError(t, err)
	require.ErrorIs(t, a.replace("8", "7", "y"), engine.ErrTurnLost)
	release()
	second()
	third()
	a.mustTurn()()
}

// Who is given a turn sees what was replaced by the one before, whose turn was lost while its change
// was under way.
func TestTurnWaitsForWhatIsUnderWay(t *testing.T) {
	a := newRig(t, shared(t))
	b := a.another("pool_max_conns=4")
	a.put("1", "x")
	release := a.mustTurn()
	defer release()
	lock := a.session()
	a.exec(lock, `begin; select from rows where part = 7 for update`)
	replaced := make(chan error, 1)
	go func() { replaced <- a.replace("2", "1", "x") }()
	look := a.session()
	require.Eventually(t, func() bool {
		return one[bool](a, look, `select exists (select from pg_stat_activity where wait_event_type = 'Lock' and query like '%unnest%')`)
	}, long, short, "it has looked at its turn, and waits for the row")
	a.terminate()
	seen := make(chan string, 1)
	go func() {
		other, err := b.turn(b.ctx)
		if err != nil {
			seen <- err.Error()
			return
		}
		defer other()
		seen <- b.value("x")
	}()
	require.Eventually(t, func() bool {
		return one[bool](a, look, `select exists (select from pg_locks where locktype = 'advisory' and granted)`)
	}, long, short, "the server has given it to the other one")
	select {
	case v := <-seen:
		t.Fatalf("it has begun while a change is under way, and sees %q", v)
	default:
	}
	a.exec(lock, `rollback`)
	require.NoError(t, <-replaced)
	require.Equal(t, "2", <-seen)
}

// Who has lost the turn does not take back what the next one refuses, nor refuse anything: the floor's
// KEKs are those of who has the turn.
func TestRefusalIsOfWhoHasTheTurn(t *testing.T) {
	a := newRig(t, shared(t))
	b := a.another("pool_max_conns=4")
	keks := func() []int64 {
		return one[[]int64](a, a.session(), `select keks from floor where part = 7`)
	}
	release := a.mustTurn()
	defer release()
	require.NoError(t, a.p.RefuseKEKs(a.ctx, []uint32{1}))
	a.terminate()
	other := b.mustTurn()
	defer other()
	require.NoError(t, b.p.RefuseKEKs(b.ctx, []uint32{1, 2}))
	for _, mine := range [][]uint32{nil, {1}} {
		err := a.p.RefuseKEKs(a.ctx, mine)
		require.ErrorIs(t, err, engine.ErrTurnLost)
		require.NotErrorIs(t, err, engine.ErrOutcomeUnknown)
	}
	require.Equal(t, []int64{1, 2}, keks())
	require.NoError(t, a.p.RaiseFloor(a.ctx, 3), "a floor that is raised stays raised, whoever did so")
	require.NoError(t, b.p.RefuseKEKs(b.ctx, nil))
	require.Empty(t, keks())
	other()
	release()
	require.NoError(t, a.p.RefuseKEKs(a.ctx, []uint32{4}), "without a turn it rests on none")
	require.Equal(t, []int64{4}, keks())
}

// A refusal that has looked at its turn is there, or is not, before the next one has it.
func TestTurnWaitsForARefusal(t *testing.T) {
	a := newRig(t, shared(t))
	b := a.another("pool_max_conns=4")
	a.put("1", "x") // and a floor
	release := a.mustTurn()
	defer release()
	lock := a.session()
	a.exec(lock, `begin; select from floor where part = 7 for update`)
	refused := make(chan error, 1)
	go func() { refused <- a.p.RefuseKEKs(a.ctx, []uint32{9}) }()
	look := a.session()
	require.Eventually(t, func() bool {
		return one[bool](a, look, `select exists (select from pg_stat_activity where wait_event_type = 'Lock' and query like '%excluded.keks%')`)
	}, long, short, "it waits for the row of the floor")
	a.terminate()
	seen := make(chan error, 1)
	go func() {
		other, err := b.turn(b.ctx)
		if err == nil {
			err = b.p.RefuseKEKs(b.ctx, []uint32{2})
			other()
		}
		seen <- err
	}()
	require.Eventually(t, func() bool {
		return one[bool](a, look, `select exists (select from pg_locks where locktype = 'advisory' and granted)`)
	}, long, short, "the server has given it to the other one")
	select {
	case err := <-seen:
		t.Fatalf("it has gone on while a refusal is under way: %v", err)
	default:
	}
	a.exec(lock, `rollback`)
	require.NoError(t, <-refused)
	require.NoError(t, <-seen)
	require.Equal(t, []int64{2}, one[[]int64](a, look, `select keks from floor where part = 7`))
}
