// Package bubbles runs tests in bubbles of package testing/synctest, also with nothing but
// the FIPS 140-3 module's cryptography.
package bubbles

import (
	"crypto/fips140"
	"crypto/rand"
	"encoding/binary"
	"testing"
	"testing/cryptotest"
	"testing/synctest"
	"time"

	"github.com/blockseal/blockseal/vault"
)

// Test runs f in a bubble, where time stands still until nothing else is left to do.
//
// In FIPS mode, a random generator (SP 800-90A) is seeded from how a clock jitters, and
// in a bubble the clock does not: Go gives up with "failed to obtain initial entropy". It seeds a
// generator whenever two goroutines read at the same time and there was only one, so this
// happens rarely and anywhere. In that mode the bubble's randomness comes from a reader that
// is seeded here, outside of it. t must not be parallel, nor a part of a parallel test.
func Test(t *testing.T, f func(t *testing.T)) {
	t.Helper()
	if fips140.Enabled() {
		var seed [8]byte
		rand.Read(seed[:])
		// The variable stays as it is, since that mode takes no other reader: what is
		// beneath it is exchanged.
		reader := rand.Reader
		cryptotest.SetGlobalRandom(t, binary.LittleEndian.Uint64(seed[:]))
		rand.Reader = reader
	}
	synctest.Test(t, f)
}

// Resting is a clock for bubbles that stands still, when a timer has fired, until what the timer
// set off has come to rest. What it set off on another goroutine would otherwise come at that
// moment or up to a step of the clock later, as the goroutine happens to run; and the next of
// several waits in a row would begin at the end of the step in which the clock was moved.
type Resting struct{ vault.Clock }

// AfterFunc implements [vault.Clock].
func (c Resting) AfterFunc(d time.Duration, f func()) (stop func() bool) {
	return c.Clock.AfterFunc(d, func() {
		f()
		synctest.Wait()
	})
}
