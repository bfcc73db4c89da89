package bench

import (
	"fmt"
	"runtime"
	"runtime/debug"
	"runtime/metrics"
	"slices"
	"sync"
	"testing"
	"time"
)

// BenchmarkMixed is how long single Gets and Puts take in a program that is not idle: 8 goroutines, nine
// Gets for each Put, beside 1 GiB of live heap that the collector marks, with GOGC 100 and a GOMEMLIMIT
// of 256 MiB more than there is once both stores are filled, so that the collector runs as it does where
// memory is scarce. Plain Pebble does the same in turns with it. Each turn begins after a collection,
// so that one within it was brought about by that side. An operation is one of the ten; what the clock's two
// readings take is in each. impl=kept is the bound: the least work in blockseal's place, with all rows in memory.
func BenchmarkMixed(b *testing.B) {
	const goroutines, n, size = 8, 10_000, 4 << 10
	live, turn := int64(1<<30), 1_000_000
	if testing.Short() {
		live, turn = 16<<20, 2_000
	}
	heap := liveHeap(live)
	defer runtime.KeepAlive(heap)
	defer debug.SetGCPercent(debug.SetGCPercent(100))

	for _, impl := range []struct {
		name string
		open opener
	}{{"blockseal", blockseal(nil)}, {"kept", openKept(random(32))}} {
		b.Run(fmt.Sprintf("size=%d/impl=%s", size, impl.name), func(b *testing.B) {
			data := random(size)
			side := func(o opener) *mixed {
				s := filled(b, o, false, n, size)
				m := &mixed{s: s, data: data, goroutines: goroutines, n: n}
				for range 2 { // what is read once is not kept
					buf, dst := make([]byte, 0, 8), make([]byte, 0, size)
					for i := range n {
						if _, err := s.get(id(buf, i, n), dst); err != nil {
							b.Fatal(err)
						}
					}
				}
				return m
			}
			own, plain := side(impl.open), side(openPebble)
			runtime.GC()
			var m runtime.MemStats
			runtime.ReadMemStats(&m)
			defer debug.SetMemoryLimit(debug.SetMemoryLimit(int64(m.Sys-m.HeapIdle) + 256<<20))
			b.ResetTimer()
			for left := b.N; left > 0; left -= turn {
				ops := min(left, turn)
				for _, m := range []*mixed{own, plain} {
					b.StopTimer()
					runtime.GC()
					if m == own {
						b.StartTimer()
					}
					if err := m.run(max(ops/goroutines, 1)); err != nil {
						b.Fatal(err)
					}
				}
			}
			b.StopTimer()
			for _, op := range []struct {
				name        string
				own, others []time.Duration
			}{{"get", own.gets, plain.gets}, {"put", own.puts, plain.puts}} {
				slices.Sort(op.own)
				slices.Sort(op.others)
				for _, q := range []struct {
					name string
					at   float64
				}{{"p50", 0.5}, {"p99", 0.99}, {"p99.9", 0.999}} {
					its, others := quantile(op.own, q.at), quantile(op.others, q.at)
					b.ReportMetric(float64(its), op.name+"-"+q.name+"-ns")
					b.ReportMetric(float64(its)/float64(max(others, 1)), op.name+"-"+q.name+"-times")
				}
			}
			b.ReportMetric(own.collecting/max(own.computing, 1).Seconds(), "gc-share")
			b.ReportMetric(plain.collecting/max(plain.computing, 1).Seconds(), "pebble-gc-share")
			b.ReportMetric(float64(own.allocated)/float64(len(own.gets)+len(own.puts)), "B-alloc/op")
			b.ReportMetric(float64(plain.allocated)/float64(len(plain.gets)+len(plain.puts)), "pebble-B-alloc/op")
		})
	}
}

// mixed is one side of BenchmarkMixed, and what it took.
type mixed struct {
	s             kv
	data          []byte
	goroutines, n int
	at            int // where the next turn goes on

	gets, puts []time.Duration
	collecting float64       // seconds of processor time in collections that ended within turns
	computing  time.Duration // processor time of the turns
	allocated  uint64
}

// run has each goroutine do so many operations.
func (m *mixed) run(each int) error {
	type took struct {
		gets, puts []time.Duration
		err        error
	}
	all := make([]took, m.goroutines)
	for g := range all {
		all[g].gets, all[g].puts = make([]time.Duration, 0, each), make([]time.Duration, 0, each/10+1)
	}
	collecting, allocated := collector()
	computing := processorTime()
	var wg sync.WaitGroup
	for g := range all {
		from := m.at + g*m.n/m.goroutines
		wg.Go(func() {
			t := &all[g]
			buf, dst := make([]byte, 0, 8), make([]byte, 0, len(m.data))
			for i := from; i < from+each && t.err == nil; i++ {
				start := time.Now()
				if i%10 == 0 {
					t.err = m.s.put([][2][]byte{{id(buf, i, m.n), m.data}})
					t.puts = append(t.puts, time.Since(start))
				} else {
					_, t.err = m.s.get(id(buf, i, m.n), dst)
					t.gets = append(t.gets, time.Since(start))
				}
			}
		})
	}
	wg.Wait()
	m.at += each
	m.computing += processorTime() - computing
	collected, made := collector()
	m.collecting += collected - collecting
	m.allocated += made - allocated
	for _, t := range all {
		if t.err != nil {
			return t.err
		}
		m.gets, m.puts = append(m.gets, t.gets...), append(m.puts, t.puts...)
	}
	return nil
}

// collector returns the seconds of processor time that ended collections have taken, and the bytes that
// were allocated.
func collector() (seconds float64, allocated uint64) {
	s := []metrics.Sample{{Name: "/cpu/classes/gc/total:cpu-seconds"}, {Name: "/cpu/classes/gc/mark/idle:cpu-seconds"}, {Name: "/gc/heap/allocs:bytes"}}
	metrics.Read(s)
	return s[0].Value.Float64() - s[1].Value.Float64(), s[2].Value.Uint64()
}

// quantile is one of sorted times, or 0 if there are none.
func quantile(sorted []time.Duration, at float64) time.Duration {
	if len(sorted) == 0 {
		return 0
	}
	return sorted[min(int(at*float64(len(sorted))), len(sorted)-1)]
}

// node is a piece of a live heap: the collector follows its pointer and looks at the rest.
type node struct {
	next *node
	_    [63]*node
}

// liveHeap is so many bytes that the collector has to mark.
func liveHeap(bytes int64) []*node {
	nodes := make([]*node, bytes/512)
	for i := range nodes {
		nodes[i] = &node{}
		if i > 0 {
			nodes[i].next = nodes[i*7919%i]
		}
	}
	return nodes
}
