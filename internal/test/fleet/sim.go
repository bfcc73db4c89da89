package main

import (
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
	s.queue.push(event{s.now + max(d, 0), s.asked, f})
}

// run goes on until nothing is left to happen, or until the time is end.
func (s *sim) run(end time.Duration) {
	for len(s.queue) > 0 && s.queue[0].at <= end {
		e := s.queue.pop()
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

func (e event) before(o event) bool { return e.at < o.at || e.at == o.at && e.nth < o.nth }

// events is a heap, of which each node has four below it: container/heap takes 1.7 times as long,
// and TestScaleHasTheTables runs all of docs/scale.md.
type events []event

const below = 4

func (q *events) push(e event) {
	*q = append(*q, e)
	h := *q
	at := len(h) - 1
	for at > 0 {
		up := (at - 1) / below
		if !e.before(h[up]) {
			break
		}
		h[at], at = h[up], up
	}
	h[at] = e
}

func (q *events) pop() (first event) {
	h := *q
	first = h[0]
	end := len(h) - 1
	e := h[end]
	h[end] = event{}
	*q = h[:end]
	h = h[:end]
	if end == 0 {
		return first
	}
	at := 0
	for {
		least := at
		for i := below*at + 1; i <= min(below*at+below, end-1); i++ {
			if least == at && h[i].before(e) || least != at && h[i].before(h[least]) {
				least = i
			}
		}
		if least == at {
			break
		}
		h[at], at = h[least], least
	}
	h[at] = e
	return first
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
