package keyring_test

import (
	"context"
	"errors"
	"fmt"
	"testing"
	"testing/synctest"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/blockseal/blockseal/internal/inner"
	"github.com/blockseal/blockseal/keyring"
	"github.com/blockseal/blockseal/vault"
	"github.com/blockseal/blockseal/vault/vaulttest"
)

// Whatever the vault says no with, to whichever of the three questions, locks at the
// next check, and what it fails with does not. The reason stays findable.
func TestEveryAnswer(t *testing.T) {
	denials := []error{
		vault.ErrKeyNotFound, vault.ErrKeyDeleted, vault.ErrKeyDisabled, vault.ErrKeyExpired, vault.ErrKeyNotYetValid,
		vault.ErrAccessDenied, vault.ErrWrongTenant, vault.ErrUnsupportedKey, vault.ErrBadCiphertext,
		errors.Join(vault.ErrUnavailable, vault.ErrAccessDenied),
	}
	failures := []error{
		vault.ErrThrottled, vault.ErrUnavailable, context.DeadlineExceeded, context.Canceled, errors.New("what is this"),
	}
	for _, op := range []vault.Operation{vault.OpGet, vault.OpWrapKey, vault.OpUnwrapKey} {
		for i, answer := range append(denials, failures...) {
			t.Run(fmt.Sprintf("%s/%v", op, answer), func(t *testing.T) {
				bubble(t, func(t *testing.T, g *rig) {
					r := g.create()
					remove := g.vault.Inject(vaulttest.Fault{Op: op, Err: answer})
					g.pass(time.Minute)
					st := r.State()
					require.ErrorIs(t, st.Cause, answer)
					if i >= len(denials) {
						require.Equal(t, keyring.Degraded, st.Status)
						require.True(t, usable(t, r))
						return
					}
					require.False(t, usable(t, r))
					_, err := r.Acquire()
					require.ErrorIs(t, err, keyring.ErrInaccessible)
					require.ErrorIs(t, err, answer)
					require.Zero(t, st.LeaseEnd)
					require.Zero(t, st.Epochs)
					remove()
					g.pass(time.Minute)
					require.True(t, usable(t, r))
					require.Nil(t, r.State().Cause)
				})
			})
		}
	}
}

// A keyring that was locked stays locked with ManualRevalidation, whatever locked it,
// and comes back without.
func TestManualRevalidation(t *testing.T) {
	for _, manual := range []bool{false, true} {
		for name, lose := range map[string]func(g *rig) (back func()){
			"denied": func(g *rig) func() {
				g.vault.SetEnabled(g.key, false)
				return func() { g.vault.SetEnabled(g.key, true) }
			},
			"the lease ends": func(g *rig) func() {
				g.vault.SetOutage(vaulttest.NetworkGone())
				return func() { g.vault.SetOutage(nil) }
			},
			"the key expires": func(g *rig) func() {
				g.vault.SetDates(g.key, time.Time{}, g.clock.Now().Add(150*time.Second))
				return func() { g.vault.SetDates(g.key, time.Time{}, time.Time{}) }
			},
		} {
			t.Run(fmt.Sprintf("%s/manual=%v", name, manual), func(t *testing.T) {
				bubble(t, func(t *testing.T, g *rig) {
					g.opts.ManualRevalidation = manual
					r := g.create()
					back := lose(g)
					g.pass(10 * time.Minute)
					require.False(t, usable(t, r))
					back()
					before := g.vault.Calls()
					g.pass(time.Minute + time.Second)
					require.Equal(t, !manual, usable(t, r))
					if manual {
						g.pass(time.Hour)
						require.Equal(t, before, g.vault.Calls(), "nobody asks")
						require.NoError(t, r.Revalidate(t.Context()))
					}
					require.True(t, usable(t, r))
					g.pass(time.Hour)
					require.True(t, usable(t, r))
				})
			})
		}
	}
}

