package keyring

import (
	"context"
	"errors"
	"sync/atomic"
	"time"

	"github.com/blockseal/blockseal/vault"
)

// callOps are the operations on a vault, in the order of callCounts.ended.
func callOps() [3]vault.Operation {
	return [3]vault.Operation{vault.OpGet, vault.OpWrapKey, vault.OpUnwrapKey}
}

func opIndex(op vault.Operation) int {
	switch op {
	case vault.OpWrapKey:
		return 1
	case vault.OpUnwrapKey:
		return 2
	}
	return 0
}

// Outcomes of a call that are not kinds of vault errors.
const (
	outcomeOK = iota
	outcomeTimeout
	outcomeCanceled
	outcomeOther
	outcomeKinds // the first kind
)

// kinds are the sentinels of package vault, in the order of outcomes.
func kinds() [11]error {
	return [11]error{vault.ErrKeyNotFound, vault.ErrKeyDeleted, vault.ErrKeyDisabled, vault.ErrKeyExpired,
		vault.ErrKeyNotYetValid, vault.ErrAccessDenied, vault.ErrWrongTenant, vault.ErrUnsupportedKey,
		vault.ErrBadCiphertext, vault.ErrThrottled, vault.ErrUnavailable}
}

const outcomes = outcomeKinds + 11

// outcomeNames are stable: they are values of a metric's label.
func outcomeNames() []string {
	return []string{"ok", "timeout", "canceled", "other",
		"key_not_found", "key_deleted", "key_disabled", "key_expired", "key_not_yet_valid", "access_denied",
		"wrong_tenant", "unsupported_key", "bad_ciphertext", "throttled", "unavailable"}
}

// outcomeOf classifies what a call came back with.
func outcomeOf(err error) int {
	switch {
	case err == nil:
		return outcomeOK
	case errors.Is(err, errNoAnswer):
		return outcomeTimeout
	}
	if kind := vault.Kind(err); kind != nil {
		for i, k := range kinds() {
			if kind == k {
				return outcomeKinds + i
			}
		}
	}
	if errors.Is(err, context.Canceled) || errors.Is(err, context.DeadlineExceeded) || errors.Is(err, ErrClosed) {
		return outcomeCanceled
	}
	return outcomeOther
}

func latencyBounds() [13]time.Duration {
	const ms = time.Millisecond
	return [13]time.Duration{1 * ms, 2500 * time.Microsecond, 5 * ms, 10 * ms, 25 * ms, 50 * ms, 100 * ms, 250 * ms, 500 * ms,
		1000 * ms, 2500 * ms, 5000 * ms, 10000 * ms}
}

// callEnds counts the calls of one operation that have ended. A call to a vault
// takes a millisecond at the least, so that these need no shards.
type callEnds struct {
	outcomes [outcomes]atomic.Uint64
	buckets  [14]atomic.Uint64 // one more than latencyBounds: what is beyond
	sum      atomic.Int64      // nanoseconds
	notMade  atomic.Uint64     // because too many were stuck
}

func (e *callEnds) add(took time.Duration, err error) {
	e.outcomes[outcomeOf(err)].Add(1)
	bounds := latencyBounds()
	i := 0
	for i < len(bounds) && took > bounds[i] {
		i++
	}
	e.buckets[i].Add(1)
	e.sum.Add(int64(took))
}

func (e *callEnds) stats(op vault.Operation) CallStats {
	bounds := latencyBounds()
	st := CallStats{Operation: op, Outcomes: map[string]uint64{}, NotMade: e.notMade.Load(), Latency: Histogram{Bounds: bounds[:], Sum: time.Duration(e.sum.Load())}}
	for i, name := range outcomeNames() {
		st.Outcomes[name] = e.outcomes[i].Load()
	}
	for i := range e.buckets {
		n := e.buckets[i].Load()
		st.Latency.Count += n
		if i < len(st.Latency.Bounds) {
			st.Latency.Counts = append(st.Latency.Counts, n)
		}
	}
	return st
}

// checkEnds counts checks.
type checkEnds struct{ ok, denied, unanswered, other atomic.Uint64 }

// add counts a check, and passes its error on.
func (c *checkEnds) add(err error) {
	switch {
	case err == nil:
		c.ok.Add(1)
	case vault.Denied(err):
		c.denied.Add(1)
	case vault.Transient(err):
		c.unanswered.Add(1)
	default:
		c.other.Add(1)
	}
}

// len is how many DEKs the cache holds.
func (c *dekCache) len() int {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.order.Len()
}
