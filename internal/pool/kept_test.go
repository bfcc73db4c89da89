package pool

import (
	"context"
	"testing"
	"testing/synctest"
	"time"

	"github.com/stretchr/testify/require"
)

// What is to be made by OwnNew must not be there: one that is open stays as it is, used or not, and
// one that is being opened or is kept shut is in use or waited for.
func TestOwnNew(t *testing.T) {
	in(t, 10, 4, time.Hour, func(t *testing.T, w *world) {
		calls := 0
		create := func(ctx context.Context, name string) (*thing, error) {
			return w.pool.OwnNew(ctx, name, func(ctx context.Context) (*thing, error) {
				calls++
				v, _, err := w.opened(ctx, name)
				return v, err
			})
		}
		idle := w.must("a")
		idle.release()
		_, err := create(t.Context(), "a")
		require.ErrorIs(t, err, ErrInUse)
		require.ErrorContains(t, err, `"a"`)
		synctest.Wait()
		require.Zero(t, idle.value.closed.Load(), "it is open and stays so")
		require.Zero(t, calls)

		again, err := w.pool.Evict(t.Context(), "a")
		require.NoError(t, err)
		ctx, cancel := context.WithCancel(t.Context())
		cancel()
		_, err = create(ctx, "a")
		require.ErrorIs(t, err, context.Canceled, "it waits for one that is kept shut")
		again()
		v, err := create(t.Context(), "a")
		require.NoError(t, err)
		require.Same(t, v, w.must("a").value)
		require.Equal(t, 1, calls)
	})
}

func TestReserve(t *testing.T) {
	in(t, 10, 4, time.Hour, func(t *testing.T, w *world) {
		a := w.must("a")
		_, err := w.pool.Reserve("a")
		require.ErrorIs(t, err, ErrInUse)
		a.release()
		_, err = w.pool.Reserve("a")
		require.ErrorIs(t, err, ErrInUse, "it is open, and nobody uses it")

		again, err := w.pool.Reserve("b")
		require.NoError(t, err)
		_, err = w.pool.Reserve("b")
		require.ErrorIs(t, err, ErrInUse)
		b := w.get(t.Context(), "b")
		require.False(t, b.over())
		again()
		synctest.Wait()
		require.True(t, b.over())
		require.NoError(t, b.err)
		again() // twice is once
		require.Same(t, b.value, w.must("b").value)
		b.release()

		require.NoError(t, w.pool.Close())
		_, err = w.pool.Reserve("c")
		require.ErrorIs(t, err, ErrClosed)
	})
}

// Await waits for an opening and for a closing, and for nothing else.
func TestAwait(t *testing.T) {
	in(t, 10, 4, time.Hour, func(t *testing.T, w *world) {
		awaiting := func(ctx context.Context, name string) (over func() bool) {
			done := make(chan struct{})
			go func() { w.pool.Await(ctx, name); close(done) }()
			synctest.Wait()
			return (&getting{done: done}).over
		}
		require.True(t, awaiting(t.Context(), "a")(), "there is none")

		w.gate["a"] = make(chan struct{})
		a := w.get(t.Context(), "a")
		ctx, cancel := context.WithCancel(t.Context())
		opened, gaveUp := awaiting(t.Context(), "a"), awaiting(ctx, "a")
		require.False(t, opened() || gaveUp())
		cancel()
		synctest.Wait()
		require.True(t, gaveUp())
		require.False(t, opened())
		close(w.gate["a"])
		synctest.Wait()
		require.True(t, opened())
		require.True(t, awaiting(t.Context(), "a")(), "it is open")
		a.release()

		again, err := w.pool.Evict(t.Context(), "a")
		require.NoError(t, err)
		gone := awaiting(t.Context(), "a")
		require.False(t, gone())
		again()
		synctest.Wait()
		require.True(t, gone())
	})
}

// Each sees what is open, whoever opened it and whether it is used, and nothing that is being
// opened or is kept shut.
func TestEach(t *testing.T) {
	in(t, 10, 4, time.Hour, func(t *testing.T, w *world) {
		used, idle := w.must("used"), w.must("idle")
		idle.release()
		w.gate["opening"] = make(chan struct{})
		opening := w.get(t.Context(), "opening")
		_, err := w.pool.Reserve("shut")
		require.NoError(t, err)
		owned, err := w.pool.Own(t.Context(), "owned", func(ctx context.Context) (*thing, error) {
			v, _, err := w.opened(ctx, "owned")
			return v, err
		})
		require.NoError(t, err)
		seen := map[string]*thing{}
		w.pool.Each(func(name string, v *thing) { seen[name] = v })
		require.Equal(t, map[string]*thing{"used": used.value, "idle": idle.value, "owned": owned}, seen)
		close(w.gate["opening"])
		synctest.Wait()
		require.NoError(t, opening.err)
		opening.release()
		used.release()
	})
}

