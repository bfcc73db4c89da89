package postgres

import (
	"bytes"
	"context"
	"fmt"
	"log/slog"
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/blockseal/blockseal/internal/engine"
)

// A program's role is told which server it is on.
func TestServerSaysWhichItIs(t *testing.T) {
	r := newRig(t, shared(t))
	known := r.e.server.Load()
	require.NotNil(t, known)
	require.EqualValues(t, 1, known.timeline)
	require.Equal(t, one[string](r, r.session(), `select system_identifier::text from pg_control_system()`), known.system)
}

// Another server is refused, and so is the primary of before a failover; a later timeline is followed.
func TestServerThatIsAnother(t *testing.T) {
	for name, tt := range map[string]struct {
		known, now *server
		says       string
		then       server
	}{
		"the first":             {nil, &server{"1", 2}, "", server{"1", 2}},
		"the same":              {&server{"1", 2}, &server{"1", 2}, "", server{"1", 2}},
		"after a failover":      {&server{"1", 2}, &server{"1", 3}, "", server{"1", 3}},
		"the one of before":     {&server{"1", 2}, &server{"1", 1}, "timeline 2 was seen", server{"1", 2}},
		"another":               {&server{"1", 2}, &server{"2", 2}, "another one at its address", server{"1", 2}},
		"one that says nothing": {&server{"1", 2}, &server{}, "", server{"1", 2}},
	} {
		t.Run(name, func(t *testing.T) {
			var log bytes.Buffer
			e := &Engine{logger: slog.New(slog.NewTextHandler(&log, nil))}
			e.server.Store(tt.known)
			err := e.admit(*tt.now)
			if tt.says == "" {
				require.NoError(t, err)
			} else {
				require.ErrorIs(t, err, errElsewhere)
				require.ErrorContains(t, err, tt.says)
				require.False(t, again(notSent{err: err}), "it is as it is")
			}
			require.Equal(t, tt.then, *e.server.Load())
			require.Equal(t, name == "after a failover", bytes.Contains(log.Bytes(), []byte("failed over")))
		})
	}
}

// What is asked of a server of before is not asked, also over a connection that was good before the
// failover was seen.
func TestConnectionsOfBeforeAreLetGo(t *testing.T) {
	r := newRig(t, shared(t))
	r.put("1", "x")
	known := *r.e.server.Load()
	later := server{known.system, known.timeline + 1}
	r.e.server.Store(&later)
	err := r.tryPut("2", "x")
	require.ErrorIs(t, err, errElsewhere)
	require.NotErrorIs(t, err, engine.ErrOutcomeUnknown)
	var row engine.Row
	require.ErrorIs(t, r.p.Get(r.ctx, []byte("x"), engine.Both, &row), errElsewhere)
	_, err = r.turn(r.ctx)
	require.ErrorIs(t, err, errElsewhere)
	r.e.server.Store(&known)
	require.Equal(t, "1", r.value("x"))
}

// That a database was on another server when it was opened last is told once, and noted unless
// nothing may be written.
func TestDatabaseThatWasOnAnotherServer(t *testing.T) {
	r := newRig(t, shared(t))
	var log bytes.Buffer
	opened := func(readOnly bool) string {
		log.Reset()
		o := *r.o
		o.ReadOnly, o.Logger = readOnly, slog.New(slog.NewTextHandler(&log, nil))
		require.NoError(t, open(t, r.s, &o, "pool_max_conns=2").Close())
		return log.String()
	}
	now := r.e.server.Load().String()
	c := r.session()
	noted := func() string { return one[string](r, c, `select encode(value, 'escape') from meta where part = -1`) }
	require.Equal(t, now, noted())
	require.Empty(t, opened(false))
	r.exec(c, `update meta set value = 'system 7, timeline 1' where part = -1`)
	require.Contains(t, opened(true), "rotate the epoch of each store in both")
	require.NotEqual(t, now, noted())
	require.Contains(t, opened(false), "system 7, timeline 1")
	require.Equal(t, now, noted())
	require.Empty(t, opened(false))
	r.exec(c, `delete from meta where part = -1`)
	require.Empty(t, opened(false))
	require.Equal(t, now, noted())
}

