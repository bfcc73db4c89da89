package main

import (
	"container/heap"
	"math/rand/v2"
	"time"
)

// sim is a simulated time and what happens in it. Of what happens at one moment, what was asked for
// first comes first, so that a seed always gives the same.
type sim struct {
	now   time.Duration
	queue events
	asked uint64
	rng   *rand.Rand
}

func newSim(seed uint64) *sim { return &sim{rng: rand.New(rand.NewPCG(seed, 0))} }

// after has f happen after d.
func (s *sim) after(d time.Duration, f func()) {
	s.asked++
	heap.Push(&s.queue, event{s.now + max(d, 0), s.asked, f})
}

// run goes on until nothing is left to happen, or until the time is end.
func (s *sim) run(end time.Duration) {
	for len(s.queue) > 0 && s.queue[0].at <= end {
		e := heap.Pop(&s.queue).(event)
		s.now = e.at
		e.f()
	}
}

// between returns a time from low to high.
func (s *sim) between(low, high time.Duration) time.Duration {
	return low + time.Duration(s.rng.Float64()*float64(high-low))
}

// about returns a time of an exponential distribution.
func (s *sim) about(mean time.Duration) time.Duration {
	return time.Duration(s.rng.ExpFloat64() * float64(mean))
}

type event struct {
	at  time.Duration
	nth uint64
	f   func()
}

type events []event

func (e events) Len() int      { return len(e) }
func (e events) Swap(i, j int) { e[i], e[j] = e[j], e[i] }
func (e events) Less(i, j int) bool {
	return e[i].at < e[j].at || e[i].at == e[j].at && e[i].nth < e[j].nth
}
func (e *events) Push(x any) { *e = append(*e, x.(event)) }
func (e *events) Pop() any {
	last := (*e)[len(*e)-1]
	*e = (*e)[:len(*e)-1]
	return last
}

// server serves requests in the order in which they come, as many at once as it has cores.
type server struct {
	s     *sim
	cores int
	busy  int
	line  []request
}

type request struct {
	takes time.Duration
	done  func()
}

// ask has done called when the request has been served.
func (v *server) ask(takes time.Duration, done func()) {
	if v.busy == v.cores {
		v.line = append(v.line, request{takes, done})
		return
	}
	v.serve(request{takes, done})
}

func (v *server) serve(r request) {
	v.busy++
	v.s.after(r.takes, func() {
		v.busy--
		if len(v.line) > 0 {
			next := v.line[0]
			v.line = v.line[1:]
			v.serve(next)
		}
		r.done()
	})
}