// What Close could not close it says, and it closes the others.
func TestCloseSaysWhatFailed(t *testing.T) {
	in(t, 10, 1, time.Hour, func(t *testing.T, w *world) {
		inner := w.pool.o.Close
		w.pool.o.Close = func(v *thing) error {
			require.NoError(w.t, inner(v))
			if v.name == "b" {
				return errBroken
			}
			return nil
		}
		for _, name := range []string{"a", "b", "c"} {
			w.must(name)
		}
		require.ErrorIs(t, w.pool.Close(), errBroken)
		require.Zero(t, sum(w.open))
		w.pool.o.Close = inner
	})
}

// What is opened although the pool was closed meanwhile is closed, and nobody gets it: neither who
// waited for it nor who was to own it.
func TestOpenedAfterTheClose(t *testing.T) {
	in(t, 10, 4, time.Hour, func(t *testing.T, w *world) {
		goOn := make(chan struct{})
		open := func(name string) (*thing, bool, error) {
			<-goOn // whatever its context says
			return w.opened(context.Background(), name)
		}
		w.pool.o.Prepare = func(_ context.Context, name string) (Way[*thing], error) {
			return Way[*thing]{Lane: name, Open: func(context.Context) (*thing, bool, error) { return open(name) }}, nil
		}
		a := w.get(t.Context(), "a")
		owned, closed := make(chan error, 1), make(chan error, 1)
		go func() {
			v, err := w.pool.Own(t.Context(), "b", func(context.Context) (*thing, error) {
				v, _, err := open("b")
				return v, err
			})
			require.Nil(w.t, v)
			owned <- err
		}()
		synctest.Wait()
		go func() { closed <- w.pool.Close() }()
		synctest.Wait()
		require.Empty(t, closed, "Close waits for what is being opened")
		require.False(t, a.over())
		close(goOn)
		require.NoError(t, <-closed)
		require.ErrorIs(t, <-owned, ErrClosed)
		synctest.Wait()
		require.ErrorIs(t, a.err, ErrClosed)
		require.Equal(t, 1, w.opens["a"])
		require.Equal(t, 1, w.opens["b"])
		require.Zero(t, sum(w.open))
	})
}

// Whoever waits for an opening that the pool's Close has ended is told that the pool was closed: their
// own context goes on. So is the owner of one.
func TestClosedWhileBeingOpened(t *testing.T) {
	in(t, 10, 4, time.Hour, func(t *testing.T, w *world) {
		prepared := make(chan struct{})
		w.pool.o.Prepare = func(ctx context.Context, name string) (Way[*thing], error) {
			switch name {
			case "answers late": // whatever its context says
				<-prepared
			case "gives up":
				<-ctx.Done()
				return Way[*thing]{}, ctx.Err()
			}
			return w.way(name), nil
		}
		w.gate["opening"] = make(chan struct{})
		late, gaveUp, opening := w.get(t.Context(), "answers late"), w.get(t.Context(), "gives up"), w.get(t.Context(), "opening")
		owned, closed := make(chan error, 1), make(chan error, 1)
		go func() {
			_, err := w.pool.Own(t.Context(), "owned", func(ctx context.Context) (*thing, error) {
				<-ctx.Done()
				return nil, ctx.Err()
			})
			owned <- err
		}()
		synctest.Wait()
		require.False(t, late.over() || gaveUp.over() || opening.over())
		go func() { closed <- w.pool.Close() }()
		synctest.Wait()
		close(prepared)
		require.NoError(t, <-closed)
		require.ErrorIs(t, <-owned, ErrClosed)
		synctest.Wait()
		require.ErrorIs(t, late.err, ErrClosed)
		require.ErrorIs(t, gaveUp.err, ErrClosed)
		require.ErrorIs(t, opening.err, ErrClosed)
		require.Zero(t, w.opens["answers late"], "it is not opened any more")
	})
}

// One is closed for each who waits for room, however often others come and go while it is being closed.
func TestOneIsClosedForEachWhoWaits(t *testing.T) {
	in(t, 3, 4, time.Hour, func(t *testing.T, w *world) {
		inner, goOn := w.pool.o.Close, make(chan struct{})
		w.pool.o.Close = func(v *thing) error {
			<-goOn
			return inner(v)
		}
		a, b, used := w.must("a"), w.must("b"), w.must("used")
		a.release()
		b.release()
		c := w.get(t.Context(), "c")
		require.False(t, c.over(), "a is being closed for it")
		used.release()
		require.Same(t, b.value, w.must("b").value)
		close(goOn)
		synctest.Wait()
		require.NoError(t, c.err)
		require.EqualValues(t, 1, a.value.closed.Load())
		require.Zero(t, used.value.closed.Load()+b.value.closed.Load(), "nobody needed their places")
		c.release()
	})
}