// Open tells a vault that refuses from a document that is no good.
func TestOpenWithoutAccess(t *testing.T) {
	for name, f := range map[string]vaulttest.Fault{
		"denied":      {Err: vaulttest.AccessDeniedByRBAC()},
		"unavailable": {Err: vaulttest.NetworkGone()},
		"no unwrap":   {Op: vault.OpUnwrapKey, Err: vaulttest.AccessDeniedByPolicy()},
	} {
		t.Run(name, func(t *testing.T) {
			bubble(t, func(t *testing.T, g *rig) {
				require.NoError(t, g.create().Close())
				remove := g.vault.Inject(f)
				kind := vault.Kind(f.Err)
				g.opts.RequireAccess = true
				_, err := keyring.Open(t.Context(), g.storage, g.kek, &g.opts)
				require.ErrorIs(t, err, keyring.ErrInaccessible)
				require.ErrorIs(t, err, kind)
				g.opts.RequireAccess = false
				r := g.open()
				require.Equal(t, keyring.Inaccessible, r.State().Status)
				require.ErrorIs(t, r.State().Cause, kind)
				require.Zero(t, r.State().LastSuccess)
				require.Zero(t, r.Fingerprint())
				remove()
				g.pass(time.Minute)
				require.True(t, usable(t, r))
				require.NotZero(t, r.Fingerprint())
			})
		})
	}
	t.Run("the vault hangs", func(t *testing.T) {
		bubble(t, func(t *testing.T, g *rig) {
			require.NoError(t, g.create().Close())
			defer g.vault.Inject(vaulttest.Fault{Hang: true})()
			opened := make(chan *keyring.Keyring)
			go func() { opened <- g.open() }()
			synctest.Wait()
			g.pass(keyring.DefaultVaultTimeout)
			require.Equal(t, keyring.Inaccessible, (<-opened).State().Status)
		})
	})
	t.Run("the caller gives up", func(t *testing.T) {
		bubble(t, func(t *testing.T, g *rig) {
			require.NoError(t, g.create().Close())
			defer g.vault.Inject(vaulttest.Fault{Hang: true})()
			ctx, cancel := context.WithCancel(t.Context())
			failed := make(chan error)
			go func() {
				_, err := keyring.Open(ctx, g.storage, g.kek, &g.opts)
				failed <- err
			}()
			synctest.Wait()
			cancel()
			require.ErrorIs(t, <-failed, context.Canceled)
		})
	})
}

// A copy asks nobody until somebody asks it to, and goes on waiting when that fails.
func TestAwaitRevalidate(t *testing.T) {
	bubble(t, func(t *testing.T, g *rig) {
		require.NoError(t, g.create().Close())
		g.vault.ResetCalls()
		g.opts.For(inner.Block{}).AwaitRevalidate = true
		r := g.open()
		g.pass(time.Hour)
		require.False(t, usable(t, r))
		require.Zero(t, g.vault.Calls().Total())
		for _, err := range []*vault.Error{vaulttest.NetworkGone(), vaulttest.AccessDeniedByRBAC()} {
			g.vault.SetOutage(err)
			require.ErrorIs(t, r.Revalidate(t.Context()), err.Kind)
			require.ErrorIs(t, r.State().Cause, err.Kind)
			g.vault.SetOutage(nil)
			g.vault.ResetCalls()
			g.pass(time.Hour)
			require.False(t, usable(t, r), "a Revalidate that failed was not one")
			require.Zero(t, g.vault.Calls().Total())
		}
		require.NoError(t, r.Revalidate(t.Context()))
		require.True(t, usable(t, r))
		// From then on it is like any other.
		g.vault.SetEnabled(g.key, false)
		g.pass(time.Minute)
		require.False(t, usable(t, r))
		g.vault.SetEnabled(g.key, true)
		g.pass(time.Minute)
		require.True(t, usable(t, r))
	})
}

// A caller who gives up on Revalidate has changed nothing.
func TestRevalidateGivenUp(t *testing.T) {
	bubble(t, func(t *testing.T, g *rig) {
		r := g.create()
		before := r.State()
		remove := g.vault.Inject(vaulttest.Fault{Op: vault.OpWrapKey, Hang: true})
		defer remove()
		ctx, cancel := context.WithCancel(t.Context())
		failed := make(chan error)
		go func() { failed <- r.Revalidate(ctx) }()
		synctest.Wait()
		cancel()
		require.ErrorIs(t, <-failed, context.Canceled)
		after := r.State()
		require.Equal(t, keyring.Available, after.Status)
		require.Equal(t, before.LeaseEnd, after.LeaseEnd)
		require.ErrorIs(t, r.Revalidate(ctx), context.Canceled)
	})
}

// What the wall clock does, forwards or backwards, moves the end of access closer or
// not at all.
func TestClockStepsExtendNothing(t *testing.T) {
	for _, step := range []time.Duration{-365 * 24 * time.Hour, -time.Hour, -time.Minute, time.Minute, 5 * time.Minute, time.Hour, 365 * 24 * time.Hour} {
		for _, at := range []time.Duration{0, 5 * time.Minute, 9 * time.Minute} {
			t.Run(fmt.Sprintf("lease/%v at %v", step, at), func(t *testing.T) {
				bubble(t, func(t *testing.T, g *rig) {
					r := g.create()
					g.vault.SetOutage(vaulttest.NetworkGone())
					g.pass(at)
					g.clock.Step(step)
					g.pass(2 * time.Second)
					if step < 0 || at+step < 10*time.Minute-10*time.Second {
						require.True(t, usable(t, r), "nor does it end sooner than it must")
					} else if step > 10*time.Minute {
						require.False(t, usable(t, r), "a machine that was suspended looks the same")
					}
					g.pass(10*time.Minute - at - 2*time.Second)
					require.False(t, usable(t, r))
				})
			})
		}
		t.Run(fmt.Sprintf("expiry/%v", step), func(t *testing.T) {
			bubble(t, func(t *testing.T, g *rig) {
				g.vault.SetDates(g.key, time.Time{}, start.Add(8*time.Minute))
				r := g.create()
				g.pass(3 * time.Minute)
				g.clock.Step(step)
				g.pass(2 * time.Second)
				require.Equal(t, step < 5*time.Minute-2*time.Second, usable(t, r))
				g.pass(5*time.Minute - 2*time.Second)
				require.False(t, usable(t, r))
				require.ErrorIs(t, r.State().Cause, vault.ErrKeyExpired)
				g.pass(30 * time.Minute)
				require.False(t, usable(t, r), "set back, the clock makes the key no younger")
			})
		})
	}
}

