package local

import (
	"slices"
	"time"
)

// When is a deleted key's retention over? The machine's clock alone must not say: a clock
// that jumps ahead by a year, for a minute, would take every deleted key for good, purge
// protection or not, and nobody has taken that decision. So
//
//   - nothing is purged on the way of another change: only PurgeKey purges, and Maintain;
//   - a key is purged before PurgeKey is called for it, or under purge protection at all,
//     only when the clock is past the date and the vault has also seen its retention pass.
//
// What it has seen is counted in the file, with each change: the time since the last one,
// by the clock, but a day at the most, however far the clock has moved meanwhile. A
// jump counts for a day, and a clock that goes back for nothing: with the shortest
// retention, it takes seven jumps with a change after each. The price is that a vault in
// which nobody does anything for weeks keeps deleted keys for longer than it need; one
// that is maintained each day does not.
const maxSeen = 24 * time.Hour

// lookEach is how often Maintain writes the file for nothing but the count.
const lookEach = time.Hour

// look counts for each deleted key the time since the last change.
func (st *state) look(now time.Time) {
	if !validTime(now.Unix()) {
		return // no time that a clock shows
	}
	passed := min(max(now.Unix()-st.Seen, 0), int64(maxSeen/time.Second))
	for _, k := range st.Keys {
		if k.Deleted != 0 {
			k.Kept += passed
		}
	}
	st.Seen = now.Unix()
}

// mustLook reports whether it is time to count.
func (st *state) mustLook(now time.Time) bool {
	since := now.Sub(time.Unix(st.Seen, 0))
	return since.Abs() >= lookEach && slices.ContainsFunc(st.Keys, func(k *key) bool { return k.Deleted != 0 })
}

// over reports whether the retention of a deleted key is over.
func (k *key) over(now time.Time) bool {
	return k.Deleted != 0 && now.Unix() >= k.PurgeAt && k.Kept >= k.PurgeAt-k.Deleted
}

// dropOver purges the keys whose retention is over, and returns their names.
func (st *state) dropOver(now time.Time) (dropped []string) {
	st.Keys = slices.DeleteFunc(st.Keys, func(k *key) bool {
		if k.over(now) {
			dropped = append(dropped, k.Name)
			return true
		}
		return false
	})
	return dropped
}
