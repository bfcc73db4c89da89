// Package enginetest is the suite that every engine must pass: what package engine promises, at its
// exact bounds. A test of an engine calls [Run].
package enginetest

import (
	"context"
	"sync"
	"sync/atomic"
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/blockseal/blockseal/internal/engine"
)

// Subject is an engine to test.
type Subject struct {
	// New returns an empty engine.
	New func(t T) engine.Engine
	// Crash returns an engine with what is durable of one that New returned, without closing that.
	// If nil, durability is not tested.
	Crash func(t T, e engine.Engine) engine.Engine
	// Copy returns a copy of an engine that New returned, to be read; frozen goes to
	// engine.Checkpointer. If nil, copies are not tested.
	Copy func(t T, e engine.Engine, frozen func(raise func(partition, epoch uint32))) engine.Engine
	// Bytes returns all that is in the files of an engine that New returned. An engine that has
	// an engine.Purger has this: what a purge promises is about those bytes.
	Bytes func(t T, e engine.Engine) []byte
}

// T is the part of *testing.T that the suite needs.
type T interface {
	require.TestingT
	Helper()
	Cleanup(func())
}

type part struct {
	name string
	run  func(t T, s Subject)
}

// Run runs the suite.
func Run(t *testing.T, s Subject) {
	for _, p := range parts() {
		t.Run(p.name, func(t *testing.T) { p.run(t, s) })
	}
}

func parts() []part {
	var all []part
	for _, some := range [][]part{readParts(), cursorParts(), writeParts(), floorParts(), metaParts(), lifeParts()} {
		all = append(all, some...)
	}
	return all
}

// rig is an engine and a partition of it.
type rig struct {
	T
	ctx context.Context
	e   engine.Engine
	p   engine.Partition
}

// newRig returns an engine that the end of the test closes.
func newRig(t T, s Subject) *rig {
	e := s.New(t)
	t.Cleanup(func() { _ = e.Close() })
	return &rig{t, context.Background(), e, e.Partition(7)}
}

// in returns the rig with another partition.
func (r *rig) in(number uint32) *rig { return &rig{r.T, r.ctx, r.e, r.e.Partition(number)} }

// guard is admitted by the present floor.
func (r *rig) guard(epoch uint32) engine.Guard {
	return engine.Guard{Floor: r.p.Floor().Revision, Epoch: epoch}
}

// fill adds a row to a batch.
func (r *rig) fill(b engine.Batch, id, record, sealed string) {
	r.Helper()
	room, err := b.Put([]byte(id), []byte(record), len(sealed))
	require.NoError(r, err)
	require.Len(r, room, len(sealed))
	copy(room, sealed)
}

// apply applies the ops that f asks for.
func (r *rig) apply(f func(b engine.Batch)) {
	r.Helper()
	b := r.p.NewBatch()
	f(b)
	require.NoError(r, r.p.Apply(r.ctx, b, r.guard(0), true))
	require.NoError(r, b.Wait())
	require.NoError(r, b.Close())
}

// put sets rows: id, record, sealed, and so on.
func (r *rig) put(rows ...string) {
	r.Helper()
	r.apply(func(b engine.Batch) {
		for i := 0; i < len(rows); i += 3 {
			r.fill(b, rows[i], rows[i+1], rows[i+2])
		}
	})
}

func (r *rig) delete(id string) {
	r.Helper()
	r.apply(func(b engine.Batch) { require.NoError(r, b.Delete([]byte(id))) })
}

// is requires that a reader finds a row.
func (r *rig) is(from engine.Reader, id, record, sealed string) {
	r.Helper()
	for _, want := range []engine.Parts{engine.Both, engine.Both | engine.Together} {
		var row engine.Row
		require.NoError(r, from.Get(r.ctx, []byte(id), want, &row), "%q", id)
		require.Equal(r, engine.Both, row.Has)
		require.Equal(r, record, string(row.Record))
		require.Equal(r, sealed, string(row.Sealed))
		row.Release()
	}
}

