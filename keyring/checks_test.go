package keyring_test

import (
	"context"
	"fmt"
	"slices"
	"sync"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/blockseal/blockseal/kek"
	"github.com/blockseal/blockseal/keyring"
	"github.com/blockseal/blockseal/vault"
	"github.com/blockseal/blockseal/vault/vaulttest"
)

// A vault that asks for time gets it, up to a quarter of the lease.
func TestRetryAfter(t *testing.T) {
	for _, tt := range []struct{ asked, least, most time.Duration }{
		{0, 54 * time.Second, 62 * time.Second},
		{90 * time.Second, 90 * time.Second, 122 * time.Second},
		{time.Hour, 150 * time.Second, 182 * time.Second},
	} {
		t.Run(tt.asked.String(), func(t *testing.T) {
			bubble(t, func(t *testing.T, g *rig) {
				c := g.noteCalls()
				r := g.create()
				g.vault.SetOutage(vaulttest.Throttled(tt.asked))
				g.pass(9 * time.Minute)
				require.Equal(t, keyring.Degraded, r.State().Status)
				require.ErrorIs(t, r.State().Cause, vault.ErrThrottled)
				at := c.of(vault.OpGet)[1:] // without Create's
				require.Greater(t, len(at), 2)
				for i := range at[1:] {
					gap := at[i+1] - at[i]
					require.GreaterOrEqual(t, gap, tt.least)
					require.LessOrEqual(t, gap, tt.most)
				}
				// Revalidate does not wait.
				g.vault.SetOutage(nil)
				require.NoError(t, r.Revalidate(t.Context()))
			})
		})
	}
}

// timers is a clock that notes which timers were set.
type timers struct {
	*vaulttest.Clock
	mu  sync.Mutex
	set []time.Duration
}

func (c *timers) AfterFunc(d time.Duration, f func()) func() bool {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.set = append(c.set, d)
	return c.Clock.AfterFunc(d, f)
}

// Checks come up to a tenth early, never late, and not in step with one another.
func TestJitter(t *testing.T) {
	bubble(t, func(t *testing.T, g *rig) {
		c := &timers{Clock: g.clock}
		g.opts.Clock, g.opts.CheckEvery, g.opts.VaultTimeout = c, 40*time.Second, time.Second
		r := g.create()
		g.pass(40 * time.Minute)
		require.True(t, usable(t, r))
		var checks []time.Duration
		for _, d := range c.set {
			// Beside checks: a second for the watch and for each call, and the lease.
			if d > time.Second && d < 9*time.Minute {
				checks = append(checks, d)
			}
		}
		require.GreaterOrEqual(t, len(checks), 60)
		low, high := slices.Min(checks), slices.Max(checks)
		require.GreaterOrEqual(t, low, 36*time.Second)
		require.LessOrEqual(t, high, 40*time.Second)
		require.Greater(t, high-low, time.Second, "spread over the tenth")
		slices.Sort(checks)
		require.Greater(t, len(slices.Compact(checks)), 50)
	})
}

