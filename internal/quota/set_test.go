package quota

import (
	"errors"
	"fmt"
	"math/rand/v2"
	"sync"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/blockseal/blockseal/internal/test/bubbles"
	"github.com/blockseal/blockseal/vault"
)

func TestSet(t *testing.T) {
	s := NewSet(vault.SystemClock())
	a, err := s.Of("a", 100)
	require.NoError(t, err)
	again, err := s.Of("a", 100)
	require.NoError(t, err)
	require.Same(t, a, again)
	b, err := s.Of("b", 37)
	require.NoError(t, err)
	require.NotSame(t, a, b)
	_, err = s.Of("a", 200)
	require.ErrorContains(t, err, "the budget of a is 100, not 200")
}

// Many clients of one vault send no more than one of them might; another vault's, and a gate that is
// closed there, are nothing to them. What keeps access alive waits for nobody else's calls.
func TestManyClientsShareABudget(t *testing.T) {
	const perWindow, clients = 200, 50
	bubbles.Test(t, func(t *testing.T) {
		s := NewSet(vault.SystemClock())
		other, err := s.Of("other", perWindow)
		require.NoError(t, err)
		other.Throttled(time.Hour)
		start := other.clock.Elapsed()
		var mu sync.Mutex
		var grants []grant
		var longest time.Duration // that a call which goes first waited
		var all sync.WaitGroup
		for c := range clients {
			rng := rand.New(rand.NewPCG(7, uint64(c)))
			b, err := s.Of("vault", perWindow)
			require.NoError(t, err)
			all.Go(func() {
				for n := 0; b.clock.Elapsed()-start < time.Minute; n++ {
					first, units := n%20 == c%20, 1+rng.IntN(Heaviest)
					asked := b.clock.Elapsed()
					p, err := b.enterFor(units, first, 9*time.Second)
					if err == nil {
						err = p.Wait(t.Context())
					}
					mu.Lock()
					switch {
					case err == nil:
						grants = append(grants, grant{b.clock.Elapsed(), units})
						if first {
							longest = max(longest, b.clock.Elapsed()-asked)
						}
					case first || !errors.Is(err, ErrNoTurn):
						t.Errorf("first: %v: %v", first, err)
					}
					mu.Unlock()
					time.Sleep(time.Duration(rng.Int64N(int64(time.Second))))
				}
			})
		}
		all.Wait()
		require.LessOrEqual(t, mostInWindow(grants), perWindow)
		require.GreaterOrEqual(t, mostInWindow(grants), perWindow*9/10)
		// All that are marked at once at the worst: a turn for each.
		require.LessOrEqual(t, longest, clients*Heaviest*Window/perWindow, fmt.Sprint(longest))
	})
}
