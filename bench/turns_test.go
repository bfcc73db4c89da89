package bench

import (
	"testing"
	"time"
)

// turns measures op in turns with the baseline that it is compared with, and reports what
// that took as name-ns/op: whatever else the machine or its disk does meanwhile, it does to
// both. A turn is so many operations, enough of them that stopping the timer does not count.
// The baseline in turns with itself says how much of a ratio is noise.
func turns(b *testing.B, turn int, op func() error, name string, base func() error) {
	var took time.Duration
	bases := 0
	yield := func() {
		b.StopTimer()
		start := time.Now()
		for range turn {
			if err := base(); err != nil {
				b.Fatal(err)
			}
		}
		took += time.Since(start)
		bases += turn
		b.StartTimer()
	}
	n := 0
	for b.Loop() {
		if n == turn {
			yield()
			n = 0
		}
		n++
		if err := op(); err != nil {
			b.Fatal(err)
		}
	}
	if bases == 0 { // a run of a few operations, to see that all works
		yield()
	}
	b.ReportMetric(float64(took.Nanoseconds())/float64(bases), name+"-ns/op")
}