// Options that break the promise are refused, and say so.
func TestLeaseOptions(t *testing.T) {
	for name, tt := range map[string]struct {
		opts keyring.Options
		text string // of the error; "" is none
	}{
		"defaults":             {keyring.Options{}, ""},
		"the longest":          {keyring.Options{Lease: keyring.MaxLease}, ""},
		"longer":               {keyring.Options{Lease: keyring.MaxLease + 1}, "set AllowLongLease to mean it"},
		"longer on purpose":    {keyring.Options{Lease: 24 * time.Hour, AllowLongLease: true}, ""},
		"negative lease":       {keyring.Options{Lease: -1}, "must not be negative"},
		"negative interval":    {keyring.Options{CheckEvery: -1}, "must not be negative"},
		"negative timeout":     {keyring.Options{VaultTimeout: -1}, "must not be negative"},
		"half the lease":       {keyring.Options{Lease: time.Minute, CheckEvery: 30 * time.Second}, ""},
		"more than half":       {keyring.Options{Lease: time.Minute, CheckEvery: 31 * time.Second}, "longer than half the Lease"},
		"short lease":          {keyring.Options{Lease: 20 * time.Second}, ""},
		"interval over lease":  {keyring.Options{CheckEvery: 6 * time.Minute}, "longer than half the Lease"},
		"epochs without bound": {keyring.Options{EpochMaxDEKs: keyring.MaxEpochDEKs + 1}, "EpochMaxDEKs"},
		"another wrapping":     {keyring.Options{Wrapping: 3}, "unknown Wrapping(3)"},
	} {
		t.Run(name, func(t *testing.T) {
			g := newRig(t)
			tt.opts.Clock = g.clock
			r, err := keyring.Create(t.Context(), g.storage, g.kek, &tt.opts)
			if tt.text != "" {
				require.ErrorContains(t, err, tt.text)
				require.Zero(t, g.vault.Calls().Total(), "refused before anybody is asked")
				_, err = keyring.Document(t.Context(), g.storage)
				require.ErrorIs(t, err, keyring.ErrNoDocument)
				return
			}
			require.NoError(t, err)
			require.NoError(t, r.Close())
		})
	}
}

// The lease is as long as was asked for: a short one with checks that fit into it, a
// long one if it was meant.
func TestOtherLeases(t *testing.T) {
	for _, lease := range []time.Duration{20 * time.Second, 3 * time.Minute, time.Hour} {
		t.Run(lease.String(), func(t *testing.T) {
			bubble(t, func(t *testing.T, g *rig) {
				g.opts.Lease, g.opts.AllowLongLease = lease, lease > keyring.MaxLease
				r := g.create()
				g.pass(2 * lease)
				require.Equal(t, keyring.Available, r.State().Status)
				g.vault.SetOutage(vaulttest.NetworkGone())
				last := r.State().LastSuccess
				require.Less(t, g.clock.Now().Sub(last), lease/2+2*time.Second, "checks keep up")
				for g.clock.Now().Before(last.Add(lease - time.Second)) {
					g.pass(time.Second)
					require.True(t, usable(t, r))
				}
				g.pass(2 * time.Second)
				require.False(t, usable(t, r))
			})
		})
	}
}

// marked notes which calls were marked as those that keep access alive.
type marked struct {
	vault.Vault
	mu    sync.Mutex
	calls map[string]int
}

func (m *marked) note(ctx context.Context, op vault.Operation) {
	m.mu.Lock()
	defer m.mu.Unlock()
	m.calls[fmt.Sprint(op, " ", vault.Priority(ctx))]++
}

func (m *marked) GetKey(ctx context.Context, id vault.KeyID) (vault.Key, error) {
	m.note(ctx, vault.OpGet)
	return m.Vault.GetKey(ctx, id)
}

func (m *marked) WrapKey(ctx context.Context, id vault.KeyID, secret []byte) (vault.Wrapped, error) {
	m.note(ctx, vault.OpWrapKey)
	return m.Vault.WrapKey(ctx, id, secret)
}

func (m *marked) UnwrapKey(ctx context.Context, w vault.Wrapped) ([]byte, error) {
	m.note(ctx, vault.OpUnwrapKey)
	return m.Vault.UnwrapKey(ctx, w)
}

// A client that makes callers wait lets the checks go before the blocks' calls.
func TestChecksAreMarked(t *testing.T) {
	g := newRig(t)
	g.opts.Wrapping, g.opts.DEKCache = keyring.ByKEK, -1
	m := &marked{Vault: g.vault, calls: map[string]int{}}
	g.kek = kek.New(m, g.key.Versionless())
	r := g.create()
	clear(m.calls)
	require.NoError(t, r.Revalidate(t.Context()))
	_, record, err := r.NewDEK(t.Context(), []byte("block"))
	require.NoError(t, err)
	_, err = r.OpenDEK(t.Context(), record, []byte("block"))
	require.NoError(t, err)
	require.Equal(t, map[string]int{"get true": 1, "wrapKey true": 1, "unwrapKey true": 1, "wrapKey false": 1, "unwrapKey false": 1}, m.calls)
}
