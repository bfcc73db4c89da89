package enginetest

import (
	"bytes"
	"context"

	"github.com/stretchr/testify/require"

	"github.com/blockseal/blockseal/internal/engine"
)

// calls returns calls of a partition's methods by name. Each that can write does write; one runs
// everything in a row.
func (r *rig) calls(ctx context.Context, v engine.View) map[string]func() error {
	get := func(from engine.Reader, want engine.Parts) error {
		var row engine.Row
		err := from.Get(ctx, []byte("a"), want, &row)
		row.Release()
		return err
	}
	apply := func(f func(b engine.Batch) error) error {
		b := r.p.NewBatch()
		room, err := b.Put([]byte("new"), []byte("record"), 6)
		if err != nil {
			return err
		}
		copy(room, "sealed")
		err = f(b)
		_ = b.Close()
		return err
	}
	closing := func(c interface{ Close() error }, err error) error {
		if err == nil {
			err = c.Close()
		}
		return err
	}
	calls := map[string]func() error{
		"Get":      func() error { return get(r.p, engine.Both) },
		"Together": func() error { return get(r.p, engine.Both|engine.Together) },
		"Cursor":   func() error { c, err := r.p.Cursor(ctx, engine.Record, nil, nil); return closing(c, err) },
		"View":     func() error { v, err := r.p.View(ctx); return closing(v, err) },
		"Apply": func() error {
			return apply(func(b engine.Batch) error { return r.p.Apply(ctx, b, r.guard(9), false) })
		},
		"Replace": func() error {
			return apply(func(b engine.Batch) error {
				_, err := r.p.Replace(ctx, b, []engine.Was{{ID: []byte("new")}})
				return err
			})
		},
		"Sync":       func() error { return r.p.Sync(ctx) },
		"RaiseFloor": func() error { return r.p.RaiseFloor(ctx, 9) },
		"RefuseKEKs": func() error { return r.p.RefuseKEKs(ctx, []uint32{1}) },
		"Peek":       func() error { _, err := r.e.Peek(ctx, 7, "name"); return err },
		"LoadMeta":   func() error { _, _, err := r.p.LoadMeta(ctx, "name"); return err },
		"ListMeta":   func() error { return r.p.ListMeta(ctx, "", func(string, []byte) error { return nil }) },
		"SwapMeta": func() error {
			_, err := r.p.SwapMeta(ctx, engine.Swap{Name: "name", Revision: engine.AnyRevision, Value: []byte("new")})
			return err
		},
	}
	if v != nil {
		calls["View.Get"] = func() error { return get(v, engine.Both) }
		calls["View.Cursor"] = func() error { c, err := v.Cursor(ctx, engine.Sealed, nil, nil); return closing(c, err) }
	}
	calls["Clear"] = func() error {
		if v != nil {
			return r.p.Clear(ctx)
		}
		return r.e.Partition(99).Clear(ctx) // it may succeed, and the others are to find what is there
	}
	if d, ok := r.p.(engine.Deferrer); ok {
		calls["SwapMetaLater"] = func() error {
			_, err := d.SwapMetaLater(ctx, engine.Swap{Name: "later", Revision: engine.AnyRevision, Value: []byte("new")})
			return err
		}
	}
	if p, ok := r.p.(engine.Purger); ok {
		calls["Purge"] = func() error {
			return p.Purge(ctx, func() error { _, err := r.swap("touched", engine.AnyRevision, nil); return err }, func() bool { return false })
		}
	}
	return calls
}

