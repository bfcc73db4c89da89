package keyring_test

import (
	"bytes"
	"context"
	"errors"
	"slices"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/blockseal/blockseal/internal/inner"
	"github.com/blockseal/blockseal/internal/test/bubbles"
	"github.com/blockseal/blockseal/kek"
	"github.com/blockseal/blockseal/keyring"
	"github.com/blockseal/blockseal/vault"
	"github.com/blockseal/blockseal/vault/vaulttest"
)

// bubble runs f with a rig of its own in a bubble of package bubbles, so that pass
// can wait for what it set off.
func bubble(t *testing.T, f func(t *testing.T, g *rig)) {
	bubbles.Test(t, func(t *testing.T) {
		// When all is closed, time goes on for who waits for holds to be rid of an epoch's keys.
		t.Cleanup(func() { time.Sleep(time.Minute) })
		g := newRig(t)
		g.opts.Clock = bubbles.Resting{Clock: g.clock}
		f(t, g)
	})
}

// pass lets time pass, a second at a time, and waits each time until the keyring has
// come to rest.
func (g *rig) pass(d time.Duration) {
	for ; d > 0; d -= time.Second {
		g.clock.Advance(min(d, time.Second))
		synctest.Wait()
	}
}

// passUntil lets time pass until something is so, and not much more: what is drawn by lot,
// as the moment of a check is, comes on no second of a test's choosing.
func (g *rig) passUntil(so func() bool) {
	g.t.Helper()
	for range 10 * 60 * 1000 {
		if so() {
			return
		}
		g.pass(time.Millisecond)
	}
	g.t.Fatal("it has not come about in ten minutes")
}

// calls is a vault that notes when it was asked what.
type calls struct {
	vault.Vault
	clock *vaulttest.Clock
	mu    sync.Mutex
	at    map[vault.Operation][]time.Duration
}

func (g *rig) noteCalls() *calls {
	c := &calls{Vault: g.vault, clock: g.clock, at: map[vault.Operation][]time.Duration{}}
	g.kek = kek.New(c, g.kek.ID())
	return c
}

func (c *calls) note(op vault.Operation) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.at[op] = append(c.at[op], c.clock.Elapsed())
}

// of returns the times of the calls of an operation.
func (c *calls) of(op vault.Operation) []time.Duration {
	c.mu.Lock()
	defer c.mu.Unlock()
	return slices.Clone(c.at[op])
}

func (c *calls) GetKey(ctx context.Context, id vault.KeyID) (vault.Key, error) {
	c.note(vault.OpGet)
	return c.Vault.GetKey(ctx, id)
}

func (c *calls) WrapKey(ctx context.Context, id vault.KeyID, secret []byte) (vault.Wrapped, error) {
	c.note(vault.OpWrapKey)
	return c.Vault.WrapKey(ctx, id, secret)
}

func (c *calls) UnwrapKey(ctx context.Context, w vault.Wrapped) ([]byte, error) {
	c.note(vault.OpUnwrapKey)
	return c.Vault.UnwrapKey(ctx, w)
}

// usable reports whether keys may be used, which must be what the state says.
func usable(t *testing.T, r *keyring.Keyring) bool {
	t.Helper()
	h, err := r.Acquire()
	if err == nil {
		h.Release()
	} else {
		require.ErrorIs(t, err, keyring.ErrInaccessible)
	}
	st := r.State().Status
	require.Equal(t, st == keyring.Available || st == keyring.Degraded, err == nil, "%v: %v", st, err)
	return err == nil
}

// As long as the unwrap does not come back, GetKey and WrapKey may succeed as often
// as they like: the lease ends when it was to end, to the second.
func TestOnlyAnUnwrapExtendsTheLease(t *testing.T) {
	for name, f := range map[string]vaulttest.Fault{
		"fails":        {Err: vaulttest.Unavailable()},
		"throttled":    {Err: vaulttest.Throttled(0)},
		"not an error": {Err: errors.New("something else")},
		"hangs":        {Hang: true},
		"stuck":        {Stuck: true},
	} {
		t.Run(name, func(t *testing.T) {
			bubble(t, func(t *testing.T, g *rig) {
				r := g.create()
				end := r.State().LeaseEnd
				require.Equal(t, start.Add(keyring.DefaultLease), end)
				f.Op = vault.OpUnwrapKey
				defer g.vault.Inject(f)()
				g.vault.ResetCalls()
				for range 10*60 - 1 {
					g.pass(time.Second)
					require.True(t, usable(t, r))
					require.Equal(t, end, r.State().LeaseEnd)
					require.Equal(t, start, r.State().LastSuccess)
				}
				require.Equal(t, keyring.Degraded, r.State().Status)
				if !f.Stuck { // a vault that holds on to calls gets no more than a few
					require.ErrorIs(t, r.State().Cause, r.State().LastCheckErr)
					require.Greater(t, g.vault.Calls().Get, 7)
					require.Greater(t, g.vault.Calls().Wrap, 7)
				}
				g.pass(time.Second)
				require.False(t, usable(t, r))
				require.Equal(t, end, r.State().Since)
			})
		})
	}
}

