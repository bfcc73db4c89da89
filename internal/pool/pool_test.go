package pool

import (
	"context"
	"fmt"
	"math/rand/v2"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/stretchr/testify/require"
)

func TestOpenedOnceAndShared(t *testing.T) {
	in(t, 10, 4, time.Hour, func(t *testing.T, w *world) {
		w.gate["a"] = make(chan struct{})
		one, two := w.get(t.Context(), "a"), w.get(t.Context(), "a")
		require.False(t, one.over() || two.over())
		close(w.gate["a"])
		synctest.Wait()
		require.Same(t, one.value, two.value)
		require.Same(t, one.value, w.must("a").value)
		require.Equal(t, 1, w.opens["a"])
	})
}

// The one that was used longest ago goes, and none that is used.
func TestTheLeastRecentlyUsedGoes(t *testing.T) {
	in(t, 2, 4, time.Hour, func(t *testing.T, w *world) {
		a, b := w.must("a"), w.must("b")
		a.release()
		b.release()
		a.release() // twice is once
		w.must("a").release()
		c := w.must("c")
		require.EqualValues(t, 1, b.value.closed.Load())
		require.Zero(t, a.value.closed.Load())

		a = w.must("a")
		d := w.get(t.Context(), "d")
		require.False(t, d.over(), "both are used")
		c.release()
		synctest.Wait()
		require.True(t, d.over())
		require.NoError(t, d.err)
		require.EqualValues(t, 1, c.value.closed.Load())
		require.Zero(t, a.value.closed.Load())
		require.LessOrEqual(t, w.most, 2)
		a.release()
		d.release()
	})
}

func TestClosedWhenIdle(t *testing.T) {
	in(t, 10, 4, time.Minute, func(t *testing.T, w *world) {
		a, b := w.must("a"), w.must("b")
		a.release()
		time.Sleep(30 * time.Second)
		synctest.Wait()
		b.release()
		time.Sleep(29 * time.Second)
		synctest.Wait()
		require.Zero(t, a.value.closed.Load())
		time.Sleep(time.Second)
		synctest.Wait()
		require.EqualValues(t, 1, a.value.closed.Load())
		require.Zero(t, b.value.closed.Load())
		b = w.must("b")
		time.Sleep(time.Hour)
		synctest.Wait()
		require.Zero(t, b.value.closed.Load(), "it is used")
		require.Equal(t, 1, w.opens["b"])
		b.release()
	})
}

// Who gives up takes nothing from those who wait for the same; the last one ends the opening.
func TestGivingUp(t *testing.T) {
	in(t, 10, 4, time.Hour, func(t *testing.T, w *world) {
		w.gate["a"] = make(chan struct{})
		ctx, cancel := context.WithCancel(t.Context())
		one, two := w.get(ctx, "a"), w.get(t.Context(), "a")
		cancel()
		synctest.Wait()
		require.ErrorIs(t, one.err, context.Canceled)
		require.False(t, two.over())
		close(w.gate["a"])
		synctest.Wait()
		require.NoError(t, two.err)
		two.release()

		w.gate["b"] = make(chan struct{})
		ctx, cancel = context.WithCancel(t.Context())
		_ = w.get(ctx, "b")
		cancel()
		synctest.Wait()
		require.Zero(t, w.opening["b"], "nobody waits for it: its opening was ended")
		close(w.gate["b"])
		require.NotNil(t, w.must("b").value)

		_, _, err := w.pool.Acquire(ctx, "c")
		require.ErrorIs(t, err, context.Canceled)
		require.Zero(t, w.opens["c"])
	})
}

// Who comes while an opening is being given up gets one of its own.
func TestComingToOneThatWasGivenUp(t *testing.T) {
	in(t, 10, 4, time.Hour, func(t *testing.T, w *world) {
		ctx, cancel := context.WithCancel(t.Context())
		began, goOn := make(chan struct{}), make(chan struct{})
		times := 0
		w.pool.o.Prepare = func(ctx context.Context, name string) (Way[*thing], error) {
			if times++; times == 1 {
				close(began)
				<-ctx.Done()
				<-goOn
				return Way[*thing]{}, ctx.Err()
			}
			return w.way(name), nil
		}
		one := w.get(ctx, "a")
		<-began
		cancel()
		synctest.Wait()
		require.True(t, one.over())
		two := w.get(t.Context(), "a")
		require.False(t, two.over())
		close(goOn)
		synctest.Wait()
		require.NoError(t, two.err)
		two.release()
	})
}