// A clock that was put right, by any amount, is not taken for one that keeps jumping:
// the vault is asked as often as before, and access does not come and go.
func TestClockStepsDisturbNothing(t *testing.T) {
	for _, step := range []time.Duration{-365 * 24 * time.Hour, -time.Hour, 5 * time.Minute, time.Hour} {
		t.Run(step.String(), func(t *testing.T) {
			bubble(t, func(t *testing.T, g *rig) {
				r := g.create()
				g.pass(2 * time.Minute)
				g.clock.Step(step)
				g.pass(2 * time.Minute)
				g.vault.ResetCalls()
				for range 20 * 60 {
					g.pass(time.Second)
					require.True(t, usable(t, r))
				}
				require.LessOrEqual(t, g.vault.Calls().Unwrap, 23)
			})
		})
	}
}

// After a Revalidate the wall clock counts as right again.
func TestRevalidateTrustsTheClock(t *testing.T) {
	bubble(t, func(t *testing.T, g *rig) {
		g.clock.Step(48 * time.Hour) // wrong at Open
		r := g.create()
		g.clock.Step(-48 * time.Hour)
		g.vault.SetDates(g.key, time.Time{}, start.Add(24*time.Hour))
		g.pass(time.Minute)
		require.False(t, usable(t, r))
		require.ErrorIs(t, r.State().Cause, vault.ErrKeyExpired)
		require.NoError(t, r.Revalidate(t.Context()))
		require.True(t, usable(t, r))
		g.pass(time.Hour)
		require.True(t, usable(t, r))
	})
}

// What the vault said no with stays the reason for a lock until it says something else,
// however long it is silent after that, and whatever else goes wrong; how the last check
// ended stands beside it.
func TestSilenceTakesNoDenialBack(t *testing.T) {
	for name, silence := range map[string]vaulttest.Fault{
		"no network": {Err: vaulttest.NetworkGone()},
		"hangs":      {Hang: true},
		"throttled":  {Err: vaulttest.Throttled(0)},
		"anything":   {Err: errors.New("what is this")},
	} {
		t.Run(name, func(t *testing.T) {
			bubble(t, func(t *testing.T, g *rig) {
				e := g.listen()
				r := g.create()
				g.vault.SetEnabled(g.key, false)
				g.pass(time.Minute)
				require.False(t, usable(t, r))
				denied := r.State()
				require.ErrorIs(t, denied.Cause, vault.ErrKeyDisabled)

				e.take(keyring.StateChanged)
				remove := g.vault.Inject(silence)
				g.pass(30 * time.Minute)
				st := r.State()
				require.Equal(t, denied.Cause, st.Cause)
				require.Equal(t, denied.Since, st.Since)
				require.NotErrorIs(t, st.LastCheckErr, vault.ErrKeyDisabled)
				require.True(t, st.LastCheck.After(denied.LastCheck))
				_, err := r.Acquire()
				require.ErrorIs(t, err, vault.ErrKeyDisabled)
				require.Empty(t, e.take(keyring.StateChanged))

				remove()
				g.vault.SetEnabled(g.key, true)
				g.vault.Delete("customer")
				g.pass(time.Minute + time.Second)
				require.ErrorIs(t, r.State().Cause, vault.ErrKeyDeleted, "another reason")
				g.vault.Recover("customer")
				g.pass(time.Minute)
				require.True(t, usable(t, r))
			})
		})
	}
}

// The end of a lease says what the vault said, also if it was silent at the last check.
func TestEndOfALeaseSaysWhatIsKnown(t *testing.T) {
	bubble(t, func(t *testing.T, g *rig) {
		r := g.create()
		remove := g.vault.Inject(vaulttest.Fault{Err: vaulttest.Throttled(0)})
		g.pass(5 * time.Minute)
		remove()
		g.vault.SetOutage(vaulttest.NetworkGone())
		g.pass(5 * time.Minute)
		require.False(t, usable(t, r))
		for range 2 { // at the end of the lease, and after a check
			cause := r.State().Cause
			require.ErrorContains(t, cause, "the lease ended: no unwrap succeeded in time; the last check: ")
			require.ErrorContains(t, cause, "network is unreachable; before that the vault said: ")
			require.ErrorIs(t, cause, vault.ErrThrottled)
			require.ErrorIs(t, cause, vault.ErrUnavailable)
			g.pass(2 * time.Minute)
		}
		g.vault.SetOutage(nil)
		g.pass(time.Minute)
		g.vault.SetOutage(vaulttest.NetworkGone())
		g.pass(10 * time.Minute)
		require.False(t, usable(t, r))
		require.NotErrorIs(t, r.State().Cause, vault.ErrThrottled, "it has said yes since")
	})
}
