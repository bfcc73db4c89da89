package block

import (
	"context"
	"errors"
	"maps"
	"slices"
	"time"

	"github.com/blockseal/blockseal/internal/catalogue"
	"github.com/blockseal/blockseal/internal/tally"
	"github.com/blockseal/blockseal/keyring"
	"github.com/blockseal/blockseal/vault"
)

// watch is what a DB remembers of its stores beyond the time that each is open, for [DB.Stats]. All
// of it is under DB.mu.
type watch struct {
	failed   map[string]failedOpening // by name: stores that could not be opened the last time
	drops    map[string]dropUnderWay  // by name: those of this DB whose mark was made, and that have not succeeded
	finished []Trouble                // drops that OpenDB has finished
	past     totals                   // of the stores that were open and are not any more
	census   census
}

// watchedOpenings is how many stores that could not be opened are remembered.
const watchedOpenings = 1000

type failedOpening struct {
	since time.Time
	err   error // of the last attempt
}

type dropUnderWay struct {
	since time.Time
	err   error // of an attempt that has ended
}

// census is the catalogue as it was when it was last gone through.
type census struct {
	counted    time.Time
	at         time.Duration // the same, by Clock.Elapsed
	stores     int
	unreadable int
	err        error // why an entry could not be read
}

// wasOpened remembers that a store could not be opened, and forgets it when it could.
func (d *DB) wasOpened(name string, err error) {
	for _, no := range []error{ErrNoStore, ErrName, ErrClosed, ErrLocked, ErrReadOnly, ErrFileKEK, context.Canceled, context.DeadlineExceeded} {
		if errors.Is(err, no) {
			return // that is about the call or the DB, and not about the store
		}
	}
	d.mu.Lock()
	defer d.mu.Unlock()
	if err == nil {
		delete(d.watch.failed, name)
		return
	}
	f, known := d.watch.failed[name]
	if !known {
		if len(d.watch.failed) >= watchedOpenings {
			return
		}
		f.since = d.opts.Clock.Now()
	}
	f.err = err
	if d.watch.failed == nil {
		d.watch.failed = map[string]failedOpening{}
	}
	d.watch.failed[name] = f
}

// dropBegins remembers a drop that is about to be marked, or is, from when it was asked for: a try of
// before that has failed counts on.
func (d *DB) dropBegins(name string, since time.Time) {
	d.mu.Lock()
	defer d.mu.Unlock()
	u, again := d.watch.drops[name]
	if !again {
		u.since = since
	}
	u.err = nil
	if d.watch.drops == nil {
		d.watch.drops = map[string]dropUnderWay{}
	}
	d.watch.drops[name] = u
}

// dropNotBegun forgets a drop whose mark was not made: nothing has happened. If nobody knows whether it
// was, the catalogue says so, and the drop is told as one that somebody else has begun.
func (d *DB) dropNotBegun(name string) {
	d.mu.Lock()
	defer d.mu.Unlock()
	delete(d.watch.drops, name)
}

// dropEnded notes what became of a call of Drop: one that has failed is remembered if its mark was made.
func (d *DB) dropEnded(name string, err error) {
	d.mu.Lock()
	defer d.mu.Unlock()
	if err == nil {
		delete(d.watch.failed, name)
	}
	u, begun := d.watch.drops[name]
	switch {
	case err == nil, errors.Is(err, catalogue.ErrMoved): // somebody else has finished it
		delete(d.watch.drops, name)
	case begun:
		u.err = err
		d.watch.drops[name] = u
	}
}

// dropFinished remembers a drop that OpenDB has finished: nobody was given its receipt.
func (d *DB) dropFinished(name string) {
	d.mu.Lock()
	defer d.mu.Unlock()
	d.watch.finished = append(d.watch.finished, Trouble{Store: name, Kind: TroubleDropFinished, Since: d.opts.Clock.Now()})
}

// totals adds up what stores have counted.
type totals struct {
	blocks tally.Total
	checks keyring.CheckCounts
	calls  []keyring.CallStats
	// Of those that are open.
	inFlight, stuck int
}

