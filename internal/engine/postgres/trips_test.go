package postgres

import (
	"errors"
	"fmt"
	"sync/atomic"
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/blockseal/blockseal/internal/engine"
	"github.com/blockseal/blockseal/internal/test/pgserver"
)

// What is asked for is one question to the server and one answer, and a transaction is two, once the
// statements are known to the connection.
func TestRoundTrips(t *testing.T) {
	own := newRig(t, shared(t))
	proxy := newProxy(t, own.s)
	r := own.through(proxy, "pool_max_conns=2")
	var questions atomic.Int64
	var turned atomic.Bool // the server has said something since
	proxy.Judge(func(toServer bool, _ []byte) pgserver.Verdict {
		switch {
		case !toServer:
			turned.Store(true)
		case turned.Swap(false):
			questions.Add(1)
		}
		return pgserver.Forward
	})
	own.put("old", "a")
	r.p.(*partition).floor.Store(own.p.(*partition).floor.Load())
	var row engine.Row
	get := func(id string, want engine.Parts) func() error {
		return func() error {
			if err := r.p.Get(r.ctx, []byte(id), want, &row); !errors.Is(err, engine.ErrNotFound) {
				return err
			}
			return nil
		}
	}
	trips := map[string]struct {
		want int64
		f    func() error
	}{
		"Get":          {1, get("a", engine.Both)},
		"Together":     {1, get("a", engine.Both|engine.Together)},
		"Get a record": {1, get("a", engine.Record)},
		"Get a block":  {1, get("a", engine.Sealed)},
		"Get no row":   {1, get("none", engine.Both)},
		"Sync":         {0, func() error { return r.p.Sync(r.ctx) }},
		"LoadMeta":     {1, func() error { _ = hasMeta(r, "none"); return nil }},
		"ListMeta":     {1, func() error { return r.p.ListMeta(r.ctx, "", func(string, []byte) error { return nil }) }},
		"View":         {2, func() error { v, err := r.p.View(r.ctx); return errors.Join(err, v.Close()) }}, // and its end
		"Cursor": {3, func() error { // the view, the only chunk, and the end: nothing is asked behind a chunk that is whole
			c, err := r.p.Cursor(r.ctx, engine.Sealed, []byte("a"), []byte("b"))
			if err != nil {
				return err
			}
			for _, there := range []bool{c.First(), !c.Next(), !c.Next(), c.Prev(), !c.Next()} {
				require.True(t, there)
			}
			return errors.Join(c.Err(), c.Close())
		}},
		"RaiseFloor": {2, func() error { return r.p.RaiseFloor(r.ctx, 1) }}, // nobody is waited for
		"refused":    {2, func() error { return anyFloor(r.p.Apply(r.ctx, r.batch("x", "a"), engine.Guard{}, true)) }},
		"refused resting": {3, func() error { // the transaction, its end, and the floor
			return anyFloor(r.p.Apply(r.ctx, r.batch("x", "a"), engine.Guard{Was: []engine.Was{{ID: []byte("a")}}}, true))
		}},
	}
	for _, c := range changes {
		if c.make(r, "warm "+c.name) == nil {
			trips[c.name] = struct {
				want int64
				f    func() error
			}{c.steps, func() error { return c.make(r, "it "+c.name) }}
		}
	}
	require.Len(t, trips, 13+len(changes))
	for name, trip := range trips {
		if _, warm := changesByName()[name]; !warm {
			require.NoError(t, trip.f(), name)
		}
		before := questions.Load()
		require.NoError(t, trip.f(), name)
		require.Equal(t, trip.want, questions.Load()-before, name)
	}
}

func changesByName() map[string]bool {
	out := map[string]bool{}
	for _, c := range changes {
		out[c.name] = true
	}
	return out
}

func anyFloor(err error) error {
	if isFloor(err) {
		return nil
	}
	return fmt.Errorf("not refused: %w", err)
}
