package pool

import (
	"context"
	"errors"
	"sync"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"github.com/stretchr/testify/require"
)

// thing is what the tests open.
type thing struct {
	name   string
	closed atomic.Int32
}

// bubbleClock is the clock of a bubble.
type bubbleClock struct{ start time.Time }

func (c bubbleClock) Elapsed() time.Duration { return time.Since(c.start) }
func (c bubbleClock) AfterFunc(d time.Duration, f func()) (stop func() bool) {
	return time.AfterFunc(d, f).Stop
}

var errBroken = errors.New("broken")

// world is where things are opened: it counts them, and opens each when the test lets it.
type world struct {
	t    *testing.T
	pool *Pool[*thing]

	mu              sync.Mutex
	lane            func(name string) string
	opening, open   map[string]int
	opens           map[string]int
	order           []string
	gate            map[string]chan struct{} // an opening waits for it, or for its context
	fails           map[string]error
	silent          map[string]bool
	most, mostBeing int
}

func newWorld(t *testing.T, most, opening int, idle time.Duration) *world {
	w := &world{t: t, opening: map[string]int{}, open: map[string]int{}, opens: map[string]int{},
		gate: map[string]chan struct{}{}, fails: map[string]error{}, silent: map[string]bool{},
		lane: func(name string) string { return name }}
	w.pool = New(Options[*thing]{
		Prepare: func(_ context.Context, name string) (Way[*thing], error) { return w.way(name), nil },
		Close:   w.close, Most: most, Opening: opening, Idle: idle, Clock: bubbleClock{time.Now()},
	})
	return w
}

func sum(m map[string]int) (n int) {
	for _, v := range m {
		n += v
	}
	return n
}

func (w *world) way(name string) Way[*thing] {
	return Way[*thing]{Lane: w.lane(name), Open: func(ctx context.Context) (*thing, bool, error) { return w.opened(ctx, name) }}
}

func (w *world) opened(ctx context.Context, name string) (*thing, bool, error) {
	w.mu.Lock()
	w.opening[name]++
	w.mostBeing = max(w.mostBeing, sum(w.opening))
	gate, err := w.gate[name], w.fails[name]
	w.mu.Unlock()
	if gate != nil {
		select {
		case <-gate:
		case <-ctx.Done():
			err = ctx.Err()
		}
	}
	w.mu.Lock()
	defer w.mu.Unlock()
	w.opening[name]--
	if err != nil {
		return nil, w.silent[name], err
	}
	w.opens[name]++
	w.order = append(w.order, name)
	w.open[name]++
	if w.open[name] > 1 {
		w.t.Errorf("%s is open twice", name)
	}
	w.most = max(w.most, sum(w.open))
	return &thing{name: name}, w.silent[name], nil
}

func (w *world) close(v *thing) error {
	if v.closed.Add(1) != 1 {
		w.t.Errorf("%s was closed twice", v.name)
	}
	w.mu.Lock()
	defer w.mu.Unlock()
	w.open[v.name]--
	return nil
}

// in runs a test in a bubble, with a pool that is closed at its end.
func in(t *testing.T, most, opening int, idle time.Duration, f func(t *testing.T, w *world)) {
	t.Helper()
	synctest.Test(t, func(t *testing.T) {
		w := newWorld(t, most, opening, idle)
		f(t, w)
		require.NoError(t, w.pool.Close())
		w.mu.Lock()
		defer w.mu.Unlock()
		require.Zero(t, sum(w.open), "what is open when the pool is closed")
		require.LessOrEqual(t, w.mostBeing, opening)
	})
}

// get acquires in the background.
func (w *world) get(ctx context.Context, name string) *getting {
	g := &getting{done: make(chan struct{})}
	go func() {
		defer close(g.done)
		g.value, g.release, g.err = w.pool.Acquire(ctx, name)
	}()
	synctest.Wait()
	return g
}

type getting struct {
	done    chan struct{}
	value   *thing
	release func()
	err     error
}

func (g *getting) over() bool {
	select {
	case <-g.done:
		return true
	default:
		return false
	}
}

func (w *world) must(name string) *getting {
	g := w.get(w.t.Context(), name)
	require.True(w.t, g.over(), name)
	require.NoError(w.t, g.err, name)
	return g
}
