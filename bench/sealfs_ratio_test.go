package bench

import (
	"slices"
	"testing"
	"time"

	"github.com/cockroachdb/pebble/v2"
)

// rounds does op and base in turns, so many of each in a round, and reports the medians over the rounds
// of how often what op takes goes into what base takes: of processor time (cpu) and of the time that
// passes (wall). 1 is as fast, 0.5 takes twice as long. On a machine that others use too the first says more
// of what is computed. The rounds begin with one and with the other by turns.
func rounds(b *testing.B, turn int, op, base func() error) {
	var cpu, wall []float64
	measure := func(do func() error) (c, w time.Duration) {
		start, computed := time.Now(), processorTime()
		for range turn {
			if err := do(); err != nil {
				b.Fatal(err)
			}
		}
		return processorTime() - computed, time.Since(start)
	}
	for i := 0; b.Loop(); i++ {
		var oc, ow, bc, bw time.Duration
		if i%2 == 0 {
			oc, ow = measure(op)
			bc, bw = measure(base)
		} else {
			bc, bw = measure(base)
			oc, ow = measure(op)
		}
		cpu = append(cpu, float64(bc)/float64(oc))
		wall = append(wall, float64(bw)/float64(ow))
	}
	slices.Sort(cpu)
	slices.Sort(wall)
	b.ReportMetric(cpu[len(cpu)/2], "cpu")
	b.ReportMetric(wall[len(wall)/2], "wall")
}

// BenchmarkFilesRatio is what docs/performance.md has of a Pebble on sealed files.
//
//	go -C bench test -run '^$' -bench FilesRatio -benchtime 101x .
func BenchmarkFilesRatio(b *testing.B) {
	const n = 20_000
	for _, c := range fileGets() {
		b.Run("get/"+c.name+"/"+c.String(), func(b *testing.B) {
			sealed, plain := c.pair(b, n)
			rounds(b, 1000, c.get(sealed, n), c.get(plain, n))
		})
	}
	for _, c := range []filesCase{{size: 4096, blockCache: 1 << 20}, {size: 400, compress: true, blockCache: 1 << 20}} {
		b.Run("scan/"+c.String(), func(b *testing.B) {
			sealed, plain := c.pair(b, n)
			scan := func(db *pebble.DB) func() error {
				it, err := db.NewIter(nil)
				if err != nil {
					b.Fatal(err)
				}
				b.Cleanup(func() { it.Close() })
				valid := it.First()
				return func() error { // a hundred values further, from the start again at the end
					for range 100 {
						if !valid {
							valid = it.First()
						}
						if _, err := it.ValueAndErr(); err != nil {
							return err
						}
						valid = it.Next()
					}
					return it.Error()
				}
			}
			rounds(b, 20, scan(sealed), scan(plain))
		})
	}
}
