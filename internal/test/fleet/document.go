package main

import "time"

// What a load or a swap of the keyring document takes of a core, by BenchmarkPostgresDocument with 64
// contenders on two busy cores, before they waited: 390 attempts in 79 ms for 1 KiB, 458 in 497 ms for 64 KiB.
const (
	askSmall = 200 * time.Microsecond  // 1 KiB: a few epochs
	askLarge = 1100 * time.Microsecond // 64 KiB: 1,250 epochs
	bears    = 256                     // swaps that a keyring loses in a row before its write fails
)

// contended is what it comes to that all processes replace the document at once, as when an epoch was
// begun and each reserves of it.
type contended struct {
	processes int
	all       time.Duration // until the last one has
	lost      float64       // swaps that were lost, for each that was not
	inARow    int           // that one process lost, at the most
	failed    int           // processes that lost more than a keyring bears
}

// contend has each process load the document and swap it, and begin again if another one was first. With
// backoff it waits a random time before, which doubles with each swap that it lost.
func contend(seed uint64, processes, cores int, ask time.Duration, backoff bool) contended {
	s := newSim(seed)
	v := &server{s: s, cores: cores}
	c := contended{processes: processes}
	generation, lost := 0, 0
	for range processes {
		in := 0
		var try func()
		try = func() {
			v.ask(ask, func() {
				loaded := generation
				v.ask(ask, func() {
					if loaded == generation {
						generation++
						c.all = s.now
						c.inARow = max(c.inARow, in)
						return
					}
					lost++
					if in++; in == bears {
						c.failed++
						c.inARow = in
						return
					}
					if backoff {
						pause := time.Millisecond << min(in, 12)
						s.after(s.between(pause/4, pause), try)
					} else {
						try()
					}
				})
			})
		}
		s.after(s.between(0, 10*time.Millisecond), try) // the next write of each
	}
	s.run(time.Hour)
	c.lost = float64(lost) / float64(max(generation, 1))
	return c
}

// What an epoch has: its limit, how many a document has room for that begin by themselves, and the
// first slice of a keyring among many.
const (
	epochDEKs  = 1 << 28
	autoEpochs = 4096 - 64
)

// reserved is what the reservations of a fleet come to, in a day.
type reserved struct {
	processes int
	epochs    int           // that began by themselves
	saves     float64       // of the document, a second
	full      time.Duration // when there was no room for another epoch; 0: never
}

// reserve has each process write so many DEKs a second, take up the latest epoch at each check, and
// reserve a slice of it when it has none: a 64th of an epoch, or, growing, a 65,536th at first and then as much
// again as it has taken.
func reserve(seed uint64, processes int, rate float64, growing bool) reserved {
	s := newSim(seed)
	r := reserved{processes: processes}
	epoch, used, saves := 1, 0, 0 // of the stored document
	const day = 24 * time.Hour
	for range processes {
		known, left, took := 0, 0.0, 0
		var tick func()
		tick = func() { // at each check
			if r.full > 0 {
				return
			}
			if known != epoch {
				known, left, took = epoch, 0, 0
			}
			for left -= rate * checkEvery.Seconds(); left <= 0; {
				slice := epochDEKs / 64
				if growing {
					slice = min(slice, max(epochDEKs/65536, took))
				}
				saves++
				if used >= epochDEKs {
					if r.epochs++; r.epochs == autoEpochs {
						r.full = s.now
						return
					}
					epoch, used = epoch+1, 0
				}
				if known != epoch {
					known, left, took = epoch, min(left, 0), 0
					continue
				}
				used += slice
				took += slice
				left += float64(slice)
			}
			s.after(s.between(checkEvery*9/10, checkEvery), tick)
		}
		s.after(s.between(0, checkEvery), tick)
	}
	s.run(day)
	over := day
	if r.full > 0 {
		over = r.full
	}
	r.saves = float64(saves) / over.Seconds()
	return r
}
