package keyring

import (
	mrand "math/rand/v2"
	"time"

	"github.com/blockseal/blockseal/internal/inner"
	"github.com/blockseal/blockseal/vault"
)

// watchEvery is how often both clocks are compared with the lease, and the wall clock
// with the key's expiry. The lease runs on Clock.Elapsed, by which every operation is
// judged; but timers can come late after a machine was suspended, and of a virtual
// machine that was stopped or resumed from a snapshot only the wall clock shows that.
// What happened to the machine or its clocks is noticed within this time.
const watchEvery = time.Second

// monitor is a keyring's timers. Guarded by Keyring.mu.
type monitor struct {
	stopCheck    func() bool
	stopDeadline func() bool
	stopWatch    func() bool
	stopped      bool
	awaiting     bool          // a copy: locked until the first Revalidate that succeeds
	nextTick     time.Duration // Clock.Elapsed at which stopCheck's timer rings
	nextCheck    time.Duration // Clock.Elapsed before which no check starts by itself
	warned       map[string]time.Duration
	newer        string        // a version of the KEK that the last check found
	unfit        error         // why the key's current version is not taken up, as the last check found
	lastNewest   time.Duration // Clock.Elapsed when the one in use was last seen to be the newest
}

func (r *Keyring) startMonitor() {
	r.mu.Lock()
	defer r.mu.Unlock()
	if r.stopped {
		return
	}
	first := r.jittered()
	if r.opts.For(inner.Block{}).Spread {
		first = 1 + mrand.N(r.opts.CheckEvery)
	}
	r.armCheck(first)
	r.armWatch()
}

func (r *Keyring) stopMonitor() {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.stopped = true
	for _, stop := range []func() bool{r.stopCheck, r.stopDeadline, r.stopWatch} {
		if stop != nil {
			stop()
		}
	}
}

// jittered is CheckEvery less up to a tenth: keyrings whose checks are spread stay so.
func (r *Keyring) jittered() time.Duration {
	return r.opts.CheckEvery - mrand.N(r.opts.CheckEvery/10+1)
}

// armCheck, armWatch and armDeadline set the timers anew. r.mu is held.

func (r *Keyring) armCheck(d time.Duration) {
	if r.stopCheck != nil {
		r.stopCheck()
	}
	r.nextTick = r.clock.Elapsed() + d
	r.stopCheck = r.clock.AfterFunc(d, r.tick)
}

func (r *Keyring) armWatch() { r.stopWatch = r.clock.AfterFunc(watchEvery, r.watch) }

func (r *Keyring) armDeadline(s *session, d time.Duration) {
	if r.stopDeadline != nil {
		r.stopDeadline()
	}
	if r.stopped {
		return
	}
	r.stopDeadline = r.clock.AfterFunc(d, func() { r.expire(s) })
}

// tick is the check timer: it sets the next one, then checks on a goroutine of its
// own, so that a vault that hangs holds up neither the timer nor the clock.
func (r *Keyring) tick() {
	r.mu.Lock()
	if r.stopped {
		r.mu.Unlock()
		return
	}
	r.armCheck(r.jittered())
	due := r.automatic() && r.clock.Elapsed() >= r.nextCheck
	r.mu.Unlock()
	if due {
		r.tryCheck()
	}
}

// automatic reports whether checks go on by themselves: not for a keyring that
// waits for Revalidate. r.mu is held.
func (r *Keyring) automatic() bool {
	return !r.awaiting && (r.state.Status != Inaccessible || !r.opts.ManualRevalidation)
}

// nextDue is when the next check starts by itself, at the latest, and zero if none does:
// the first tick at which the vault may be asked again. Ticks after the next one are up to
// CheckEvery apart. r.mu is held.
func (r *Keyring) nextDue() time.Time {
	if r.stopped || r.stopCheck == nil || !r.automatic() {
		return time.Time{}
	}
	due := r.nextTick
	if wait := r.nextCheck - due; wait > 0 {
		due += (wait + r.opts.CheckEvery - 1) / r.opts.CheckEvery * r.opts.CheckEvery
	}
	return r.wallAt(due)
}

// checkSoon checks at once, or when the check that is under way has ended, because something
// happened, unless the keyring waits for Revalidate.
func (r *Keyring) checkSoon() {
	r.mu.Lock()
	due := !r.stopped && r.automatic()
	r.mu.Unlock()
	if due && !r.tryCheck() {
		r.checkAgain.Store(true)
		// The one that is under way may have ended before that.
		if r.tryCheck() {
			r.checkAgain.Store(false)
		}
	}
}

// tryCheck starts a check unless one is under way.
func (r *Keyring) tryCheck() (started bool) {
	select {
	case r.checks <- struct{}{}:
	default:
		return false
	}
	go func() {
		defer r.giveChecks()
		r.checkHeld(r.ctx, false, false)
	}()
	return true
}

// watch compares the clocks with the lease and the key's expiry.
func (r *Keyring) watch() {
	r.mu.Lock()
	if r.stopped {
		r.mu.Unlock()
		return
	}
	r.armWatch()
	s := r.session.Load()
	if s == nil {
		r.mu.Unlock()
		return
	}
	now := r.wallNowLocked()
	// The clock itself here, as leaseRef is: against the anchored one, a clock that
	// was set back would look like one that jumps ahead at every renewal.
	leaseOver := r.clock.Now().Sub(r.leaseRef) >= r.opts.Lease
	keyOver := !r.keyEnd.IsZero() && !now.Before(r.keyEnd)
	late := int64(r.clock.Elapsed()) >= s.deadline.Load() // and its timer has not rung
	var jumped, expired error
	if leaseOver {
		jumped = r.leaseEnded(clockAhead)
	}
	if keyOver {
		expired = r.keyExpired(now)
	}
	r.mu.Unlock()

	switch {
	case late:
		r.expire(s)
	case keyOver:
		r.lock(s, expired)
		r.checkSoon()
	case leaseOver:
		r.lock(s, jumped)
		r.checkSoon()
	}
	r.beginEpochByAge(now)
}

// expiryWarnings are how long before a key's expiry an event says so.
func expiryWarnings() [3]time.Duration {
	const day = 24 * time.Hour
	return [3]time.Duration{day, 7 * day, 30 * day}
}

// warnOfExpiry announces that a key is near its expiry, once for each threshold
// that is passed.
func (r *Keyring) warnOfExpiry(key vault.Key) {
	if key.Expires.IsZero() {
		return
	}
	left := key.Expires.Sub(r.wallNow())
	for _, w := range expiryWarnings() {
		if left > w {
			continue
		}
		// A new version, or a new date, warns anew.
		what := key.ID.String() + key.Expires.String()
		r.mu.Lock()
		last, ok := r.warned[what]
		if !ok || w < last {
			r.warned = map[string]time.Duration{what: w}
		}
		r.mu.Unlock()
		if !ok || w < last {
			r.emit(Event{Kind: KeyNearExpiry, Key: key.ID, Left: left})
		}
		return
	}
}
