package main

import "time"

// What a vault and its clients do. Limits: Azure Key Vault's documented ones, RSA-2048, all callers
// together. The rest is what keyring and vault/azure do by default.
const (
	window        = 10 * time.Second
	limitSoftware = 4000
	limitHSM      = 2000
	callTakes     = 20 * time.Millisecond
	callsOfCheck  = 3 // and of opening a store
	checkEvery    = time.Minute
	lease         = 10 * time.Minute
	tries         = 3 // of a call that was throttled, with a pause that doubles
	firstPause    = 800 * time.Millisecond
	budgetWait    = 7 * time.Second // three quarters of the 9 s that a call may take
)

// vault serves a number of calls in any 10 seconds and refuses the others.
type vault struct {
	s         *sim
	limit     int
	served    []time.Duration // when, of the last 10 seconds
	most      int             // in any 10 seconds
	calls     int
	throttled int
}

// call has done called with whether the vault has answered, after some tries.
func (v *vault) call(try int, done func(ok bool)) {
	v.calls++
	for len(v.served) > 0 && v.served[0] <= v.s.now-window {
		v.served = v.served[1:]
	}
	if len(v.served) < v.limit {
		v.served = append(v.served, v.s.now)
		v.most = max(v.most, len(v.served))
		v.s.after(callTakes, func() { done(true) })
		return
	}
	v.throttled++
	if try+1 == tries {
		v.s.after(callTakes, func() { done(false) })
		return
	}
	pause := firstPause << try
	v.s.after(v.s.between(pause, 2*pause), func() { v.call(try+1, done) })
}

// three makes the calls of a check or of an opening, one after the other.
func (v *vault) three(n int, done func(ok bool)) {
	if n == callsOfCheck {
		done(true)
		return
	}
	v.call(0, func(ok bool) {
		if !ok {
			done(false)
			return
		}
		v.three(n+1, done)
	})
}

// checked is what checks of a fleet come to, in an hour.
type checked struct {
	processes, stores int
	most              int     // calls in any 10 seconds
	failed            float64 // share of the checks that had no answer
	ended             int     // leases that ended
}

// checks has each of the stores that each process has open checked every minute, or so seldom as every.
func checks(seed uint64, processes, stores, limit int, every time.Duration) checked {
	s := newSim(seed)
	v := &vault{s: s, limit: limit}
	c := checked{processes: processes, stores: stores}
	made, failed := 0, 0
	for range processes * stores {
		renewed, ended := time.Duration(0), false
		var check func()
		check = func() {
			sent := s.now
			made++
			v.three(0, func(ok bool) {
				if !ok {
					failed++
				} else {
					renewed, ended = sent, false
				}
				if !ended && s.now-renewed > lease {
					ended = true
					c.ended++
				}
				s.after(s.between(every*9/10, every), check)
			})
		}
		s.after(s.between(0, every), check)
	}
	s.run(time.Hour)
	c.most, c.failed = v.most, float64(failed)/float64(made)
	return c
}

// restarted is what a restart of a whole fleet comes to.
type restarted struct {
	processes, stores int
	budget            int // calls in 10 seconds of each process; 0: as many as it likes
	half, all         time.Duration
	throttled         float64 // share of the calls
}

// restart has all processes start within a second, each of which opens its stores, 8 at once, as a DB
// does with the stores of one vault. One that does not open is tried again.
func restart(seed uint64, processes, stores, limit, budget int) restarted {
	s := newSim(seed)
	v := &vault{s: s, limit: limit}
	r := restarted{processes: processes, stores: stores, budget: budget}
	opened := 0
	for range processes {
		left, spent := stores, []time.Duration{}
		// turn is when the process's own budget has room for three calls.
		turn := func() time.Duration {
			if budget == 0 {
				return 0
			}
			at := s.now
			if n := len(spent) - (budget/callsOfCheck - 1); n > 0 {
				at = max(at, spent[n-1]+window)
			}
			spent = append(spent, at)
			return at - s.now
		}
		var open func()
		open = func() {
			if left == 0 {
				return
			}
			left--
			s.after(turn(), func() {
				v.three(0, func(ok bool) {
					if !ok {
						left++
					} else if opened++; opened == processes*stores/2 {
						r.half = s.now
					} else if opened == processes*stores {
						r.all = s.now
					}
					open()
				})
			})
		}
		start := s.between(0, time.Second)
		for range 8 {
			s.after(start, open)
		}
	}
	s.run(24 * time.Hour)
	r.throttled = float64(v.throttled) / float64(v.calls)
	return r
}