func lifeParts() []part {
	return []part{
		{"a context that has ended ends the call", func(t T, s Subject) {
			r := newRig(t, s)
			r.put("a", "record", "sealed")
			_, err := r.swap("name", 0, []byte("value"))
			require.NoError(t, err)
			v, err := r.p.View(r.ctx)
			require.NoError(t, err)
			ctx, cancel := context.WithCancel(r.ctx)
			cancel()
			floor := r.p.Floor()
			for name, call := range r.calls(ctx, v) {
				require.ErrorIs(t, call(), context.Canceled, name)
			}
			require.NoError(t, v.Close())
			require.Equal(t, []string{"a", "record", "a", "sealed"}, r.everything(r.p))
			got, _ := r.meta("name")
			require.Equal(t, "value", got)
			require.Equal(t, floor, r.p.Floor())
			for name, call := range r.calls(r.ctx, nil) {
				require.NoError(t, call(), name)
			}
		}},
		{"what is cleared is gone", func(t T, s Subject) {
			r := newRig(t, s)
			other := r.in(8)
			for _, r := range []*rig{r, other, r.in(6)} {
				r.put("a", "1", "one", "b", "2", string(make([]byte, 100<<10)), "", "3", "three")
				_, err := r.swap("name", 0, []byte("value"))
				require.NoError(t, err)
			}
			_, was := r.meta("name")
			v, err := r.p.View(r.ctx)
			require.NoError(t, err)
			late := r.p.NewBatch()
			r.fill(late, "late", "4", "four")
			guard := r.guard(0)
			require.NoError(t, r.p.Clear(r.ctx))

			some, err := engine.HoldsAnything(r.ctx, r.p)
			require.NoError(t, err)
			require.False(t, some)
			r.absent(r.p, "a")
			r.absent(r.p, "")
			_, _, err = r.p.LoadMeta(r.ctx, "name")
			require.ErrorIs(t, err, engine.ErrNotFound)
			require.ErrorIs(t, r.p.Apply(r.ctx, late, guard, true), engine.ErrFloor, "a change from before")
			require.NoError(t, late.Close())
			_, err = r.swap("name", was, []byte("value"))
			require.ErrorIs(t, err, engine.ErrConflict)
			r.is(v, "a", "1", "one") // a view is one state
			require.NoError(t, v.Close())
			for _, n := range []uint32{6, 8} {
				left := r.in(n)
				left.is(left.p, "a", "1", "one")
				got, _ := left.meta("name")
				require.Equal(t, "value", got)
			}

			// It can be used again, as one that holds nothing.
			given, err := r.swap("name", 0, []byte("another"))
			require.NoError(t, err)
			require.NotEqual(t, was, given)
			r.put("a", "9", "nine")
			r.p.Release()
			again := r.in(7)
			again.is(again.p, "a", "9", "nine")
			got, _ := again.meta("name")
			require.Equal(t, "another", got)
			peeked, err := r.e.Peek(r.ctx, 7, "name")
			require.NoError(t, err)
			require.Equal(t, "another", string(peeked))
			_, err = r.e.Peek(r.ctx, 99, "name")
			require.ErrorIs(t, err, engine.ErrNotFound)
			require.NoError(t, again.p.Clear(r.ctx))
			require.NoError(t, again.p.Clear(r.ctx), "there is nothing any more")
			if s.Crash == nil {
				return
			}
			e := s.Crash(t, r.e)
			t.Cleanup(func() { _ = e.Close() })
			some, err = engine.HoldsAnything(r.ctx, e.Partition(7))
			require.NoError(t, err)
			require.False(t, some, "it is durable")
			some, err = engine.HoldsAnything(r.ctx, e.Partition(8))
			require.NoError(t, err)
			require.True(t, some)
		}},
		{"a closed engine says so", func(t T, s Subject) {
			r := newRig(t, s)
			r.put("a", "record", "sealed")
			require.NoError(t, r.e.Close())
			for name, call := range r.calls(r.ctx, nil) {
				require.ErrorIs(t, call(), engine.ErrClosed, name)
			}
			require.ErrorIs(t, r.e.Close(), engine.ErrClosed)
			if m, ok := r.e.(engine.Meter); ok {
				require.Zero(t, m.Stats().Snapshots)
			}
			if c, ok := r.e.(engine.Checkpointer); ok {
				require.ErrorIs(t, c.Checkpoint(r.ctx, "copy", nil), engine.ErrClosed)
			}
		}},
		{"what is durable survives a crash", func(t T, s Subject) {
			if s.Crash == nil {
				return
			}
			r := newRig(t, s)
			after := func() *rig {
				e := s.Crash(t, r.e)
				t.Cleanup(func() { _ = e.Close() })
				return &rig{t, r.ctx, e, e.Partition(7)}
			}
			r.put("a", "1", "one")
			c := after()
			c.is(c.p, "a", "1", "one")
			unsynced := func(id string) {
				b := r.p.NewBatch()
				r.fill(b, id, "1", "one")
				require.NoError(t, r.p.Apply(r.ctx, b, r.guard(0), false))
				require.NoError(t, b.Close())
			}
			unsynced("b")
			require.NoError(t, r.p.Sync(r.ctx))
			c = after()
			c.is(c.p, "b", "1", "one")
			unsynced("c")
			_, err := r.swap("name", 0, []byte("value"))
			require.NoError(t, err)
			c = after()
			c.is(c.p, "c", "1", "one")
			got, revision := c.meta("name")
			require.Equal(t, "value", got)
			require.NotZero(t, revision)
			_, err = c.swap("name", revision, []byte("another"))
			require.NoError(t, err)
			unsynced("d")
			r.put("e", "2", "two")
			c = after()
			c.is(c.p, "d", "1", "one")
			c.is(c.p, "e", "2", "two")
			r.delete("e")
			c = after()
			c.absent(c.p, "e")
			c.is(c.p, "d", "1", "one")
			// Several at once, and one that is larger than what an engine may keep in memory.
			_, err = r.p.SwapMeta(r.ctx, engine.Swap{Name: "one", Value: []byte("1")}, engine.Swap{Name: "two", Value: make([]byte, 1<<20)},
				engine.Swap{Name: "name", Revision: engine.AnyRevision})
			require.NoError(t, err)
			c = after()
			got, _ = c.meta("one")
			require.Equal(t, "1", got)
			got, _ = c.meta("two")
			require.Len(t, got, 1<<20)
			_, revision, err = c.p.LoadMeta(c.ctx, "name")
			require.ErrorIs(t, err, engine.ErrNotFound)
			require.Zero(t, revision)
		}},
		{"what is swapped later is durable with what follows", func(t T, s Subject) {
			r := newRig(t, s)
			d, ok := r.p.(engine.Deferrer)
			if !ok || s.Crash == nil {
				return
			}
			first, err := d.SwapMetaLater(r.ctx, engine.Swap{Name: "name", Value: []byte("one")})
			require.NoError(t, err)
			got, revision := r.meta("name")
			require.Equal(t, "one", got, "it is there at once")
			require.Equal(t, first, []uint64{revision})
			_, err = d.SwapMetaLater(r.ctx, engine.Swap{Name: "name", Value: []byte("x")})
			require.ErrorIs(t, err, engine.ErrConflict)
			for i, follow := range []func(p engine.Partition) error{
				func(p engine.Partition) error { return engine.SetMeta(r.ctx, p, "follows", []byte("x")) },
				func(p engine.Partition) error { (&rig{t, r.ctx, r.e, p}).put("a", "1", "one"); return nil },
				func(p engine.Partition) error { return p.Sync(r.ctx) },
				func(p engine.Partition) error { return p.Clear(r.ctx) },
			} {
				value := []byte{byte(i)}
				_, err := d.SwapMetaLater(r.ctx, engine.Swap{Name: "name", Revision: engine.AnyRevision, Value: value})
				require.NoError(t, err)
				require.NoError(t, follow(r.in(8).p), "another partition's")
				e := s.Crash(t, r.e)
				t.Cleanup(func() { _ = e.Close() })
				got, err := e.Peek(r.ctx, 7, "name")
				require.NoError(t, err)
				require.Equal(t, value, got)
			}
		}},
		{"a copy has what was before it was decided", func(t T, s Subject) {
			if s.Copy == nil {
				return
			}
			r := newRig(t, s)
			other := r.in(8)
			r.put("a", "1", "one")
			other.put("a", "8", "eight")
			_, err := r.swap("name", 0, []byte("value"))
			require.NoError(t, err)
			before := r.p.Floor()
			called := 0
			copied := s.Copy(t, r.e, func(raise func(partition, epoch uint32)) {
				called++
				raise(7, 5)
				raise(7, 4)
				raise(9, 5) // no partition 9 exists
			})
			t.Cleanup(func() { _ = copied.Close() })
			require.Equal(t, 1, called)
			require.EqualValues(t, 5, r.p.Floor().Epoch)
			require.NotEqual(t, before.Revision, r.p.Floor().Revision)
			require.Zero(t, other.p.Floor().Epoch)
			r.putAt("a", 5)
			c := &rig{t, r.ctx, copied, copied.Partition(7)}
			c.is(c.p, "a", "1", "one")
			got, _ := c.meta("name")
			require.Equal(t, "value", got)
			c = c.in(8)
			c.is(c.p, "a", "8", "eight")
		}},
		{"a purge leaves what is there", func(t T, s Subject) {
			r := newRig(t, s)
			p, ok := r.p.(engine.Purger)
			if !ok {
				return
			}
			other := r.in(8)
			other.put("a", "8", "eight")
			r.put("a", "1", "one", "b", "1", "one")
			r.put("a", "2", "two")
			r.delete("b")
			touched := 0
			touch := func() error {
				touched++
				_, err := r.swap("touched", engine.AnyRevision, []byte("now"))
				return err
			}
			require.NoError(t, p.Purge(r.ctx, touch, func() bool { return false }))
			require.NotZero(t, touched)
			require.Equal(t, []string{"a", "2", "a", "two"}, r.everything(r.p))
			require.Equal(t, []string{"a", "8", "a", "eight"}, other.everything(other.p))
			v, err := r.p.View(r.ctx)
			require.NoError(t, err)
			require.ErrorIs(t, p.Purge(r.ctx, touch, func() bool { return true }), engine.ErrHeld)
			r.is(v, "a", "2", "two")
			require.NoError(t, v.Close())
			require.NoError(t, p.Purge(r.ctx, touch, func() bool { return false }))
		}},
		{"what was purged is in no file", func(t T, s Subject) {
			r := newRig(t, s)
			p, ok := r.p.(engine.Purger)
			if !ok {
				return
			}
			require.NotNil(t, s.Bytes, "an engine that purges shows its bytes")
			gone := map[string]string{
				"deleted":             "a record whose row is deleted",
				"overwritten":         "a record that is overwritten by another",
				"rewrapped":           "a record in whose place another is put",
				"meta record deleted": "a meta record that is deleted",
				"meta record changed": "a meta record that is changed",
			}
			const stays = "a record that stays"
			r.put("a", gone["deleted"], "sealed", "b", gone["overwritten"], "sealed", "c", gone["rewrapped"], "sealed", "d", stays, "sealed")
			for _, name := range []string{"meta record deleted", "meta record changed"} {
				_, err := r.swap(name, 0, []byte(gone[name]))
				require.NoError(t, err)
			}
			for what, text := range gone {
				require.True(t, bytes.Contains(s.Bytes(t, r.e), []byte(text)), "it can be found before: %s", what)
			}
			r.delete("a")
			r.put("b", "now", "sealed")
			b := r.p.NewBatch()
			require.NoError(t, b.PutRecord([]byte("c"), []byte("now")))
			_, err := r.p.Replace(r.ctx, b, []engine.Was{{ID: []byte("c"), Record: []byte(gone["rewrapped"])}})
			require.NoError(t, err)
			require.NoError(t, b.Close())
			_, err = r.p.SwapMeta(r.ctx, engine.Swap{Name: "meta record deleted", Revision: engine.AnyRevision},
				engine.Swap{Name: "meta record changed", Revision: engine.AnyRevision, Value: []byte("now")})
			require.NoError(t, err)
			require.NoError(t, p.Purge(r.ctx, func() error {
				_, err := r.swap("touched", engine.AnyRevision, []byte("now"))
				return err
			}, func() bool { return false }))
			left := s.Bytes(t, r.e)
			for what, text := range gone {
				require.False(t, bytes.Contains(left, []byte(text)), "%s", what)
			}
			require.True(t, bytes.Contains(left, []byte(stays)))
			r.is(r.p, "c", "now", "sealed")
			r.is(r.p, "d", stays, "sealed")
		}},
	}
}

// putAt sets a row that names an epoch.
func (r *rig) putAt(id string, epoch uint32) {
	b := r.p.NewBatch()
	r.fill(b, id, "2", "two")
	require.NoError(r, r.p.Apply(r.ctx, b, r.guard(epoch), false))
	require.NoError(r, b.Close())
}
