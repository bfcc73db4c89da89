// Package seldom has the tests of a package collect garbage less often. A store in memory
// is made, filled and thrown away in milliseconds, over and over; by Go's default a quarter of
// the processor time of such tests is the collector's.
package seldom

import (
	"os"
	"runtime/debug"
)

// percent of what lives after a collection that is allocated before the next one: a few
// hundred MB at most in these tests.
const percent = 400

// Collect is called by TestMain before the tests run. A GOGC of the environment's goes first:
// GOGC=100 is Go's default. A test that is about what is collected calls runtime.GC.
func Collect() {
	if os.Getenv("GOGC") == "" {
		debug.SetGCPercent(percent)
	}
}