// A failure is told to all who wait for it, and not to those who come after.
func TestFailures(t *testing.T) {
	in(t, 10, 4, time.Hour, func(t *testing.T, w *world) {
		w.gate["a"], w.fails["a"] = make(chan struct{}), errBroken
		one, two := w.get(t.Context(), "a"), w.get(t.Context(), "a")
		close(w.gate["a"])
		synctest.Wait()
		require.ErrorIs(t, one.err, errBroken)
		require.ErrorIs(t, two.err, errBroken)
		delete(w.fails, "a")
		w.must("a").release()

		w.pool.o.Prepare = func(context.Context, string) (Way[*thing], error) { return Way[*thing]{}, errBroken }
		_, _, err := w.pool.Acquire(t.Context(), "b")
		require.ErrorIs(t, err, errBroken)
	})
}

func TestWhoCameFirstIsFirst(t *testing.T) {
	in(t, 100, 1, time.Hour, func(t *testing.T, w *world) {
		hold := make(chan struct{})
		var want []string
		for i := range 8 {
			name := fmt.Sprint(i)
			want = append(want, name)
			w.gate[name] = hold
			defer func(g *getting) { g.release() }(w.get(t.Context(), name))
		}
		close(hold)
		synctest.Wait()
		require.Equal(t, want, w.order)
	})
}

// No more are opened at once than may be, and one lane takes half of the turns, or one when
// nobody answers there.
func TestTurns(t *testing.T) {
	in(t, 100, 4, time.Hour, func(t *testing.T, w *world) {
		w.lane = func(name string) string { return name[:1] }
		hold := make(chan struct{})
		var slow []*getting
		for i := range 8 {
			name := fmt.Sprint("slow", i)
			w.gate[name] = hold
			slow = append(slow, w.get(t.Context(), name))
		}
		require.Equal(t, 2, sum(w.opening), "half of the turns")
		opening, waiting := w.pool.Waiting()
		require.Equal(t, []int{2, 6}, []int{opening, waiting})
		w.must("other").release()
		w.must("third").release()
		close(hold)
		synctest.Wait()
		for _, g := range slow {
			require.NoError(t, g.err)
			g.release()
		}

		// Nobody answers: it takes one turn.
		hang := make(chan struct{})
		for i := range 4 {
			name := fmt.Sprint("hung", i)
			w.gate[name], w.silent[name], w.fails[name] = hang, true, errBroken
		}
		first := w.get(t.Context(), "hung0")
		close(hang)
		synctest.Wait()
		require.ErrorIs(t, first.err, errBroken)
		hang = make(chan struct{})
		for i := range 4 {
			w.gate[fmt.Sprint("hung", i)] = hang
		}
		var hung []*getting
		for i := range 4 {
			hung = append(hung, w.get(t.Context(), fmt.Sprint("hung", i)))
		}
		require.Equal(t, 1, sum(w.opening))
		w.fails, w.silent = map[string]error{}, map[string]bool{}
		close(hang)
		synctest.Wait()
		for _, g := range hung[1:] {
			require.NoError(t, g.err, "the others are opened when it answers again")
			g.release()
		}
	})
}

func TestOwned(t *testing.T) {
	in(t, 1, 4, time.Minute, func(t *testing.T, w *world) {
		open := func(name string) (*thing, error) {
			return w.pool.Own(t.Context(), name, func(ctx context.Context) (*thing, error) {
				v, _, err := w.opened(ctx, name)
				return v, err
			})
		}
		a, err := open("a")
		require.NoError(t, err)
		_, err = open("a")
		require.ErrorIs(t, err, ErrInUse)
		shared := w.must("a")
		require.Same(t, a, shared.value)
		shared.release()
		time.Sleep(time.Hour)
		synctest.Wait()
		b := w.must("b") // which needs no place of a's
		require.Zero(t, a.closed.Load(), "whoever opened it closes it")
		_, err = open("b")
		require.ErrorIs(t, err, ErrInUse)
		b.release()
		own, err := open("b")
		require.NoError(t, err)
		require.NotSame(t, b.value, own)
		require.EqualValues(t, 1, b.value.closed.Load())

		w.fails["c"] = errBroken
		_, err = open("c")
		require.ErrorIs(t, err, errBroken)

		require.NoError(t, w.close(a)) // as its owner does
		w.pool.Closed("a", a)
		w.pool.Closed("a", a)
		again := w.must("a")
		require.NotSame(t, a, again.value)
		w.pool.Closed("a", a) // which it is not any more
		require.Same(t, again.value, w.must("a").value)
	})
}

