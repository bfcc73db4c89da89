package keyring

import (
	"testing"
	"time"

	"github.com/stretchr/testify/require"
	"golang.org/x/sys/unix"
)

// The kernel's clock that goes on in a suspension is there, is never behind the one that
// stands still, and moves.
func TestBootTime(t *testing.T) {
	for range 3 {
		var ts unix.Timespec
		require.NoError(t, unix.ClockGettime(unix.CLOCK_MONOTONIC, &ts))
		boot, ok := bootTime()
		require.True(t, ok)
		require.GreaterOrEqual(t, boot, time.Duration(ts.Nano()))
		for again := boot; again < boot+10*time.Millisecond; {
			again, ok = bootTime()
			require.True(t, ok)
		}
	}
}
