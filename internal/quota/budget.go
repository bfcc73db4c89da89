// Package quota bounds how often something that is shared is asked: a vault, which serves so many
// operations in 10 seconds, whoever makes them, and then says 429.
package quota

import (
	"container/list"
	"context"
	"errors"
	"sync"
	"time"
)

// Clock is what a budget needs of a clock.
type Clock interface {
	Elapsed() time.Duration
	AfterFunc(d time.Duration, f func()) (stop func() bool)
}

// Window is the time that a budget is for. Key Vault's limits are counted in it.
const Window = 10 * time.Second

// The pause after a 429 that does not say how long, as Key Vault's throttling
// guidance has it: 1 s, and twice as long each time, up to 16 s.
const (
	firstPause   = time.Second
	longestGuess = 16 * time.Second
	// longestPause bounds what a Retry-After does to callers that come later: they are
	// told how long it was, and who asks all the same after this is let through. A
	// store's lease can be shorter than what a vault may ask for.
	longestPause = 30 * time.Second
	// patience is how long a call waits at the closed gate. One that would wait longer
	// is told so at once.
	patience = 5 * time.Second
)

// Heaviest is the most units that one operation takes.
const Heaviest = 2

// Budget spaces the requests of one vault, whoever makes them: a weighted token bucket, in the form of a
// schedule (the generic cell rate algorithm), with a queue before it and a gate that
// closes for everybody when the vault says 429. Nothing is sent while it is closed: a
// hundred goroutines that were refused do not all ask again.
//
// The bucket holds a hundredth of the budget and fills at the rate that leaves the
// rest for 10 s, so that no 10 s see more than the budget, whenever they begin. It is
// spent when a place's turn comes and not before: who leaves the queue has spent
// nothing, so that a budget that is asked for too much is still used to the full.
type Budget struct {
	clock Clock
	limit int
	unit  time.Duration // the time in which one unit flows in
	burst time.Duration // the bucket's size, as time

	mu     sync.Mutex
	spent  time.Duration // the moment up to which what flows in is spent
	lanes  [2]lane       // the calls that go first, and the others
	stop   func() bool   // of the timer for the turn of the first place; nil without one
	closed time.Duration // the gate is closed before this moment
	said   time.Duration // the moment up to which the vault asked to be left alone
	guess  time.Duration // the last pause that was guessed
}

// lane is places in the order in which they were taken.
type lane struct {
	list.List
	units int // of them all
}

// Place is a request's in the queue.
type Place struct {
	budget *Budget
	units  int
	lane   *lane
	ends   time.Duration // when its turn is of no use any more
	at     *list.Element // nil when it has left the queue
	left   chan struct{} // closed then
	err    error         // why it left without its turn; nil otherwise
}

// New returns a budget of so many units in any [Window], at least 10. All times that it is given are
// by clock.
func New(clock Clock, perWindow int) *Budget {
	burst := max(Heaviest, perWindow/100)
	rest := time.Duration(perWindow - burst)
	unit := (Window + rest - 1) / rest // rounded up: rather a little less than the budget
	// A full bucket at the start.
	return &Budget{clock: clock, limit: perWindow, unit: unit, burst: unit * time.Duration(burst), spent: clock.Elapsed()}
}

// Enter takes a place in the queue: in the lane of the calls that go first, or behind
// everybody. It takes none, and returns an error at once, if the turn would come too
// late for a caller who has time until needed. Its turn is of no use after ends, which
// is not before needed: others may come to wait for the same place.
func (b *Budget) Enter(units int, first bool, needed, ends time.Duration) (*Place, error) {
	b.mu.Lock()
	defer b.mu.Unlock()
	now := b.clock.Elapsed()
	into, before := &b.lanes[0], b.lanes[0].units
	if !first {
		into, before = &b.lanes[1], before+b.lanes[1].units
	}
	if err := b.refusal(now, before+units, needed); err != nil {
		return nil, err
	}
	p := &Place{budget: b, units: units, lane: into, ends: ends, left: make(chan struct{})}
	p.at = into.PushBack(p)
	into.units += units
	if b.first() == p { // otherwise the timer is set
		b.serve(now)
	}
	return p, nil
}

// refusal returns why a caller who has time until needed should not wait for the last
// of so many units: a *Closed if it is the vault that does not want to be asked,
// ErrNoTurn if too many others are before it, or nil.
//
// A turn leaves a caller the last quarter of its time, for the answer. A request whose
// answer nobody waits for is a waste of the budget, and where everybody is let in up to
// the last moment, all are.
func (b *Budget) refusal(now time.Duration, units int, needed time.Duration) error {
	turn := b.turn(now, units)
	if late := turn > now && turn > needed-(needed-now)/4; late || b.closed-now > patience {
		return b.why(now)
	}
	return nil
}