// A vault that unwraps to anything but what the keyring had it wrap does not have
// the key any more.
func TestAnotherSecretLocks(t *testing.T) {
	for name, plaintext := range map[string][]byte{
		"other":  bytes.Repeat([]byte{7}, 32),
		"short":  make([]byte, 31),
		"long":   make([]byte, 33),
		"a byte": {1},
	} {
		t.Run(name, func(t *testing.T) {
			bubble(t, func(t *testing.T, g *rig) {
				r := g.create()
				remove := g.vault.Inject(vaulttest.Fault{Op: vault.OpUnwrapKey, Plaintext: plaintext})
				g.pass(time.Minute)
				require.False(t, usable(t, r))
				require.ErrorIs(t, r.State().Cause, vault.ErrUnsupportedKey)
				require.ErrorContains(t, r.State().Cause, "the vault's key is not the one that wrapped the keyring")
				// Nor does such an answer begin a session.
				require.Error(t, r.Revalidate(t.Context()))
				require.False(t, usable(t, r))
				remove()
				g.pass(time.Minute)
				require.True(t, usable(t, r))
			})
		})
	}
}

// The answer to a call that was given up is too late, whatever it is.
func TestLateAnswersDoNotExtend(t *testing.T) {
	bubble(t, func(t *testing.T, g *rig) {
		r := g.create()
		end := r.State().LeaseEnd
		release := g.vault.Inject(vaulttest.Fault{Op: vault.OpUnwrapKey, Stuck: true})
		defer release()
		for g.vault.Waiting() == 0 {
			g.pass(time.Second)
		}
		g.pass(keyring.DefaultVaultTimeout + time.Second)
		require.Equal(t, keyring.Degraded, r.State().Status)
		require.ErrorContains(t, r.State().Cause, "no answer within 10s")
		require.Equal(t, 1, g.vault.Waiting(), "the call is still there")
		release()
		synctest.Wait()
		require.Zero(t, g.vault.Waiting(), "and has been answered")
		require.Equal(t, keyring.Degraded, r.State().Status)
		require.Equal(t, end, r.State().LeaseEnd)
		require.Equal(t, start, r.State().LastSuccess)
		g.pass(time.Minute)
		require.Equal(t, keyring.Available, r.State().Status, "the next check is in time")
	})
}

// The vault may have decided as soon as it had the call: the lease runs from when
// the unwrap was sent, not from when the answer came.
func TestLeaseRunsFromWhenTheUnwrapWasSent(t *testing.T) {
	bubble(t, func(t *testing.T, g *rig) {
		c := g.noteCalls()
		r := g.create()
		defer g.vault.Inject(vaulttest.Fault{Op: vault.OpUnwrapKey, Delay: 8 * time.Second})()
		for range 5 {
			g.pass(time.Minute)
			g.pass(20 * time.Second)
			st := r.State()
			require.Equal(t, keyring.Available, st.Status)
			require.Equal(t, st.LastSuccess.Add(keyring.DefaultLease), st.LeaseEnd)
			sent := c.of(vault.OpUnwrapKey)
			require.Contains(t, sent, st.LastSuccess.Sub(start))
			require.Greater(t, len(sent), 1)
			require.GreaterOrEqual(t, st.LastCheck.Sub(st.LastSuccess), 8*time.Second)
		}
	})
}

// An answer that was asked for in time and comes when the lease is over does not
// extend that lease: it begins another, from when it was asked for. With
// ManualRevalidation it begins one only for somebody who asked for it.
func TestAnswerAfterTheLeaseEnded(t *testing.T) {
	bubble(t, func(t *testing.T, g *rig) {
		r := g.create()
		h, err := r.Acquire()
		require.NoError(t, err)
		session := h.For(inner.Block{}).Session()
		h.Release()
		outage := g.vault.Inject(vaulttest.Fault{Err: vaulttest.Unavailable()})
		g.pass(9*time.Minute + 55*time.Second)
		require.True(t, usable(t, r))
		outage()
		defer g.vault.Inject(vaulttest.Fault{Op: vault.OpUnwrapKey, Delay: 8 * time.Second})()
		go r.Revalidate(t.Context())
		synctest.Wait() // it was sent at 9:55, before the clock goes on
		g.pass(4 * time.Second)
		require.True(t, usable(t, r))
		for range 3 { // the lease ends at 10:00, the answer comes at 10:03
			g.pass(time.Second)
			require.False(t, usable(t, r))
		}
		g.pass(2 * time.Second)
		require.True(t, usable(t, r))
		_, err = r.For(inner.Block{}).AcquireSession(session)
		require.ErrorIs(t, err, keyring.ErrInaccessible, "what was open stays ended")
		require.Equal(t, r.State().LastSuccess.Add(keyring.DefaultLease), r.State().LeaseEnd)
	})
	bubble(t, func(t *testing.T, g *rig) {
		g.opts.ManualRevalidation, g.opts.Lease, g.opts.CheckEvery = true, time.Minute, 20*time.Second
		r := g.create()
		outage := g.vault.Inject(vaulttest.Fault{Err: vaulttest.Unavailable()})
		g.pass(50 * time.Second)
		outage()
		remove := g.vault.Inject(vaulttest.Fault{Op: vault.OpUnwrapKey, Delay: 8 * time.Second})
		// The third check begins between 54 and 60 seconds, at a moment that is drawn by lot:
		// in one of 48 cases in the last of them.
		g.passUntil(func() bool { return g.vault.Waiting() == 1 })
		require.True(t, usable(t, r))
		g.pass(r.State().LeaseEnd.Sub(g.clock.Now()))
		require.False(t, usable(t, r), "at 60 seconds the lease has ended")
		for range 20 { // its answer comes between 62 and 68
			g.pass(time.Second)
			require.False(t, usable(t, r))
		}
		require.Zero(t, g.vault.Waiting())
		require.ErrorContains(t, r.State().Cause, "the lease ended: no unwrap succeeded in time")
		remove()
		g.pass(time.Hour)
		require.False(t, usable(t, r))
		require.NoError(t, r.Revalidate(t.Context()))
		require.True(t, usable(t, r))
	})
}

