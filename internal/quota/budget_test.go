package quota

import (
	"context"
	"errors"
	"math/rand/v2"
	"slices"
	"sync"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/blockseal/blockseal/internal/test/bubbles"
	"github.com/blockseal/blockseal/vault"
)

// In a bubble the system's clock is a fake one: it moves on when all wait.
func inBubble(t *testing.T, perWindow int, f func(t *testing.T, b *Budget)) {
	t.Helper()
	bubbles.Test(t, func(t *testing.T) { f(t, New(vault.SystemClock(), perWindow)) })
}

// at returns the moment so much after now, by the budget's clock.
func (b *Budget) at(d time.Duration) time.Duration { return b.clock.Elapsed() + d }

// enterFor takes a place for a caller who has d.
func (b *Budget) enterFor(units int, first bool, d time.Duration) (*Place, error) {
	return b.Enter(units, first, b.at(d), b.at(d))
}

// grant is a request that was let through.
type grant struct {
	at    time.Duration
	units int
}

// mostInWindow returns the most units of any 10 seconds.
func mostInWindow(grants []grant) (most int) {
	slices.SortFunc(grants, func(x, y grant) int { return int(x.at - y.at) })
	for i := range grants {
		sum := 0
		for _, g := range grants[i:] {
			if g.at-grants[i].at >= Window {
				break
			}
			sum += g.units
		}
		most = max(most, sum)
	}
	return most
}

// Whatever is asked for, however often callers give up, whoever goes first and whenever
// the vault says 429: no 10 seconds see more than the limit. With enough demand they see
// nearly all of it.
func TestNeverMoreThanTheBudgetInAnyTenSeconds(t *testing.T) {
	for _, perWindow := range []int{10, 37, 100, 2000} {
		for seed := range uint64(4) {
			inBubble(t, perWindow, func(t *testing.T, b *Budget) {
				rng := rand.New(rand.NewPCG(seed, uint64(perWindow)))
				var mu sync.Mutex
				var grants []grant
				var wg sync.WaitGroup
				end := b.at(60 * time.Second)
				for b.clock.Elapsed() < end {
					units, first := 1+rng.IntN(Heaviest), rng.IntN(20) == 0
					has := time.Duration(rng.Int64N(int64(9 * time.Second)))
					gives := has
					if rng.IntN(3) == 0 { // up before that
						gives = time.Duration(rng.Int64N(int64(has) + 1))
					}
					wg.Go(func() {
						p, err := b.enterFor(units, first, has)
						if err != nil {
							return
						}
						ctx, cancel := context.WithTimeout(t.Context(), gives)
						defer cancel()
						if p.Wait(ctx) == nil {
							mu.Lock()
							defer mu.Unlock()
							grants = append(grants, grant{b.clock.Elapsed(), units})
						}
					})
					if seed%2 == 1 && rng.IntN(20*perWindow) == 0 {
						b.Throttled(time.Duration(rng.IntN(7)) * time.Second)
					}
					// Twice what there is, in no order; and now and then nothing.
					time.Sleep(time.Duration(rng.Int64N(int64(Window) / int64(perWindow) * 3 / 2)))
					if rng.IntN(20*perWindow) == 0 {
						time.Sleep(5 * time.Second)
					}
				}
				wg.Wait()
				require.LessOrEqual(t, mostInWindow(grants), perWindow, "seed %d", seed)
				require.GreaterOrEqual(t, mostInWindow(grants), perWindow*9/10-Heaviest, "seed %d", seed)
			})
		}
	}
}

// Rounding must not add up: a nanosecond too short a thousand times a second is an
// operation too many.
func TestTheRateIsRoundedDown(t *testing.T) {
	t.Parallel()
	for _, perWindow := range []int{10, 11, 2000, 3001, 1_000_000, 1_000_003} {
		b := New(vault.SystemClock(), perWindow)
		inBucket := int(b.burst / b.unit)
		require.LessOrEqual(t, inBucket+int((Window-1)/b.unit)+1, perWindow+1, perWindow)
		require.GreaterOrEqual(t, time.Duration(perWindow-inBucket)*b.unit, Window, perWindow)
	}
}

