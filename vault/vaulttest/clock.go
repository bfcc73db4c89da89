package vaulttest

import (
	"slices"
	"sync"
	"time"
)

// Clock is a wall clock and a monotonic clock that stand still until the test
// moves them. It is safe for concurrent use.
type Clock struct {
	advancing sync.Mutex // held by the one Advance that runs timers

	mu      sync.Mutex // guards the rest; never held while a timer's function runs
	wall    time.Time
	elapsed time.Duration
	timers  []*clockTimer // in the order in which they fire
}

type clockTimer struct {
	due time.Duration // on the monotonic clock
	f   func()
}

// NewClock returns a clock whose wall time is start and whose monotonic time is 0.
func NewClock(start time.Time) *Clock { return &Clock{wall: start.Round(0)} }

// Now returns the wall clock's time, without a monotonic reading: [Clock.Step]
// shows in differences of two Nows, as it must.
func (c *Clock) Now() time.Time {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.wall
}

// Elapsed returns the monotonic clock's time since NewClock. Only Advance moves
// it.
func (c *Clock) Elapsed() time.Duration {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.elapsed
}

// AfterFunc arranges for f to run once the monotonic clock has advanced by d.
// f runs inside the call of [Clock.Advance] that gets there, even if d is not
// positive: until then nothing moves. stop prevents that, and reports whether
// it did; it is false when f ran, is running or was stopped before.
//
// f may call everything but Advance, which would wait for itself. Nor may it
// wait for anything that only time passing brings about.
func (c *Clock) AfterFunc(d time.Duration, f func()) (stop func() bool) {
	c.mu.Lock()
	defer c.mu.Unlock()
	t := &clockTimer{due: c.elapsed + max(d, 0), f: f}
	// After those due at the same moment: first armed, first fired.
	at, _ := slices.BinarySearchFunc(c.timers, t, func(have, want *clockTimer) int {
		if have.due <= want.due {
			return -1
		}
		return 1
	})
	c.timers = slices.Insert(c.timers, at, t)
	return func() bool { return c.remove(t) }
}

func (c *Clock) remove(t *clockTimer) bool {
	c.mu.Lock()
	defer c.mu.Unlock()
	i := slices.Index(c.timers, t)
	if i < 0 {
		return false
	}
	c.timers = slices.Delete(c.timers, i, i+1)
	return true
}

// Advance moves both clocks by d. On the way it runs the timers that fall due,
// one after the other, in the order of their moments and, at one moment, in the
// order in which they were armed; while a timer's function runs, both clocks
// read that moment. Timers that those functions arm run too, if they fall due
// within d. Advance returns when all have run. A negative d is taken as 0.
//
// Calls of Advance wait for one another.
func (c *Clock) Advance(d time.Duration) {
	c.advancing.Lock()
	defer c.advancing.Unlock()
	end := c.Elapsed() + max(d, 0)
	for {
		t := c.next(end)
		if t == nil {
			return
		}
		t.f()
	}
}

// next moves the clocks to the next timer due by end, and takes it off the
// list; without one it moves them to end and returns nil.
func (c *Clock) next(end time.Duration) *clockTimer {
	c.mu.Lock()
	defer c.mu.Unlock()
	if len(c.timers) == 0 || c.timers[0].due > end {
		c.moveTo(end)
		return nil
	}
	t := c.timers[0]
	c.timers = slices.Delete(c.timers, 0, 1)
	c.moveTo(t.due)
	return t
}

func (c *Clock) moveTo(elapsed time.Duration) {
	c.wall = c.wall.Add(elapsed - c.elapsed)
	c.elapsed = elapsed
}

// Step moves the wall clock alone, forwards or backwards, as NTP or an operator
// would. No timer fires: they run by the monotonic clock.
func (c *Clock) Step(d time.Duration) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.wall = c.wall.Add(d)
}

// Pending returns how many timers are waiting.
func (c *Clock) Pending() int {
	c.mu.Lock()
	defer c.mu.Unlock()
	return len(c.timers)
}