// The server says what became of a transaction, of which the number is its own alone; what it does not
// say stays unknown.
func TestWhatBecameOfATransaction(t *testing.T) {
	r := newRig(t, shared(t))
	c := r.session()
	number := func(end string) string {
		r.exec(c, `begin`)
		id := one[string](r, c, `select pg_current_xact_id()::text`)
		if end != "" {
			r.exec(c, end)
		}
		return id
	}
	of := *r.e.server.Load()
	unknown := engine.ErrOutcomeUnknown
	for name, tt := range map[string]struct {
		x           xact
		why         error
		made, known bool
	}{
		"committed":           {xact{number(`commit`), of}, unknown, true, true},
		"undone":              {xact{number(`rollback`), of}, unknown, false, true},
		"never sent":          {xact{"", of}, unknown, false, false},
		"of another timeline": {xact{number(`commit`), server{of.system, 2}}, unknown, false, false},
		"of no known server":  {xact{number(`commit`), server{}}, unknown, false, false},
		"of the future":       {xact{"99999999999", of}, unknown, false, false},
		"not replicated":      {xact{number(`commit`), of}, errNotReplicated, false, false},
	} {
		t.Run(name, func(t *testing.T) {
			made, known := r.e.became(r.ctx, tt.x, tt.why)
			require.Equal(t, tt.known, known)
			require.Equal(t, tt.made, made && known)
		})
	}
	x := xact{number(""), of}
	short, cancel := context.WithCancel(r.ctx)
	asked := make(chan bool, 1)
	go func() { _, known := r.e.became(short, x, unknown); asked <- known }()
	cancel()
	require.False(t, <-asked, "it goes on for longer than the caller waits")
	got := make(chan bool, 1)
	go func() { made, known := r.e.became(r.ctx, x, unknown); got <- made && known }()
	r.exec(c, `commit`)
	require.True(t, <-got)
}

// A commit that a server told of before it was lost is not made durable by the one that came after it.
func TestWhatBecameIsOfOneServer(t *testing.T) {
	r := newRig(t, shared(t))
	of := *r.e.server.Load()
	require.NoError(t, r.e.flush(r.ctx, of))
	for _, before := range []server{{of.system, of.timeline - 1}, {of.system, of.timeline + 1}, {"7", of.timeline}, {}} {
		require.ErrorIs(t, r.e.flush(r.ctx, before), errElsewhere, before)
	}
}

// A swap that is of who has the turn is refused once that was lost, like a replacement.
func TestSwapIsOfWhoHasTheTurn(t *testing.T) {
	a := newRig(t, shared(t))
	b := a.another("pool_max_conns=4")
	swap := func(r *rig, value string) error {
		_, err := r.p.SwapMeta(r.ctx, engine.Swap{Name: "document", Revision: engine.AnyRevision, Value: []byte(value), Turned: true})
		return err
	}
	require.NoError(t, swap(a, "without a turn it rests on none"))
	release := a.mustTurn()
	defer release()
	require.NoError(t, swap(a, "1"))
	a.terminate()
	err := swap(a, "2")
	require.ErrorIs(t, err, engine.ErrTurnLost)
	require.NotErrorIs(t, err, engine.ErrOutcomeUnknown)
	defer b.mustTurn()()
	require.ErrorIs(t, swap(a, "2"), engine.ErrTurnLost)
	require.NoError(t, swap(b, "3"))
	require.NoError(t, engine.SetMeta(a.ctx, a.p, "document", []byte("4")), "what is not of the turn goes on")
}

// A turn is that of a session, and not of whoever has its lock, or the number of its process.
func TestTurnIsOfASession(t *testing.T) {
	r := newRig(t, shared(t))
	r.put("1", "x")
	release := r.mustTurn()
	defer release()
	had := *r.p.(*partition).turn.Load()
	require.NoError(t, r.replace("2", "1", "x"))
	another := had
	another.session++ // as of a process of the same number, which has since been given the turn
	r.p.(*partition).turn.Store(&another)
	require.ErrorIs(t, r.replace("3", "2", "x"), engine.ErrTurnLost)
	// Nor is it that of two sessions with a lock each.
	r.exec(r.session(), `select pg_advisory_lock(`+fmt.Sprint(another.session)+`)`)
	require.ErrorIs(t, r.replace("3", "2", "x"), engine.ErrTurnLost)
	require.Equal(t, "2", r.value("x"))
}