// Who gives up leaves nothing behind: the one that comes next is served as if nobody
// had been there.
func TestWhoGivesUpSpendsNothing(t *testing.T) {
	inBubble(t, 100, func(t *testing.T, b *Budget) {
		var places []*Place
		for range 60 { // 10 a second
			p, err := b.enterFor(1, false, 8*time.Second)
			require.NoError(t, err)
			places = append(places, p)
		}
		gone, cancel := context.WithCancel(t.Context())
		cancel()
		for _, p := range places[2:] { // those two took what the bucket held
			require.ErrorIs(t, p.Wait(gone), context.Canceled)
		}
		require.Zero(t, b.lanes[1].units)
		start := b.clock.Elapsed()
		p, err := b.enterFor(1, false, 8*time.Second)
		require.NoError(t, err)
		require.NoError(t, p.Wait(t.Context()))
		require.Equal(t, b.unit, b.clock.Elapsed()-start, "the next that flowed in")

		// One that takes more than the one behind it would keep that waiting.
		start = b.clock.Elapsed()
		heavy, err := b.enterFor(Heaviest, false, 8*time.Second)
		require.NoError(t, err)
		light, err := b.enterFor(1, false, 8*time.Second)
		require.NoError(t, err)
		require.ErrorIs(t, heavy.Wait(gone), context.Canceled)
		require.NoError(t, light.Wait(t.Context()))
		require.Equal(t, b.unit, b.clock.Elapsed()-start)
	})
}

// First come, first served, after those that go first.
func TestTurns(t *testing.T) {
	inBubble(t, 100, func(t *testing.T, b *Budget) {
		for range 2 {
			p, err := b.enterFor(1, false, time.Second)
			require.NoError(t, err)
			require.NoError(t, p.Wait(t.Context()), "the bucket was full")
		}
		var mu sync.Mutex
		var order []string
		var wg sync.WaitGroup
		enter := func(name string, units int, first bool) {
			p, err := b.enterFor(units, first, 9*time.Second)
			require.NoError(t, err)
			wg.Go(func() {
				if err := p.Wait(t.Context()); err != nil {
					name += " " + err.Error()
				}
				mu.Lock()
				defer mu.Unlock()
				order = append(order, name)
			})
		}
		enter("a", 1, false)
		enter("b", 2, false)
		enter("c", 1, false)
		enter("first", 2, true)
		enter("d", 1, false)
		enter("second", 1, true)
		wg.Wait()
		require.Equal(t, []string{"first", "second", "a", "b", "c", "d"}, order)
	})
}

// A caller is told at once that its turn comes too late, and is let in if it leaves it
// the last quarter of its time.
func TestWhoseTurnComesTooLate(t *testing.T) {
	inBubble(t, 100, func(t *testing.T, b *Budget) {
		start := b.clock.Elapsed()
		var places []*Place
		for range 2 + 10 { // a bucket, and about a second's worth
			p, err := b.enterFor(1, false, 9*time.Second)
			require.NoError(t, err)
			places = append(places, p)
		}
		turn := 11 * b.unit // of the next
		_, err := b.enterFor(1, false, turn)
		require.Equal(t, ErrNoTurn, err)
		_, err = b.enterFor(1, false, turn*4/3-time.Millisecond)
		require.Equal(t, ErrNoTurn, err)
		p, err := b.enterFor(1, false, turn*4/3+time.Millisecond)
		require.NoError(t, err)
		_, err = b.enterFor(1, true, 3*b.unit)
		require.NoError(t, err, "who goes first has nobody before it")
		require.Equal(t, start, b.clock.Elapsed(), "at once")

		// The same for those that would wait for a place that somebody has taken.
		require.Equal(t, ErrNoTurn, p.Refuses(b.at(turn)))
		require.NoError(t, p.Refuses(b.at(2*turn)))
		require.NoError(t, places[5].Refuses(b.at(turn)), "it is nearer to the front")
		require.NoError(t, places[0].Refuses(b.at(1)), "it has had its turn")

		// With nobody before it a call is let in, however little time it has.
		time.Sleep(10 * time.Second)
		_, err = b.enterFor(1, false, 0)
		require.NoError(t, err)
	})
}

