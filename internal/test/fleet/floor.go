package main

import (
	"slices"
	"time"
)

// What a write and a question of a raise cost a core, by BenchmarkPostgresPut with 32 connections: 6.8 ms
// for a put on two busy cores, of which each has 16 before it.
const putTakes = 430 * time.Microsecond

// raised is what raising the floor comes to while others write.
type raised struct {
	writers, cores int
	median, most   time.Duration
	put            time.Duration // the median put meanwhile
}

// raise has writers write without a pause, and raises the floor a hundred times: a change of the floor, a
// look at who has the table locked, and then looks until each of those has ended, with pauses from 0.25 to 1.25 ms that
// double after every four.
func raise(seed uint64, writers, cores int) raised {
	s := newSim(seed)
	v := &server{s: s, cores: cores}
	under := map[int]bool{} // writes that are under way, by number
	n := 0
	var puts, raises []time.Duration
	var write func()
	write = func() {
		n++
		mine, began := n, s.now
		under[mine] = true
		v.ask(s.about(putTakes), func() {
			delete(under, mine)
			puts = append(puts, s.now-began)
			s.after(s.about(putTakes/4), write) // the program's own time
		})
	}
	for range writers {
		s.after(s.between(0, 10*time.Millisecond), write)
	}
	var lift func()
	lift = func() {
		began := s.now
		v.ask(s.about(putTakes), func() {
			v.ask(s.about(putTakes), func() {
				who := map[int]bool{}
				for w := range under {
					who[w] = true
				}
				var look func(try int)
				look = func(try int) {
					v.ask(s.about(putTakes), func() {
						for w := range who {
							if !under[w] {
								delete(who, w)
							}
						}
						if len(who) > 0 {
							unit := time.Millisecond << min(try/4, 7)
							s.after(s.between(unit/4, unit*5/4), func() { look(try + 1) })
							return
						}
						if raises = append(raises, s.now-began); len(raises) < 100 {
							s.after(10*time.Millisecond, lift)
						}
					})
				}
				look(0)
			})
		})
	}
	s.after(time.Second, lift)
	for s.run(s.now + time.Second); len(raises) < 100; s.run(s.now + time.Second) {
	}
	slices.Sort(raises)
	slices.Sort(puts)
	return raised{writers, cores, raises[len(raises)/2], raises[len(raises)-1], puts[len(puts)/2]}
}
