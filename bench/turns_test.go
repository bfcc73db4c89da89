package bench

import (
	"math/rand/v2"
	"slices"
	"testing"
	"time"
)

// turns measures op in turns with the baseline that it is compared with, and reports what
// that took as name-ns/op: whatever else the machine or its disk does meanwhile, it does to
// both. A turn is about so many operations, enough of them that stopping the timer does not count, and of turns of
// many not each time as many: else a collection, which comes after so many allocations, could come in one
// side's turns each time. It
// also reports the rate of op in times of the baseline's, the median over the pairs of turns, as name-rate: one
// pair that met something else on the machine is one of many there, and does not weigh what it took.
// The baseline in turns with itself says how much of a ratio is noise.
func turns(b *testing.B, turn int, op func() error, name string, base func() error) {
	var took time.Duration
	bases := 0
	var rates []float64
	length := func() int {
		if turn < 16 {
			return turn
		}
		return turn/2 + rand.IntN(turn)
	}
	this := length()
	began := time.Now()
	yield := func(ops int) {
		own := time.Since(began).Seconds() / float64(ops)
		b.StopTimer()
		start := time.Now()
		for range ops {
			if err := base(); err != nil {
				b.Fatal(err)
			}
		}
		all := time.Since(start)
		took += all
		bases += ops
		rates = append(rates, all.Seconds()/float64(ops)/own)
		b.StartTimer()
		began = time.Now()
	}
	n := 0
	for b.Loop() {
		if n == this {
			yield(n)
			n, this = 0, length()
		}
		n++
		if err := op(); err != nil {
			b.Fatal(err)
		}
	}
	if bases == 0 { // a run of a few operations, to see that all works
		yield(max(n, 1))
	}
	slices.Sort(rates)
	b.ReportMetric(rates[len(rates)/2], name+"-rate")
	b.ReportMetric(float64(took.Nanoseconds())/float64(bases), name+"-ns/op")
}
