package vault

import "time"

// Clock tells the time and rings timers. Whatever takes one in its options uses the system's if
// it is given none, and part of the methods if that is all that it needs: one clock serves a
// program's keyrings, stores, vaults and audit logs together. vault/vaulttest has one for tests.
// It is safe for concurrent use.
type Clock interface {
	// Now is the wall clock, for the dates of keys and events. It may step. Of a time
	// that has a monotonic reading beside the wall clock's (see package time) a keyring
	// uses the wall clock's.
	Now() time.Time
	// Elapsed is the time since an arbitrary origin. It never goes back and does
	// not follow steps of the wall clock: leases run on it. It should go on while the
	// machine is suspended.
	Elapsed() time.Duration
	// AfterFunc calls f once when d has elapsed, unless stop is called before.
	// stop reports whether it prevented the call. It may come late after the machine
	// was suspended.
	AfterFunc(d time.Duration, f func()) (stop func() bool)
}

// SystemClock is the system's clock, for a vault that is given none. Its Elapsed is Go's
// monotonic clock, which on Linux stands still while the machine is suspended; that is right for
// timeouts and budgets. A keyring has a clock of its own that counts suspensions.
func SystemClock() Clock { return systemClock{time.Now()} }

type systemClock struct{ origin time.Time }

func (systemClock) Now() time.Time           { return time.Now() }
func (c systemClock) Elapsed() time.Duration { return time.Since(c.origin) }
func (systemClock) AfterFunc(d time.Duration, f func()) func() bool {
	return time.AfterFunc(d, f).Stop
}
