package keyring

import (
	"slices"
	"time"

	"github.com/blockseal/blockseal/vault"
)

// Stats is what a keyring has done since it was opened, and what it holds. It is a
// copy, taken field by field while the keyring goes on.
type Stats struct {
	// Calls are the calls to the vault, one entry for each operation, in the order
	// get, wrapKey, unwrapKey.
	Calls []CallStats `json:"calls"`
	// InFlight is how many calls are being waited for.
	InFlight int `json:"inFlight"`
	// Stuck is how many others were given up and are still with a vault client that
	// ignores its context. At 8 no more are made.
	Stuck int `json:"stuck"`

	// Checks counts the checks of access, by what came of them.
	Checks CheckCounts `json:"checks"`

	// DEKHits and DEKMisses count the look-ups of DEKs that the vault opened
	// (ByKEK): a miss is a call to the vault, or the wait for one. DEKs is how many
	// are in memory.
	DEKHits   uint64 `json:"dekHits"`
	DEKMisses uint64 `json:"dekMisses"`
	DEKs      int    `json:"deks"`

	// Epoch is the current epoch; zero when locked.
	Epoch EpochStats `json:"epoch"`
	// KEKCreated is when the KEK version that wraps the keyring was made, and
	// KEKExpires when it ends, as the vault last said. Zero: not known, or never.
	KEKCreated time.Time `json:"kekCreated,omitzero"`
	KEKExpires time.Time `json:"kekExpires,omitzero"`

	// Lease and CheckEvery are as configured. LeaseLeft is how long the keys may
	// still be used without another unwrap: to the end of the lease or the key's
	// own expiry. It is zero when locked.
	Lease      time.Duration `json:"lease"`
	CheckEvery time.Duration `json:"checkEvery"`
	LeaseLeft  time.Duration `json:"leaseLeft"`
}

// EpochStats is the current epoch.
type EpochStats struct {
	ID      uint32    `json:"id"`
	Created time.Time `json:"created,omitzero"`
	// DEKs is a bound on how many it has wrapped, in all keyrings that share the document,
	// as of when this one took up its present state: the document counts them in
	// advance, and what others have counted and not used counts too. MaxDEKs is when the
	// next begins.
	DEKs    uint64 `json:"deks"`
	MaxDEKs uint64 `json:"maxDEKs"`
	// MaxAge is when the next begins; zero: never by age.
	MaxAge time.Duration `json:"maxAge"`
}

// CheckCounts counts checks of access by what came of them.
type CheckCounts struct {
	OK         uint64 `json:"ok"`         // the lease was renewed
	Denied     uint64 `json:"denied"`     // the vault said no, or its key is another one
	Unanswered uint64 `json:"unanswered"` // the vault did not answer: nothing was learned
	Other      uint64 `json:"other"`      // the caller gave up, or the keyring could not be opened
}

// CallStats is the calls of one operation.
type CallStats struct {
	Operation vault.Operation `json:"operation"`
	// Outcomes counts the calls that ended, by outcome; see [Outcomes]. All of
	// those are there, with zero if none.
	Outcomes map[string]uint64 `json:"outcomes"`
	// NotMade counts calls that were not made because Stats.Stuck was at its most.
	// They are not among those that ended.
	NotMade uint64 `json:"notMade"`
	// Latency is how long the calls took, whatever their outcome.
	Latency Histogram `json:"latency"`
}

// Ended is how many calls have ended.
func (c CallStats) Ended() (n uint64) {
	for _, v := range c.Outcomes {
		n += v
	}
	return n
}

// Histogram counts durations by upper bounds.
type Histogram struct {
	Count uint64        `json:"count"`
	Sum   time.Duration `json:"sum"`
	// Bounds are the upper bounds, inclusive, ascending. Counts[i] is how many
	// durations were at most Bounds[i] and more than the bound before; those
	// beyond the last are in Count alone.
	Bounds []time.Duration `json:"bounds"`
	Counts []uint64        `json:"counts"`
}

// Outcomes returns the names of all outcomes of a call to a vault: "ok", one for
// each sentinel of package vault ("key_not_found" and so on), "timeout" for no
// answer within Options.VaultTimeout, "canceled" for a caller that gave up or a
// keyring that was closed, and "other". It is for programs that export statistics and name
// each of their series beforehand.
func Outcomes() []string { return slices.Clone(outcomeNames()) }

// Stats returns the keyring's statistics. It waits for neither vault nor storage.
func (r *Keyring) Stats() Stats {
	c := &r.calls
	st := Stats{Lease: r.opts.Lease, CheckEvery: r.opts.CheckEvery, Stuck: int(c.stuck.Load()),
		DEKHits: c.dekHits.Load(), DEKMisses: c.dekMisses.Load(),
		Checks: CheckCounts{OK: c.checks.ok.Load(), Denied: c.checks.denied.Load(),
			Unanswered: c.checks.unanswered.Load(), Other: c.checks.other.Load()},
	}
	for i := range c.ended {
		// Before what has started, so that a difference of the two is never negative.
		st.Calls = append(st.Calls, c.ended[i].stats(callOps()[i]))
	}
	var ended uint64
	for _, op := range st.Calls {
		ended += op.Ended()
	}
	if started := c.get.Load() + c.wrap.Load() + c.unwrap.Load(); started > ended {
		st.InFlight = int(started - ended)
	}

	r.mu.Lock()
	defer r.mu.Unlock()
	kek := r.seenOfKEK()
	st.KEKCreated, st.KEKExpires = kek.created, kek.expires
	s := r.session.Load()
	if s == nil {
		return st
	}
	// A lock may be taking the session apart at this moment.
	if set := s.epochs.Load(); set != nil {
		e := set.current
		st.Epoch = EpochStats{ID: e.id, Created: e.created, DEKs: e.bound(), MaxDEKs: r.policy.maxDEKs, MaxAge: r.policy.maxAge}
		st.LeaseLeft = max(0, time.Duration(s.deadline.Load())-r.clock.Elapsed())
		st.DEKs = s.cache.len()
	}
	return st
}