// add adds what a store has counted, which may have no keyring yet.
func (t *totals) add(s *Store) {
	t.blocks.Add(&s.counts)
	if s.keys == nil {
		return
	}
	k := s.keys.Stats()
	t.checks.OK += k.Checks.OK
	t.checks.Denied += k.Checks.Denied
	t.checks.Unanswered += k.Checks.Unanswered
	t.checks.Other += k.Checks.Other
	t.inFlight += k.InFlight
	t.stuck += k.Stuck
	t.addCalls(k.Calls)
}

func (t *totals) addCalls(calls []keyring.CallStats) {
	for i, c := range calls {
		if i == len(t.calls) {
			t.calls = append(t.calls, keyring.CallStats{Operation: c.Operation, Outcomes: map[string]uint64{}})
		}
		to := &t.calls[i]
		if to.Latency.Bounds == nil {
			to.Latency.Bounds, to.Latency.Counts = c.Latency.Bounds, make([]uint64, len(c.Latency.Counts))
		}
		for outcome, n := range c.Outcomes {
			if n > 0 {
				to.Outcomes[outcome] += n
			}
		}
		to.NotMade += c.NotMade
		to.Latency.Count += c.Latency.Count
		to.Latency.Sum += c.Latency.Sum
		for j, n := range c.Latency.Counts {
			to.Latency.Counts[j] += n
		}
	}
}

// clone returns a copy that shares nothing. It has every counter, whether something was counted or
// not.
func (t *totals) clone() (c totals) {
	c = totals{blocks: t.blocks, checks: t.checks}
	for _, op := range []vault.Operation{vault.OpGet, vault.OpWrapKey, vault.OpUnwrapKey} {
		none := keyring.CallStats{Operation: op, Outcomes: map[string]uint64{}}
		for _, outcome := range keyring.Outcomes() {
			none.Outcomes[outcome] = 0
		}
		c.calls = append(c.calls, none)
	}
	c.addCalls(t.calls)
	return c
}

// closedOne keeps what a store has counted that is not open any more. DB.mu is held.
func (d *DB) closedOne(s *Store) {
	d.watch.past.add(s)
	d.watch.past.inFlight, d.watch.past.stuck = 0, 0
}

// takeCensus counts the stores, at most once in countEvery.
func (d *DB) takeCensus(ctx context.Context) (census, error) {
	d.mu.Lock()
	c := d.watch.census
	d.mu.Unlock()
	now := d.opts.Clock.Elapsed()
	if !c.counted.IsZero() && now-c.at < countEvery {
		return c, nil
	}
	c = census{counted: d.opts.Clock.Now(), at: now}
	err := d.catalogue.Each(ctx, func(e catalogue.Entry, err error) error {
		switch {
		case err != nil:
			c.unreadable++
			c.err = err
		case e.State != catalogue.Dropping:
			c.stores++
		}
		return ctx.Err()
	})
	d.mu.Lock()
	defer d.mu.Unlock()
	if err != nil {
		return d.watch.census, err
	}
	d.watch.census = c
	return c, nil
}

// openNow sums up what the stores have counted, and returns those that are open.
func (d *DB) openNow() (all totals, open []openNow) {
	d.mu.Lock()
	defer d.mu.Unlock()
	// Under the lock, so that a store which is being closed meanwhile is counted once.
	all = d.watch.past.clone()
	for name, s := range d.opened {
		all.add(s)
		open = append(open, openNow{name, s.State(), s.counts.Corrupt() > 0})
	}
	return all, open
}

// openNow is a store that is open.
type openNow struct {
	name    string
	state   keyring.State
	damaged bool // something of it did not authenticate
}

// notOpened returns the stores that could not be opened the last time, and are not open.
func (d *DB) notOpened() map[string]failedOpening {
	d.mu.Lock()
	defer d.mu.Unlock()
	return maps.Clone(d.watch.failed)
}

// dropsNow returns the drops that are under way, or have failed, and those that OpenDB has finished.
func (d *DB) dropsNow() (map[string]dropUnderWay, []Trouble) {
	d.mu.Lock()
	defer d.mu.Unlock()
	return maps.Clone(d.watch.drops), slices.Clone(d.watch.finished)
}
