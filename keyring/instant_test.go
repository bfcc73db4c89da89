package keyring_test

import (
	"context"
	"fmt"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/blockseal/blockseal/internal/inner"
	"github.com/blockseal/blockseal/kek"
	"github.com/blockseal/blockseal/keyring"
	"github.com/blockseal/blockseal/vault"
	"github.com/blockseal/blockseal/vault/vaulttest"
)

// A virtual machine that was stopped, or resumed from a snapshot, has a wall clock that
// jumped ahead, once it was set, and no other clock that went on: to a lease that is the
// time that has passed, to the second, wherever between one lease and the next it lands.
func TestResumedPastTheLease(t *testing.T) {
	const used = 3 * time.Minute
	for _, stopped := range []time.Duration{
		7*time.Minute - 2*time.Second, 7*time.Minute - time.Second, 7 * time.Minute, 8 * time.Minute, 15 * time.Minute, 8 * time.Hour,
	} {
		t.Run(stopped.String(), func(t *testing.T) {
			bubble(t, func(t *testing.T, g *rig) {
				r := g.create()
				g.vault.SetOutage(vaulttest.NetworkGone())
				g.pass(used)
				g.clock.Step(stopped)
				left := keyring.DefaultLease - used - stopped
				for ; left > time.Second; left -= time.Second {
					g.pass(time.Second)
					require.True(t, usable(t, r), "%v are left of the lease", left-time.Second)
				}
				g.pass(time.Second)
				require.False(t, usable(t, r))
				require.ErrorContains(t, r.State().Cause, "the clock moved ahead, or the machine was suspended")
			})
		})
	}
}

// late is a clock whose timers do not ring, as after a pause of the process, unless they
// are the watch's.
type late struct{ *vaulttest.Clock }

func (c late) AfterFunc(d time.Duration, f func()) func() bool {
	if d == time.Second {
		return c.Clock.AfterFunc(d, f)
	}
	return func() bool { return true }
}

// silent is one whose timers do not ring at all.
type silent struct{ *vaulttest.Clock }

func (silent) AfterFunc(time.Duration, func()) func() bool { return func() bool { return true } }

// What ends at an instant has ended at that instant, for each of those who look: the
// operation, the watch by either clock, and the check that comes back.
func TestEndsAtItsInstant(t *testing.T) {
	// acquires reports whether a hold is to be had. The first refusal begins a lock.
	acquires := func(r *keyring.Keyring) bool {
		h, err := r.Acquire()
		if err != nil {
			return false
		}
		h.Release()
		return true
	}
	t.Run("an operation, without any timer", func(t *testing.T) {
		for end, expires := range map[time.Duration]time.Time{
			keyring.DefaultLease: {}, 2 * time.Minute: start.Add(2 * time.Minute),
		} {
			g := newRig(t)
			g.opts.Clock = silent{g.clock}
			g.vault.SetDates(g.key, time.Time{}, expires)
			r := g.create()
			g.clock.Advance(end - 1)
			require.True(t, acquires(r))
			g.clock.Advance(1)
			require.False(t, acquires(r))
		}
	})
	t.Run("an operation, without any timer, after the clock was set back", func(t *testing.T) {
		g := newRig(t)
		g.opts.Clock = silent{g.clock}
		r := g.create()
		g.clock.Step(-48 * time.Hour)
		next := g.vault.CreateKey("next")
		g.vault.SetDates(next, time.Time{}, start.Add(5*time.Minute))
		require.NoError(t, r.ChangeKEK(t.Context(), kek.New(g.vault, next)))
		g.clock.Advance(5*time.Minute - 1)
		require.True(t, acquires(r))
		g.clock.Advance(1)
		require.False(t, acquires(r))
	})
	t.Run("the watch, when the deadline's timer does not ring", func(t *testing.T) {
		bubble(t, func(t *testing.T, g *rig) {
			g.opts.Clock = late{g.clock}
			r := g.create()
			g.clock.Step(-time.Hour) // so that by the wall clock nothing has ended
			g.pass(keyring.DefaultLease - time.Second)
			require.Equal(t, keyring.Available, r.State().Status)
			g.vault.SetOutage(vaulttest.NetworkGone()) // what the lock asks is not answered
			g.pass(time.Second)
			require.Equal(t, keyring.Inaccessible, r.State().Status)
		})
	})
	t.Run("the watch, by the wall clock of the expiry", func(t *testing.T) {
		bubble(t, func(t *testing.T, g *rig) {
			g.vault.SetDates(g.key, time.Time{}, start.Add(5*time.Minute))
			r := g.create()
			g.clock.Step(4*time.Minute + 58*time.Second)
			g.pass(time.Second)
			require.True(t, usable(t, r))
			g.pass(time.Second)
			require.False(t, usable(t, r))
			require.ErrorIs(t, r.State().Cause, vault.ErrKeyExpired)
		})
	})
}

// slowly is a vault whose unwraps take as long as the test says.
type slowly struct {
	vault.Vault
	took func()
}

func (v slowly) UnwrapKey(ctx context.Context, w vault.Wrapped) ([]byte, error) {
	got, err := v.Vault.UnwrapKey(ctx, w)
	v.took()
	return got, err
}

// What was asked for in time and comes at the instant at which the lease ends, or later,
// revives nothing, though the lease that it would give has not ended: not with a check,
// and not with a move to another KEK.
func TestNothingRevivesASession(t *testing.T) {
	const asked = 5 * time.Minute
	for _, came := range []time.Duration{keyring.DefaultLease - 1, keyring.DefaultLease, keyring.DefaultLease + time.Minute} {
		for name, run := range map[string]func(g *rig, r *keyring.Keyring, s *keptStorage, took *func()) error{
			"check": func(g *rig, r *keyring.Keyring, _ *keptStorage, took *func()) error {
				*took = func() { g.clock.Advance(came - g.clock.Elapsed()) }
				return r.Revalidate(g.t.Context())
			},
			"change of the KEK": func(g *rig, r *keyring.Keyring, s *keptStorage, _ *func()) error {
				s.hook = func() { g.clock.Advance(came - asked) }
				require.NoError(g.t, r.ChangeKEK(g.t.Context(), kek.New(g.vault, g.vault.CreateKey("next"))))
				return nil
			},
		} {
			t.Run(fmt.Sprint(name, " at ", came), func(t *testing.T) {
				g := newRig(t)
				g.opts.Clock = silent{g.clock}
				took := func() {}
				s := &keptStorage{}
				r, err := keyring.Create(t.Context(), s, kek.New(slowly{g.vault, func() { took() }}, g.key.Versionless()), &g.opts)
				require.NoError(t, err)
				defer r.Close()
				h, err := r.Acquire()
				require.NoError(t, err)
				first := h.For(inner.Block{}).Session()
				h.Release()
				g.clock.Advance(asked)
				err = run(g, r, s, &took)
				if came < keyring.DefaultLease {
					require.NoError(t, err)
					require.Equal(t, start.Add(asked+keyring.DefaultLease), r.State().LeaseEnd)
				} else {
					require.Equal(t, name == "check", err != nil)
				}
				if h, err = r.For(inner.Block{}).AcquireSession(first); err == nil {
					h.Release()
				}
				if came < keyring.DefaultLease {
					require.NoError(t, err)
				} else {
					require.ErrorIs(t, err, keyring.ErrInaccessible)
				}
			})
		}
	}
}
