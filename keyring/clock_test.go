package keyring

import (
	"context"
	"sync"
	"sync/atomic"
	"testing"
	"time"
	"unsafe"

	"github.com/stretchr/testify/require"

	"github.com/blockseal/blockseal/kek"
	"github.com/blockseal/blockseal/vault"
	"github.com/blockseal/blockseal/vault/vaulttest"
)

// These tests run on the system's clock: what its times are made of is what they are
// about. The tests' clock has times without a monotonic reading from the start.

// setClock is the system's clock, of which the wall clock was set ahead, or back, by so
// much. Setting it by an Add would not do: that moves a monotonic reading too.
type setClock struct {
	*systemClock
	ahead atomic.Int64
}

func (c *setClock) Now() time.Time {
	return moved(c.systemClock.Now(), time.Duration(c.ahead.Load()))
}

// moved returns t with the wall clock moved by whole seconds, and its monotonic reading,
// if it has one, as it was. A time.Time that has one keeps it in its second word; in the
// first are a bit that says so, 33 bits of seconds, and 30 bits of nanoseconds.
func moved(t time.Time, d time.Duration) time.Time {
	if wall := (*uint64)(unsafe.Pointer(&t)); *wall>>63 == 1 {
		*wall += uint64(d/time.Second) << 30
		return t
	}
	return t.Add(d)
}

// The tests below are worth something only if moved does what it says.
func TestMovedMovesTheWallClockAlone(t *testing.T) {
	now := time.Now()
	for _, d := range []time.Duration{8 * time.Hour, -2 * time.Hour} {
		then := moved(now, d)
		require.Zero(t, then.Sub(now), "by the monotonic readings")
		require.Equal(t, d, then.Round(0).Sub(now.Round(0)))
	}
}

// dated is a vault whose client leaves monotonic readings in the dates of keys.
type dated struct {
	*vaulttest.Vault
	notBefore, expires time.Time
}

func (v dated) GetKey(ctx context.Context, id vault.KeyID) (vault.Key, error) {
	key, err := v.Vault.GetKey(ctx, id)
	key.NotBefore, key.Expires = v.notBefore, v.expires
	return key, err
}

// raw is a caller's clock that gives what the system gives.
type raw struct{ *systemClock }

func (raw) Now() time.Time { return time.Now() }

// No time that a keyring compares has a monotonic reading, wherever it came from.
func TestWallTimesAreWallTimes(t *testing.T) {
	for name, clock := range map[string]vault.Clock{"the system's clock": nil, "a caller's clock": raw{newSystemClock()}} {
		t.Run(name, func(t *testing.T) {
			v := dated{vaulttest.New(nil), time.Now().Add(-time.Hour), time.Now().Add(time.Hour)}
			id := v.CreateKey("k")
			r, err := Create(t.Context(), &MemStorage{}, kek.New(v, id), &Options{Clock: clock})
			require.NoError(t, err)
			defer r.Close()
			require.NoError(t, r.Revalidate(t.Context()))
			st := r.State()
			r.mu.Lock()
			times := map[string]time.Time{
				"Now": r.clock.Now(), "anchor": r.anchorWall, "wallNow": r.wallNowLocked(), "leaseRef": r.leaseRef,
				"keyEnd": r.keyEnd, "seen": r.seen.expires,
			}
			r.mu.Unlock()
			times["Since"], times["LastSuccess"], times["LeaseEnd"] = st.Since, st.LastSuccess, st.LeaseEnd
			times["LastCheck"], times["KEKExpires"], times["epoch"] = st.LastCheck, st.KEKExpires, r.session.Load().epochs.Load().current.created
			for what, at := range times {
				require.False(t, at.IsZero(), what)
				require.True(t, at == at.Round(0), "%s has a monotonic reading: %v", what, at)
			}
		})
	}
}

// onRealClock is a keyring on the system's clock, and what it tells.
type onRealClock struct {
	*Keyring
	vault  *vaulttest.Vault
	key    vault.KeyID
	events chan Event
}

func openOn(t *testing.T, clock vault.Clock, expires time.Time) *onRealClock {
	g := &onRealClock{events: make(chan Event, eventQueue)}
	g.vault = vaulttest.New(&vaulttest.Options{Clock: clock})
	g.key = g.vault.CreateKey("k")
	g.vault.SetDates(g.key, time.Time{}, expires)
	r, err := Create(t.Context(), &MemStorage{}, kek.New(g.vault, g.key), &Options{Clock: clock, OnEvent: func(e Event) { g.events <- e }})
	require.NoError(t, err)
	t.Cleanup(func() { r.Close() })
	g.Keyring = r
	return g
}

// locked waits until the keyring has said that it locked, and for what the check came to
// that a lock sets off.
func (g *onRealClock) locked(t *testing.T) (cause, check error) {
	t.Helper()
	told, late := false, time.After(time.Minute)
	for {
		select {
		case e := <-g.events:
			switch {
			case e.Kind == StateChanged && e.To == Inaccessible && !told:
				told, cause = true, e.Err
			case told && (e.Kind == CheckFailed || e.Kind == CheckSucceeded):
				return cause, e.Err
			}
		case <-late:
			t.Fatalf("after a minute it has not locked, or not asked after that: %v", g.State())
		}
	}
}

