package azure

import (
	"context"
	"math"
	"sync"
	"time"
)

// window is the time that Key Vault's limits are counted in.
const window = 10 * time.Second

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

// budget spaces the requests of one vault: a weighted token bucket, in the form of a
// schedule (the generic cell rate algorithm), and a gate that closes for everybody
// when the vault says 429. Nothing is sent while it is closed: a hundred goroutines
// that were refused do not all ask again.
//
// The bucket holds a hundredth of the budget and fills at the rate that leaves the
// rest for 10 s, so that no 10 s see more than the budget, whenever they begin.
type budget struct {
	clock Clock
	unit  time.Duration // the time in which one unit flows in
	burst time.Duration // the bucket's size, as time

	mu     sync.Mutex
	spent  time.Duration // the moment up to which what flows in is spoken for
	closed time.Duration // the gate is closed before this moment
	said   time.Duration // the moment up to which the vault asked to be left alone
	guess  time.Duration // the last pause that was guessed
}

// heaviest is the most units that one operation takes.
const heaviest = 2

func newBudget(clock Clock, perWindow int) *budget {
	burst := max(heaviest, perWindow/100)
	unit := window / time.Duration(perWindow-burst)
	// A full bucket at the start.
	return &budget{clock: clock, unit: unit, burst: unit * time.Duration(burst), spent: clock.Elapsed()}
}

// reserve books units and returns how long to wait before they may be used. It books
// nothing if that is longer than within. What is booked is not given back: the time
// that it stood for may have passed, and then it would be spent twice.
func (b *budget) reserve(units int, within time.Duration) (wait time.Duration, booked bool) {
	b.mu.Lock()
	defer b.mu.Unlock()
	now := b.clock.Elapsed()
	spent := max(b.spent, now, b.closed) + time.Duration(units)*b.unit
	wait = max(spent-b.burst-now, b.closed-now, 0)
	if wait > within {
		return wait, false
	}
	b.spent = spent
	return wait, true
}

// pause returns how long the gate stays closed, and how long the vault asked to be
// left alone, which may be longer.
func (b *budget) pause() (left, asked time.Duration) {
	b.mu.Lock()
	defer b.mu.Unlock()
	now := b.clock.Elapsed()
	if left = b.closed - now; left <= 0 {
		return 0, 0
	}
	return left, max(left, b.said-now)
}

// throttled closes the gate after a 429, for as long as the vault said or, if
// retryAfter is 0, twice as long as the last time.
func (b *budget) throttled(retryAfter time.Duration) {
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
}

// answered notes a request that was not throttled.
func (b *budget) answered() {
	b.mu.Lock()
	defer b.mu.Unlock()
	b.guess = 0
}

// wait returns when a request of that many units may be sent. It returns an error at
// once if the gate stays closed for longer than within and patience permit, a
// *closedGate, or if ctx ends before the request's turn comes, errNoTurn.
func (b *budget) wait(ctx context.Context, units int, within time.Duration) error {
	for {
		if err := ctx.Err(); err != nil {
			return err
		}
		if left, asked := b.pause(); left > min(within, patience) {
			return &closedGate{retryAfter: asked}
		}
		turn := time.Duration(math.MaxInt64)
		if end, ok := ctx.Deadline(); ok {
			turn = time.Until(end)
		}
		d, booked := b.reserve(units, turn)
		if !booked {
			return errNoTurn
		}
		if d > 0 {
			if err := sleep(ctx, b.clock, d); err != nil {
				return err
			}
		}
		// A 429 in the meantime closes the gate for those that wait, too: they queue
		// again behind it.
		if left, _ := b.pause(); left <= 0 {
			return nil
		}
	}
}

// closedGate says that the vault asked not to be asked for longer than the caller
// would wait.
type closedGate struct{ retryAfter time.Duration }

func (e *closedGate) Error() string { return "the vault asked for a pause" }

// NonRetriable keeps azcore from trying again.
func (e *closedGate) NonRetriable() {}

// noTurn says that the context would end before the call's turn.
type noTurn struct{}

func (noTurn) Error() string { return "the call's turn comes after its deadline" }
func (noTurn) NonRetriable() {}

var errNoTurn error = noTurn{}

// sleep waits for d or the end of ctx.
func sleep(ctx context.Context, clock Clock, d time.Duration) error {
	rang := make(chan struct{})
	stop := clock.AfterFunc(d, func() { close(rang) })
	select {
	case <-rang:
		return nil
	case <-ctx.Done():
		stop()
		return ctx.Err()
	}
}