// The time of a place that others keep waiting for ends, too.
func TestAPlaceEnds(t *testing.T) {
	inBubble(t, 100, func(t *testing.T, b *Budget) {
		for range 2 {
			_, err := b.enterFor(1, false, time.Second)
			require.NoError(t, err)
		}
		p, err := b.enterFor(1, false, 2*b.unit)
		require.NoError(t, err)
		for range 20 { // later, and before it
			_, err := b.enterFor(1, true, 9*time.Second)
			require.NoError(t, err)
		}
		last, err := b.enterFor(1, false, 9*time.Second)
		require.NoError(t, err)
		require.Equal(t, ErrNoTurn, p.Wait(t.Context()))
		require.NoError(t, last.Wait(t.Context()))
	})
}

// A 429 closes the gate for everybody, for as long as the vault says.
func TestTheGate(t *testing.T) {
	inBubble(t, 100, func(t *testing.T, b *Budget) {
		var gate *Closed
		wait := func(has time.Duration) (time.Duration, error) {
			start := b.clock.Elapsed()
			p, err := b.enterFor(1, false, has)
			if err == nil {
				err = p.Wait(t.Context())
			}
			return b.clock.Elapsed() - start, err
		}
		b.Throttled(3 * time.Second)
		took, err := wait(9 * time.Second)
		require.NoError(t, err)
		require.Equal(t, 3*time.Second, took)

		b.Throttled(3 * time.Second)
		took, err = wait(2 * time.Second)
		require.True(t, errors.As(err, &gate), err)
		require.Equal(t, 3*time.Second, gate.RetryAfter)
		require.Zero(t, took, "who cannot wait that long is told at once")
		_, err = b.enterFor(1, true, 2*time.Second)
		require.True(t, errors.As(err, &gate), "and so is who goes first")
		time.Sleep(3 * time.Second)

		// Those that wait are told, too, if it becomes too long for anybody.
		for range 2 {
			_, err = wait(9 * time.Second)
			require.NoError(t, err)
		}
		p, err := b.enterFor(1, false, 9*time.Second)
		require.NoError(t, err)
		b.Throttled(time.Hour)
		err = p.Wait(t.Context())
		require.True(t, errors.As(err, &gate), err)
		require.Equal(t, time.Hour, gate.RetryAfter)
		time.Sleep(longestPause - patience - time.Millisecond)
		_, err = wait(9 * time.Second)
		require.True(t, errors.As(err, &gate), err)
		require.Equal(t, time.Hour-25*time.Second+time.Millisecond, gate.RetryAfter, "what the vault said, as far as it is not over")
		time.Sleep(time.Millisecond)
		took, err = wait(9 * time.Second)
		require.NoError(t, err, "an hour is not believed")
		require.Equal(t, patience, took)
	})
}

// Without a Retry-After the pauses double, up to 16 s, until a request is served.
func TestPausesDouble(t *testing.T) {
	inBubble(t, 2000, func(t *testing.T, b *Budget) {
		left := func() time.Duration {
			b.mu.Lock()
			defer b.mu.Unlock()
			return b.closed - b.clock.Elapsed()
		}
		for _, want := range []time.Duration{1, 2, 4, 8, 16, 16} {
			b.Throttled(0)
			require.Equal(t, want*time.Second, left())
			b.Throttled(0)
			require.Equal(t, want*time.Second, left(), "of several that were under way together the first counts")
			time.Sleep(left())
		}
		b.Answered()
		b.Throttled(0)
		require.Equal(t, time.Second, left())
		b.Throttled(20 * time.Second)
		require.Equal(t, 20*time.Second, left(), "what the vault says goes beyond a guess")
		b.Throttled(time.Second)
		require.Equal(t, 20*time.Second, left())
	})
}
