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
