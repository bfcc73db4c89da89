package keyring

import "time"

// Clock tells the time and rings timers. The zero Options use the system's;
// vault/vaulttest has one for tests. It is safe for concurrent use.
type Clock interface {
	// Now is the wall clock, for the dates of keys and events. It may step.
	Now() time.Time
	// Elapsed is the time since an arbitrary origin. It never goes back and does
	// not follow steps of the wall clock: leases run on it.
	Elapsed() time.Duration
	// AfterFunc calls f once when d has elapsed, unless stop is called before.
	// stop reports whether it prevented the call.
	AfterFunc(d time.Duration, f func()) (stop func() bool)
}

type systemClock struct{ origin time.Time }

func newSystemClock() *systemClock { return &systemClock{origin: time.Now()} }

func (*systemClock) Now() time.Time { return time.Now() }

// Elapsed reads the monotonic clock alone, which costs half of time.Now. On Linux
// it stands still while the machine is suspended; see watch in monitor.go.
func (c *systemClock) Elapsed() time.Duration { return time.Since(c.origin) }

func (*systemClock) AfterFunc(d time.Duration, f func()) func() bool {
	return time.AfterFunc(d, f).Stop
}