func (g *onRealClock) unusable(t *testing.T) {
	t.Helper()
	_, err := g.Acquire()
	require.ErrorIs(t, err, ErrInaccessible)
}

// sleeping is the clock of a machine that was asleep for so long.
func sleeping(asleep *atomic.Int64) *systemClock {
	return newClockOn(func() (time.Duration, bool) {
		boot, ok := bootTime()
		if !ok {
			boot = time.Duration(time.Now().UnixNano())
		}
		return boot + time.Duration(asleep.Load()), true
	})
}

// A machine that slept past the lease, or a virtual machine that was resumed from a
// snapshot, locks when its wall clock says so.
func TestWallClockAheadOfTheLease(t *testing.T) {
	t.Parallel()
	clock := &setClock{systemClock: newSystemClock()}
	g := openOn(t, clock, time.Time{})
	g.vault.SetEnabled(g.key, false)
	clock.ahead.Store(int64(8 * time.Hour))
	cause, check := g.locked(t)
	require.ErrorContains(t, cause, "the clock moved ahead, or the machine was suspended")
	require.ErrorIs(t, check, vault.ErrKeyDisabled)
	g.unusable(t)
}

// A key that expired meanwhile is said to have expired.
func TestWallClockAheadOfTheExpiry(t *testing.T) {
	t.Parallel()
	clock := &setClock{systemClock: newSystemClock()}
	g := openOn(t, clock, time.Now().Add(time.Hour))
	clock.ahead.Store(int64(8 * time.Hour))
	cause, check := g.locked(t)
	require.ErrorIs(t, cause, vault.ErrKeyExpired)
	require.ErrorIs(t, check, vault.ErrKeyExpired)
	g.unusable(t)
}

// A clock that is set back, also the vault's, does not give an expired key another two
// hours.
func TestWallClockSetBackBeforeAnExpiry(t *testing.T) {
	t.Parallel()
	var asleep atomic.Int64
	clock := &setClock{systemClock: sleeping(&asleep)}
	g := openOn(t, clock, time.Now().Add(5*time.Minute))
	clock.ahead.Store(-int64(2 * time.Hour))
	asleep.Store(int64(6 * time.Minute)) // the key expires, and the lease goes on
	cause, check := g.locked(t)
	require.ErrorIs(t, cause, vault.ErrKeyExpired)
	require.ErrorIs(t, check, vault.ErrKeyExpired)
	g.unusable(t)
	for range 1000 {
		require.False(t, g.wallNow().Before(time.Now().Round(0).Add(-time.Hour)))
	}
}

// A machine that slept past the lease locks by the clock that went on, also if the wall
// clock lost the time or was set back.
func TestLeaseGoesOnInASuspension(t *testing.T) {
	t.Parallel()
	var asleep atomic.Int64
	g := openOn(t, sleeping(&asleep), time.Time{})
	g.vault.SetEnabled(g.key, false)
	asleep.Store(int64(8 * time.Hour))
	cause, check := g.locked(t)
	require.ErrorIs(t, cause, ErrLeaseEnded)
	require.ErrorIs(t, check, vault.ErrKeyDisabled)
	g.unusable(t)
}

// The time asleep is added, all of it and no more, and never goes back.
func TestElapsedCountsSuspensions(t *testing.T) {
	t.Parallel()
	var mu sync.Mutex
	var asleep time.Duration
	began := time.Now()
	c := newClockOn(func() (time.Duration, bool) {
		mu.Lock()
		defer mu.Unlock()
		return 1000*time.Hour + time.Since(began) + asleep, true
	})
	for _, total := range []time.Duration{time.Hour, time.Hour, 9 * time.Hour, 2 * time.Hour} { // a clock that goes back is wrong
		mu.Lock()
		asleep = total
		mu.Unlock()
		last := c.Elapsed()
		want := max(total, last.Truncate(time.Hour))
		for c.Elapsed() < want { // by the next look
			now := c.Elapsed()
			require.GreaterOrEqual(t, now, last)
			last = now
		}
		require.Less(t, c.Elapsed(), want+time.Since(began)+time.Nanosecond)
	}
	// Without such a clock it is the monotonic one.
	c = newClockOn(func() (time.Duration, bool) { return 0, false })
	before := time.Since(c.origin)
	for time.Since(c.origin) < 2*lookEvery {
		c.Elapsed()
	}
	require.Greater(t, c.Elapsed(), before)
	require.LessOrEqual(t, c.Elapsed(), time.Since(c.origin))
}

// The system's clock is never behind Go's, and goes on with it.
func TestSystemClockIsNotBehind(t *testing.T) {
	t.Parallel()
	c := newSystemClock()
	for range 3 {
		mono := time.Since(c.origin)
		require.GreaterOrEqual(t, c.Elapsed(), mono)
		for time.Since(c.origin) < mono+lookEvery {
			c.Elapsed()
		}
	}
}

func BenchmarkElapsed(b *testing.B) {
	c := newSystemClock()
	b.Run("Elapsed", func(b *testing.B) {
		for b.Loop() {
			c.Elapsed()
		}
	})
	b.Run("monotonic clock", func(b *testing.B) {
		for b.Loop() {
			time.Since(c.origin)
		}
	})
}