// why returns whose doing it is that a turn does not come.
func (b *Budget) why(now time.Duration) error {
	if left := b.closed - now; left > 0 {
		return &Closed{RetryAfter: max(left, b.said-now)}
	}
	return ErrNoTurn
}

// turn returns when the last of so many units may be spent, if they are the next.
func (b *Budget) turn(now time.Duration, units int) time.Duration {
	full := max(b.spent, b.closed, now) + time.Duration(units)*b.unit
	return max(full-b.burst, b.closed, now)
}

// first returns the place whose turn is next, or nil.
func (b *Budget) first() *Place {
	for i := range b.lanes {
		if at := b.lanes[i].Front(); at != nil {
			return at.Value.(*Place)
		}
	}
	return nil
}

// serve lets through whose turn has come, and sets a timer for the next.
func (b *Budget) serve(now time.Duration) {
	if b.stop != nil {
		b.stop()
		b.stop = nil
	}
	for p := b.first(); p != nil; p = b.first() {
		if p.ends <= now {
			p.leave(b.why(now))
			continue
		}
		if turn := b.turn(now, p.units); turn > now {
			b.stop = b.clock.AfterFunc(turn-now, func() {
				b.mu.Lock()
				defer b.mu.Unlock()
				b.serve(b.clock.Elapsed())
			})
			return
		}
		b.spent = max(b.spent, now) + time.Duration(p.units)*b.unit
		p.leave(nil)
	}
}

func (p *Place) leave(err error) {
	p.lane.Remove(p.at)
	p.lane.units -= p.units
	p.at, p.err = nil, err
	close(p.left)
}

// Wait returns when the request may be sent, or with an error if its turn does not
// come: [ErrNoTurn], a *[Closed], or that ctx ended; one whose cause is [ErrTimeUp] is told why its
// turn did not come in time. The place is given up then.
func (p *Place) Wait(ctx context.Context) error {
	select {
	case <-p.left:
	case <-ctx.Done():
	}
	b := p.budget
	b.mu.Lock()
	defer b.mu.Unlock()
	err := ctx.Err()
	if p.at == nil {
		if p.err != nil {
			return p.err
		}
		return err
	}
	if errors.Is(context.Cause(ctx), ErrTimeUp) {
		err = b.why(b.clock.Elapsed()) // others went first, or the gate was closed
	}
	next := b.first() == p
	p.leave(err)
	if next { // the turn of those behind comes earlier
		b.serve(b.clock.Elapsed())
	}
	return err
}

// Refuses returns why a caller who has time until needed should not wait for the
// place's turn, too, or nil; see refusal.
func (p *Place) Refuses(needed time.Duration) error {
	b := p.budget
	b.mu.Lock()
	defer b.mu.Unlock()
	if p.at == nil {
		return nil
	}
	units := p.units
	for at := p.at.Prev(); at != nil; at = at.Prev() {
		units += at.Value.(*Place).units
	}
	if p.lane == &b.lanes[1] {
		units += b.lanes[0].units
	}
	return b.refusal(b.clock.Elapsed(), units, needed)
}

// Throttled closes the gate after a 429, for as long as the vault said or, if
// retryAfter is 0, twice as long as the last time.
func (b *Budget) Throttled(retryAfter time.Duration) {
	b.mu.Lock()
	defer b.mu.Unlock()
	now := b.clock.Elapsed()
	pause := retryAfter
	if pause <= 0 {
		if now < b.closed {
			return // of several that were under way together, the first counts
		}
		b.guess = min(max(2*b.guess, firstPause), longestGuess)
		pause = b.guess
	}
	b.closed = max(b.closed, now+min(pause, longestPause))
	b.said = max(b.said, now+retryAfter)
	if b.closed-now > patience {
		for p := b.first(); p != nil; p = b.first() {
			p.leave(b.why(now))
		}
	}
	b.serve(now)
}

// Answered notes a request that was not throttled.
func (b *Budget) Answered() {
	b.mu.Lock()
	defer b.mu.Unlock()
	b.guess = 0
}

// Closed says that the vault asked not to be asked for longer than the caller would wait.
type Closed struct{ RetryAfter time.Duration }

func (e *Closed) Error() string { return "the vault asked for a pause" }

// NonRetriable keeps azcore from trying again.
func (e *Closed) NonRetriable() {}

// noTurn says that a call's turn comes too late for it.
type noTurn struct{}

func (noTurn) Error() string { return "the call's turn comes too late" }
func (noTurn) NonRetriable() {}

// ErrNoTurn says that too many others go before a caller.
var ErrNoTurn error = noTurn{}

// ErrTimeUp is the cause of a context that ends because the call's own time is up.
var ErrTimeUp = errors.New("the call's time is up")
