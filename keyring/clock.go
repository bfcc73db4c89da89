package keyring

import (
	"sync/atomic"
	"time"

	"github.com/blockseal/blockseal/vault"
)

// wallClock is a caller's clock without the monotonic readings that its times may have.
// Package time compares two times that have them by them alone: the difference of two
// then does not show that the wall clock was set, or that the machine was suspended,
// and that is what a keyring compares wall times for.
type wallClock struct{ vault.Clock }

func (c wallClock) Now() time.Time { return c.Clock.Now().Round(0) }

// lookEvery is how much time of the monotonic clock may pass between two looks at how
// long the machine has been suspended.
const lookEvery = 100 * time.Millisecond

// systemClock is the system's. Its Elapsed is the monotonic clock, which in Go on Linux
// stands still while the machine is suspended, plus the time of the suspensions so far.
// Those are read from a clock that goes on, where the system has one. Reading that is a
// system call, ten times as slow as the monotonic clock and too slow for each operation,
// so that it is done ten times a second at the most: after a suspension an operation may
// still see the time from before for a tenth of a second.
type systemClock struct {
	origin time.Time
	boot   func() (time.Duration, bool) // goes on while suspended; false: there is none
	booted time.Duration                // boot at origin

	asleep atomic.Int64 // nanoseconds of suspensions since origin, or a little less
	looked atomic.Int64 // the monotonic clock at the last look, nanoseconds since origin
}

func newSystemClock() *systemClock { return newClockOn(bootTime) }

func newClockOn(boot func() (time.Duration, bool)) *systemClock {
	c := &systemClock{origin: time.Now(), boot: boot}
	c.booted, _ = boot()
	return c
}

// Now is without a monotonic reading; see wallClock.
func (*systemClock) Now() time.Time { return time.Now().Round(0) }

// Elapsed reads the monotonic clock alone, which costs half of time.Now, and looks at
// the other when it is time to.
func (c *systemClock) Elapsed() time.Duration {
	now := time.Since(c.origin)
	if last := c.looked.Load(); now-time.Duration(last) >= lookEvery && c.looked.CompareAndSwap(last, int64(now)) {
		c.look()
	}
	return now + time.Duration(c.asleep.Load())
}

// look takes in what the machine has slept since the last look. The monotonic clock is
// read second, so that a pause between the two makes the difference too small, never too
// large, and the next look makes up for it. It only grows: Elapsed never goes back.
func (c *systemClock) look() {
	boot, ok := c.boot()
	if !ok {
		return
	}
	slept := int64(boot - c.booted - time.Since(c.origin))
	for {
		known := c.asleep.Load()
		if slept <= known || c.asleep.CompareAndSwap(known, slept) {
			return
		}
	}
}

func (*systemClock) AfterFunc(d time.Duration, f func()) func() bool {
	return time.AfterFunc(d, f).Stop
}
