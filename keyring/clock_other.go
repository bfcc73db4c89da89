//go:build !linux

package keyring

import "time"

// bootTime is for Linux alone. Elsewhere the watch of the wall clock is what notices
// that the machine was suspended, if the monotonic clock stands still then.
func bootTime() (time.Duration, bool) { return 0, false }
