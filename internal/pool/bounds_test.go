package pool

import (
	"context"
	"testing"
	"testing/synctest"
	"time"

	"github.com/stretchr/testify/require"
)

// A lane is forgotten with its last opening, and not before: what is being opened counts.
func TestLanesAreForgotten(t *testing.T) {
	in(t, 10, 4, time.Hour, func(t *testing.T, w *world) {
		w.lane = func(string) string { return "lane" }
		for _, name := range []string{"a", "b", "c", "d"} {
			w.gate[name] = make(chan struct{})
			w.get(t.Context(), name)
		}
		being := func() int {
			w.mu.Lock()
			defer w.mu.Unlock()
			return sum(w.opening)
		}
		require.Equal(t, 2, being(), "half of all")
		for _, name := range []string{"a", "b", "c"} {
			close(w.gate[name])
			synctest.Wait()
			require.LessOrEqual(t, being(), 2, "after %s", name)
			require.Len(t, w.pool.lanes, 1)
		}
		close(w.gate["d"])
		synctest.Wait()
		require.Empty(t, w.pool.lanes)
	})
}

// The context of an opening ends with it, whatever comes of it.
func TestContextsOfOpeningsEnd(t *testing.T) {
	in(t, 10, 4, time.Hour, func(t *testing.T, w *world) {
		contexts := map[string]context.Context{}
		w.pool.o.Prepare = func(ctx context.Context, name string) (Way[*thing], error) {
			contexts[name] = ctx
			if name == "is not prepared" {
				return Way[*thing]{}, errBroken
			}
			return w.way(name), nil
		}
		w.fails["fails"] = errBroken
		w.must("opens")
		require.ErrorIs(t, w.get(t.Context(), "fails").err, errBroken)
		require.ErrorIs(t, w.get(t.Context(), "is not prepared").err, errBroken)
		require.Len(t, contexts, 3)
		for name, ctx := range contexts {
			require.ErrorIs(t, ctx.Err(), context.Canceled, name)
		}
	})
}

// What is opened for nobody, because all who waited have left meanwhile, is closed when it has not been
// used for long.
func TestOpenedForNobody(t *testing.T) {
	in(t, 10, 4, time.Minute, func(t *testing.T, w *world) {
		goOn := make(chan struct{})
		w.pool.o.Prepare = func(context.Context, string) (Way[*thing], error) {
			return Way[*thing]{Open: func(context.Context) (*thing, bool, error) {
				<-goOn // whatever its context says
				return w.opened(context.Background(), "a")
			}}, nil
		}
		ctx, cancel := context.WithCancel(t.Context())
		w.get(ctx, "a")
		cancel()
		synctest.Wait()
		close(goOn)
		synctest.Wait()
		open := func() int {
			w.mu.Lock()
			defer w.mu.Unlock()
			return w.open["a"]
		}
		require.Equal(t, 1, open())
		time.Sleep(time.Minute)
		synctest.Wait()
		require.Zero(t, open())
	})
}

// An opening that says that a context ended, of a pool that is open, has not been ended by its Close.
func TestCanceledByItself(t *testing.T) {
	in(t, 10, 4, time.Hour, func(t *testing.T, w *world) {
		w.fails["a"] = context.Canceled
		err := w.get(t.Context(), "a").err
		require.ErrorIs(t, err, context.Canceled)
		require.NotErrorIs(t, err, ErrClosed)
	})
}

// Whose turn has not come, and who gave up, is not opened when it comes.
func TestGivingUpBeforeTheTurn(t *testing.T) {
	in(t, 10, 1, time.Hour, func(t *testing.T, w *world) {
		w.gate["a"] = make(chan struct{})
		w.get(t.Context(), "a")
		ctx, cancel := context.WithCancel(t.Context())
		b, c := w.get(ctx, "b"), w.get(t.Context(), "c")
		cancel()
		synctest.Wait()
		require.ErrorIs(t, b.err, context.Canceled)
		require.Equal(t, 1, w.pool.waiting.Len())
		close(w.gate["a"])
		synctest.Wait()
		require.NoError(t, c.err)
		require.Zero(t, w.opens["b"])
	})
}