// absent requires that a reader finds nothing of a row.
func (r *rig) absent(from engine.Reader, id string) {
	r.Helper()
	for _, want := range []engine.Parts{engine.Record, engine.Sealed, engine.Both, engine.Both | engine.Together} {
		var row engine.Row
		require.ErrorIs(r, from.Get(r.ctx, []byte(id), want, &row), engine.ErrNotFound, "%q, parts %b", id, want)
		row.Release()
	}
}

// walk returns what a cursor meets: id, value, and so on.
func (r *rig) walk(from engine.Reader, part engine.Parts, lower, upper []byte) (got []string) {
	r.Helper()
	c, err := from.Cursor(r.ctx, part, lower, upper)
	require.NoError(r, err)
	got = r.rest(c, c.First())
	require.NoError(r, c.Close())
	return got
}

// rest returns what a cursor has not met yet.
func (r *rig) rest(c engine.Cursor, ok bool) (got []string) {
	r.Helper()
	for ; ok; ok = c.Next() {
		require.True(r, c.Valid())
		v, err := c.Value()
		require.NoError(r, err)
		require.Equal(r, len(v), c.Size())
		got = append(got, string(c.ID()), string(v))
	}
	require.False(r, c.Valid())
	require.NoError(r, c.Err())
	return got
}

// back returns what is left of a walk backwards, in ascending order.
func (r *rig) back(c engine.Cursor, ok bool) (got []string) {
	r.Helper()
	for ; ok; ok = c.Prev() {
		v, err := c.Value()
		require.NoError(r, err)
		got = append([]string{string(c.ID()), string(v)}, got...)
	}
	require.False(r, c.Valid())
	require.NoError(r, c.Err())
	return got
}

// everything returns both parts of all rows of a reader.
func (r *rig) everything(from engine.Reader) []string {
	r.Helper()
	return append(r.walk(from, engine.Record, nil, nil), r.walk(from, engine.Sealed, nil, nil)...)
}

// writers run beside a test, each for as many turns as the test grants. An engine keeps what was
// overwritten for a while, and a walk over what writers without bounds overwrite lasts for ever.
type writers struct {
	turns chan int
	ended sync.WaitGroup
	err   atomic.Value
}

// write starts n writers, each of which calls f with its number and that of a turn.
func write(n int, f func(writer, turn int) error) *writers {
	w := &writers{turns: make(chan int, 32)}
	for i := range n {
		w.ended.Add(1)
		go func() {
			defer w.ended.Done()
			for turn := range w.turns {
				if err := f(i, turn); err != nil {
					w.err.Store(err)
				}
			}
		}()
	}
	return w
}

// turn grants turns, and waits until the writers have used most of the earlier ones.
func (w *writers) turn(number int) {
	w.turns <- number
	for {
		select {
		case w.turns <- number:
		default:
			return
		}
	}
}

// end waits for the writers.
func (w *writers) end(t T) {
	close(w.turns)
	w.ended.Wait()
	if err := w.err.Load(); err != nil {
		require.NoError(t, err.(error))
	}
}

// putBeside is put for a writer.
func (r *rig) putBeside(text string, ids ...string) error {
	b := r.p.NewBatch()
	defer b.Close()
	for _, id := range ids {
		room, err := b.Put([]byte(id), []byte(text), len(text))
		if err != nil {
			return err
		}
		copy(room, text)
	}
	return r.p.Apply(r.ctx, b, r.guard(0), false)
}

func (r *rig) meta(name string) (value string, revision uint64) {
	r.Helper()
	v, revision, err := r.p.LoadMeta(r.ctx, name)
	require.NoError(r, err)
	return string(v), revision
}

func (r *rig) swap(name string, revision uint64, value []byte) (uint64, error) {
	given, err := r.p.SwapMeta(r.ctx, engine.Swap{Name: name, Revision: revision, Value: value})
	if err != nil {
		return 0, err
	}
	require.Len(r, given, 1)
	return given[0], nil
}
