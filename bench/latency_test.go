package bench

import (
	"fmt"
	"slices"
	"testing"
	"time"
)

// BenchmarkLatency is how long single operations take: the median and the two tails. The
// time of reading the clock, about 20 ns, is in each.
func BenchmarkLatency(b *testing.B) {
	const size = 4 << 10
	data := random(size)
	for _, im := range implementations() {
		b.Run(fmt.Sprintf("op=put/size=%d/impl=%s", size, im.name), func(b *testing.B) {
			s := open(b, im.open, false)
			buf := make([]byte, 0, 8)
			latency(b, func(i int) error { return s.put([][2][]byte{{id(buf, i, 10_000), data}}) })
		})
	}
	for _, im := range implementations() {
		b.Run(fmt.Sprintf("op=get/size=%d/impl=%s", size, im.name), func(b *testing.B) {
			const n = 10_000
			s := filled(b, im.open, false, n, size)
			buf, dst := make([]byte, 0, 8), make([]byte, 0, size)
			get := func(i int) error { _, err := s.get(id(buf, i, n), dst); return err }
			for i := range 2 * n {
				if err := get(i); err != nil {
					b.Fatal(err)
				}
			}
			latency(b, get)
		})
	}
	b.Run(fmt.Sprintf("op=seal/size=%d/impl=blockseal", size), func(b *testing.B) {
		s := newSealer(newKeyring(b), size)
		latency(b, func(int) error { return s.seal(data) })
	})
}

func latency(b *testing.B, op func(i int) error) {
	took := make([]time.Duration, 0, b.N)
	b.ReportAllocs()
	b.ResetTimer()
	for i := range b.N {
		start := time.Now()
		if err := op(i); err != nil {
			b.Fatal(err)
		}
		took = append(took, time.Since(start))
	}
	b.StopTimer()
	slices.Sort(took)
	for _, q := range []struct {
		name string
		at   float64
	}{{"p50-ns", 0.5}, {"p99-ns", 0.99}, {"p99.9-ns", 0.999}} {
		b.ReportMetric(float64(took[min(int(q.at*float64(len(took))), len(took)-1)]), q.name)
	}
}
