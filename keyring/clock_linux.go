package keyring

import (
	"time"

	"golang.org/x/sys/unix"
)

// bootTime is CLOCK_BOOTTIME, which unlike CLOCK_MONOTONIC, Go's clock, goes on while
// the machine is suspended; see clock_gettime(2). Neither goes on in a virtual machine
// that was stopped, or resumed from a snapshot: only its wall clock shows that, once it
// is right again.
func bootTime() (time.Duration, bool) {
	var ts unix.Timespec
	if unix.ClockGettime(unix.CLOCK_BOOTTIME, &ts) != nil {
		return 0, false
	}
	return time.Duration(ts.Nano()), true
}