// Whoever waits for what somebody else opens by Own has nothing to do with why that failed, as of a
// store that was to be made and is there, or a caller who gave up.
func TestAnOwnerWhoFails(t *testing.T) {
	in(t, 1, 4, time.Minute, func(t *testing.T, w *world) {
		begin, ended := make(chan struct{}), make(chan error, 1)
		go func() {
			_, err := w.pool.Own(t.Context(), "a", func(context.Context) (*thing, error) {
				<-begin
				return nil, errBroken
			})
			ended <- err
		}()
		synctest.Wait()
		a := w.get(t.Context(), "a")
		require.False(t, a.over())
		close(begin)
		require.ErrorIs(t, <-ended, errBroken)
		synctest.Wait()
		require.True(t, a.over())
		require.NoError(t, a.err)
		a.release()
	})
}

func TestEvict(t *testing.T) {
	in(t, 10, 4, time.Hour, func(t *testing.T, w *world) {
		a := w.must("a")
		again, err := w.pool.Evict(t.Context(), "a")
		require.NoError(t, err)
		require.EqualValues(t, 1, a.value.closed.Load(), "used or not")
		b := w.get(t.Context(), "a")
		require.False(t, b.over())
		ctx, cancel := context.WithCancel(t.Context())
		cancel()
		_, err = w.pool.Evict(ctx, "a")
		require.ErrorIs(t, err, context.Canceled)
		a.release()
		again()
		synctest.Wait()
		require.NoError(t, b.err)
		b.release()

		w.gate["c"] = make(chan struct{})
		c := w.get(t.Context(), "c")
		evicted := make(chan error, 1)
		go func() {
			again, err := w.pool.Evict(t.Context(), "c")
			again()
			evicted <- err
		}()
		synctest.Wait()
		close(w.gate["c"])
		require.NoError(t, <-evicted)
		synctest.Wait()
		require.NoError(t, c.err)
		require.EqualValues(t, 1, c.value.closed.Load())
	})
}

func TestCloseOfThePool(t *testing.T) {
	in(t, 2, 4, time.Hour, func(t *testing.T, w *world) {
		used, idle := w.must("used"), w.must("idle")
		idle.release()
		w.gate["opening"] = make(chan struct{})
		idle = w.must("idle")
		waiting := w.get(t.Context(), "waiting")
		require.False(t, waiting.over())
		idle.release()
		synctest.Wait()
		opening := w.get(t.Context(), "opening")
		require.NoError(t, w.pool.Close())
		synctest.Wait()
		require.Error(t, opening.err)
		require.EqualValues(t, 1, used.value.closed.Load())
		_, _, err := w.pool.Acquire(t.Context(), "used")
		require.ErrorIs(t, err, ErrClosed)
		_, err = w.pool.Own(t.Context(), "x", nil)
		require.ErrorIs(t, err, ErrClosed)
		_, err = w.pool.Evict(t.Context(), "x")
		require.ErrorIs(t, err, ErrClosed)
		used.release()
	})
}

// Many at a time, who acquire, give up, own and evict: the world counts what is open, and finds
// what is open twice, or closed twice.
func TestManyAtATime(t *testing.T) {
	const most, opening = 4, 3
	w := newWorld(t, most, opening, time.Millisecond)
	w.lane = func(name string) string { return name[:1] }
	var all sync.WaitGroup
	for g := range 8 {
		all.Go(func() {
			random := rand.New(rand.NewPCG(uint64(g), 1))
			for range 500 {
				name := string([]byte{'a' + byte(random.IntN(3)), '0' + byte(random.IntN(4))})
				ctx, cancel := context.WithCancel(t.Context())
				switch random.IntN(10) {
				case 0:
					cancel()
				case 1:
					if again, err := w.pool.Evict(ctx, name); err == nil {
						again()
					}
					cancel()
					continue
				}
				v, release, err := w.pool.Acquire(ctx, name)
				if err == nil {
					if v.name != name {
						t.Errorf("asked for %s, got %s", name, v.name)
					}
					release()
				}
				cancel()
			}
		})
	}
	all.Wait()
	require.NoError(t, w.pool.Close())
	require.Zero(t, sum(w.open))
	require.LessOrEqual(t, w.most, most)
	require.LessOrEqual(t, w.mostBeing, opening)
}
