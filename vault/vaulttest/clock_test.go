package vaulttest_test

import (
	"sync"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/blockseal/blockseal/vault/vaulttest"
)

var start = time.Date(2026, 1, 1, 0, 0, 0, 0, time.UTC)

func TestClockStandsStillUntilAdvanced(t *testing.T) {
	c := vaulttest.NewClock(start)
	require.Equal(t, start, c.Now())
	require.Zero(t, c.Elapsed())
	c.Advance(time.Minute)
	require.Equal(t, start.Add(time.Minute), c.Now())
	require.Equal(t, time.Minute, c.Elapsed())
	c.Advance(-time.Hour)
	require.Equal(t, time.Minute, c.Elapsed(), "the monotonic clock never goes back")
}

func TestClockHasNoMonotonicReading(t *testing.T) {
	c := vaulttest.NewClock(time.Now())
	require.Equal(t, c.Now().Round(0), c.Now())
}

func TestClockStepMovesTheWallClockAlone(t *testing.T) {
	c := vaulttest.NewClock(start)
	fired := 0
	c.AfterFunc(time.Minute, func() { fired++ })
	c.Step(time.Hour)
	c.Step(-3 * time.Hour)
	require.Equal(t, start.Add(-2*time.Hour), c.Now())
	require.Zero(t, c.Elapsed())
	require.Zero(t, fired)
	c.Advance(time.Minute)
	require.Equal(t, 1, fired)
	require.Equal(t, start.Add(-2*time.Hour+time.Minute), c.Now())
}

func TestClockTimersFireInOrderAtTheirMoment(t *testing.T) {
	c := vaulttest.NewClock(start)
	var got []string
	note := func(name string) func() {
		return func() {
			require.Equal(t, start.Add(c.Elapsed()), c.Now())
			got = append(got, name+" "+c.Elapsed().String())
		}
	}
	c.AfterFunc(3*time.Second, note("c"))
	c.AfterFunc(time.Second, note("a"))
	c.AfterFunc(2*time.Second, note("b1"))
	c.AfterFunc(2*time.Second, note("b2"))
	c.AfterFunc(0, note("now"))
	c.AfterFunc(-time.Second, note("past"))
	c.AfterFunc(time.Second, func() {
		note("arms")()
		c.AfterFunc(1500*time.Millisecond, note("armed"))
	})
	require.Equal(t, 7, c.Pending())
	require.Empty(t, got, "nothing fires before Advance")
	c.Advance(0)
	require.Equal(t, []string{"now 0s", "past 0s"}, got)
	c.Advance(2900 * time.Millisecond)
	require.Equal(t, []string{"now 0s", "past 0s", "a 1s", "arms 1s", "b1 2s", "b2 2s", "armed 2.5s"}, got)
	require.Equal(t, 2900*time.Millisecond, c.Elapsed())
	require.Equal(t, 1, c.Pending())
	c.Advance(100 * time.Millisecond)
	require.Equal(t, "c 3s", got[len(got)-1], "a timer due at the very end of an Advance fires in it")
	require.Zero(t, c.Pending())
}

func TestClockStop(t *testing.T) {
	c := vaulttest.NewClock(start)
	fired := 0
	stop := c.AfterFunc(time.Second, func() { fired++ })
	require.True(t, stop())
	require.False(t, stop(), "it was stopped already")
	c.Advance(time.Minute)
	require.Zero(t, fired)

	stop = c.AfterFunc(time.Second, func() { fired++ })
	var other func() bool
	c.AfterFunc(time.Second, func() { require.True(t, other()) })
	other = c.AfterFunc(time.Second, func() { fired += 100 })
	c.Advance(time.Second)
	require.Equal(t, 1, fired, "one timer stops another that is due at the same moment")
	require.False(t, stop(), "it has fired")
	require.False(t, other())
}

func TestClockConcurrentUse(t *testing.T) {
	c := vaulttest.NewClock(start)
	var mu sync.Mutex
	fired := 0
	var wg sync.WaitGroup
	for range 8 {
		wg.Go(func() {
			for range 50 {
				c.AfterFunc(time.Millisecond, func() {
					mu.Lock()
					defer mu.Unlock()
					fired++
				})
				c.Advance(time.Millisecond)
				c.Step(time.Second)
				_, _, _ = c.Now(), c.Elapsed(), c.Pending()
			}
		})
	}
	wg.Wait()
	c.Advance(time.Millisecond)
	require.Equal(t, 400, fired)
	require.Zero(t, c.Pending())
	require.Equal(t, 401*time.Millisecond, c.Elapsed())
}