// Access that would be over when the answer comes does not begin: not for a moment,
// and nobody is told that it did.
func TestAnswerThatIsTooLateForAnything(t *testing.T) {
	available := func(e *ear) (n int) {
		for _, ev := range e.take(keyring.StateChanged) {
			if ev.To == keyring.Available {
				n++
			}
		}
		return n
	}
	bubble(t, func(t *testing.T, g *rig) { // the key expires meanwhile
		e := g.listen()
		g.vault.SetDates(g.key, time.Time{}, start.Add(10*time.Second))
		r := g.create()
		require.Equal(t, 1, available(e))
		defer g.vault.Inject(vaulttest.Fault{Op: vault.OpUnwrapKey, Delay: 8 * time.Second})()
		g.pass(5 * time.Second)
		failed := make(chan error, 1)
		go func() { failed <- r.Revalidate(t.Context()) }()
		synctest.Wait()
		g.pass(time.Minute)
		require.ErrorIs(t, <-failed, vault.ErrKeyExpired)
		require.ErrorIs(t, r.State().Cause, vault.ErrKeyExpired)
		require.Zero(t, available(e))
	})
	bubble(t, func(t *testing.T, g *rig) { // a vault slower than the lease
		e := g.listen()
		g.opts.Lease, g.opts.VaultTimeout = 20*time.Second, time.Minute
		r := g.create()
		require.Equal(t, 1, available(e))
		remove := g.vault.Inject(vaulttest.Fault{Op: vault.OpUnwrapKey, Delay: 30 * time.Second})
		g.pass(10 * time.Minute)
		require.False(t, usable(t, r))
		require.ErrorContains(t, r.State().Cause, "the lease ended")
		require.Zero(t, available(e))
		remove()
		g.pass(time.Minute)
		require.True(t, usable(t, r))
	})
}

// A vault that does not answer holds up nobody, not even one that ignores that the
// caller gave up; and only so many calls wait in it.
func TestHangingVaultStallsNothing(t *testing.T) {
	for name, f := range map[string]vaulttest.Fault{"hangs": {Hang: true}, "stuck": {Stuck: true}} {
		t.Run(name, func(t *testing.T) {
			bubble(t, func(t *testing.T, g *rig) {
				r := g.create()
				defer g.vault.Inject(f)()
				for g.vault.Waiting() == 0 {
					g.pass(time.Second)
				}
				began := time.Now() // the bubble's clock: it moves when everybody waits
				require.True(t, usable(t, r), "a check is under way")
				g.pass(time.Hour)
				require.False(t, usable(t, r))
				require.LessOrEqual(t, g.vault.Waiting(), 8)
				for g.vault.Waiting() == 0 {
					g.pass(time.Second)
				}
				ctx, cancel := context.WithCancel(t.Context())
				done := make(chan error)
				go func() { done <- r.Revalidate(ctx) }()
				synctest.Wait()
				cancel()
				if err := <-done; f.Stuck {
					require.ErrorIs(t, err, vault.ErrUnavailable, "it is not asked again: too many calls wait in it")
				} else {
					require.ErrorIs(t, err, context.Canceled)
				}
				go func() { done <- r.Revalidate(context.Background()) }()
				synctest.Wait()
				require.NoError(t, r.Close())
				if err := <-done; !f.Stuck {
					require.ErrorIs(t, err, keyring.ErrClosed)
				}
				require.Equal(t, keyring.Closed, r.State().Status)
				require.Zero(t, time.Since(began), "nothing of this waited for the clock")
			})
		})
	}
}
