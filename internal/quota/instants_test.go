package quota

import (
	"context"
	"sync/atomic"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/blockseal/blockseal/internal/test/bubbles"
	"github.com/blockseal/blockseal/vault"
)

// empty spends the bucket, so that a turn comes each unit from now on.
func (b *Budget) empty(t *testing.T) {
	t.Helper()
	for range 2 {
		p, err := b.enterFor(1, false, time.Second)
		require.NoError(t, err)
		require.NoError(t, p.Wait(t.Context()))
	}
}

// A caller is let in whose turn leaves it exactly the last quarter of its time, and one whose turn is now, however
// long its time has been over.
func TestLetInAtTheInstant(t *testing.T) {
	inBubble(t, 100, func(t *testing.T, b *Budget) {
		p, err := b.Enter(1, false, b.at(-time.Second), b.at(time.Second))
		require.NoError(t, err)
		require.NoError(t, p.Wait(t.Context()))
		_, err = b.enterFor(1, false, time.Second)
		require.NoError(t, err)
		has := b.unit // time of which three quarters are the turn
		for has-has/4 < b.unit {
			has++
		}
		require.Equal(t, b.unit, has-has/4)
		_, err = b.enterFor(1, false, has-1)
		require.Equal(t, ErrNoTurn, err)
		_, err = b.enterFor(1, false, has)
		require.NoError(t, err)
	})
}

// A turn that comes when it ceases to be of use is none.
func TestPlaceEndsAtItsInstant(t *testing.T) {
	inBubble(t, 100, func(t *testing.T, b *Budget) {
		b.empty(t)
		p, err := b.Enter(1, false, b.at(time.Second), b.at(b.unit))
		require.NoError(t, err)
		require.Equal(t, ErrNoTurn, p.Wait(t.Context()))
		p, err = b.Enter(1, false, b.at(time.Second), b.at(b.unit+1))
		require.NoError(t, err)
		require.NoError(t, p.Wait(t.Context()))
	})
}

// Who waits goes on waiting at a gate that is closed for exactly as long as a call waits.
func TestPatienceIsWaited(t *testing.T) {
	inBubble(t, 100, func(t *testing.T, b *Budget) {
		for _, pause := range []time.Duration{patience, patience + 1} {
			b.empty(t)
			p, err := b.enterFor(1, false, 9*time.Second)
			require.NoError(t, err)
			b.Throttled(pause)
			if err := p.Wait(t.Context()); pause == patience {
				require.NoError(t, err)
			} else {
				require.Equal(t, &Closed{RetryAfter: pause}, err)
			}
		}
	})
}

// A caller whose turn has come, and whose context has ended, sends nothing.
func TestTurnOfWhoHasLeft(t *testing.T) {
	inBubble(t, 100, func(t *testing.T, b *Budget) {
		p, err := b.enterFor(1, false, time.Second)
		require.NoError(t, err)
		ctx, cancel := context.WithCancel(t.Context())
		cancel()
		require.ErrorIs(t, p.Wait(ctx), context.Canceled)
	})
}

// Before who goes first there are those who go first, once; before the others there are all of those too.
func TestWhoIsBeforeWhom(t *testing.T) {
	inBubble(t, 100, func(t *testing.T, b *Budget) {
		b.empty(t)
		var places [2]*Place
		for i, first := range []bool{true, false} {
			for range 10 {
				p, err := b.enterFor(1, first, 9*time.Second)
				require.NoError(t, err)
				places[i] = p
			}
		}
		within := func(turns time.Duration) time.Duration { return b.at(turns*b.unit*4/3 + time.Millisecond) }
		require.NoError(t, places[0].Refuses(within(10)))
		require.Equal(t, ErrNoTurn, places[0].Refuses(within(9)))
		require.NoError(t, places[1].Refuses(within(20)))
		require.Equal(t, ErrNoTurn, places[1].Refuses(within(19)))
	})
}

// timers is the system's clock that counts the timers that are set.
type timers struct {
	Clock
	set atomic.Int64
}

func (c *timers) AfterFunc(d time.Duration, f func()) (stop func() bool) {
	c.set.Add(1)
	beneath := c.Clock.AfterFunc(d, func() { c.set.Add(-1); f() })
	return func() bool {
		is := beneath()
		if is {
			c.set.Add(-1)
		}
		return is
	}
}

// However many come to be the first, there is one timer, and none when nobody waits.
func TestOneTimer(t *testing.T) {
	bubbles.Test(t, func(t *testing.T) {
		c := &timers{Clock: vault.SystemClock()}
		b := New(c, 100)
		b.empty(t)
		var last *Place
		for _, first := range []bool{false, true, false} {
			p, err := b.enterFor(1, first, 9*time.Second)
			require.NoError(t, err)
			require.EqualValues(t, 1, c.set.Load())
			last = p
		}
		require.NoError(t, last.Wait(t.Context()))
		require.Zero(t, c.set.Load())
	})
}
