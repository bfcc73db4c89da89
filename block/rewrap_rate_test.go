package block_test

import (
	"context"
	"fmt"
	"sync"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/blockseal/blockseal/block"
	"github.com/blockseal/blockseal/kek"
	"github.com/blockseal/blockseal/keyring"
	"github.com/blockseal/blockseal/vault"
	"github.com/blockseal/blockseal/vault/vaulttest"
)

// timedVault notes when it was called, by a clock.
type timedVault struct {
	*vaulttest.Vault
	clock *vaulttest.Clock
	mu    sync.Mutex
	at    []time.Duration
}

func (v *timedVault) note() {
	v.mu.Lock()
	defer v.mu.Unlock()
	v.at = append(v.at, v.clock.Elapsed())
}

func (v *timedVault) WrapKey(ctx context.Context, id vault.KeyID, secret []byte) (vault.Wrapped, error) {
	v.note()
	return v.Vault.WrapKey(ctx, id, secret)
}

func (v *timedVault) UnwrapKey(ctx context.Context, w vault.Wrapped) ([]byte, error) {
	v.note()
	return v.Vault.UnwrapKey(ctx, w)
}

// pacedClock moves by as much as somebody waits on it, if that is less than a second: only
// what keeps to a rate does that. It lets no call to the vault time out.
type pacedClock struct{ *vaulttest.Clock }

func (c pacedClock) AfterFunc(d time.Duration, f func()) (stop func() bool) {
	if d == keyring.DefaultVaultTimeout {
		return func() bool { return true }
	}
	stop = c.Clock.AfterFunc(d, f)
	if d < time.Second {
		go c.Advance(d)
	}
	return stop
}

// RewrapDEKs makes no more calls in any 10 seconds than Options.VaultRate and the tenth of
// it that may have been saved up, and no fewer than it may.
func TestRewrapKeepsToItsRate(t *testing.T) {
	g := newByKEKRig(t)
	g.opts.Keyring.DEKCache, g.opts.VaultRate, g.opts.Keyring.Clock = -1, 30, pacedClock{g.clock}
	v := &timedVault{Vault: g.vault, clock: g.clock}
	g.kek = kek.New(v, g.key.Versionless())
	s := g.open()
	const n = 40
	for i := range n {
		require.NoError(t, s.Put(g.ctx, fmt.Append(nil, i), nil))
	}
	g.vault.Rotate("customer")
	require.NoError(t, s.RotateKEK(g.ctx))
	v.mu.Lock()
	v.at = nil
	v.mu.Unlock()
	begin := g.clock.Elapsed()
	require.NoError(t, s.RewrapDEKs(g.ctx, nil))
	v.mu.Lock()
	defer v.mu.Unlock()
	require.Len(t, v.at, 3*n)
	for i, from := range v.at {
		calls := 0
		for _, at := range v.at[i:] {
			if at-from < 10*time.Second {
				calls++
			}
		}
		require.LessOrEqual(t, calls, 30+3, "in the 10 s from %v", from)
	}
	took := v.at[len(v.at)-1] - begin
	require.GreaterOrEqual(t, took, 38*time.Second)
	require.LessOrEqual(t, took, 44*time.Second, "it makes what calls it may")
}

// What the vault throttles is tried again, and keeps nobody from rewriting meanwhile; the
// context ends the waiting.
func TestOthersHaveTheirTurnWhileTheVaultThrottles(t *testing.T) {
	g, s := moving(t, 3)
	g.vault.Inject(vaulttest.Fault{Op: vault.OpUnwrapKey, Nth: 3, Err: vaulttest.Throttled(7 * time.Second)})
	waiting := g.clock.Pending()
	ctx, cancel := context.WithCancel(g.ctx)
	done := make(chan error, 1)
	go func() { done <- s.RewrapDEKs(ctx, nil) }()
	eventually(t, func() bool {
		return g.clock.Pending() > waiting && g.vault.Calls().Unwrap == 3 && len(s.Stats().Running) == 1
	}, "it waits")
	patient, end := context.WithTimeout(g.ctx, time.Minute)
	defer end()
	require.NoError(t, s.RotateEpoch(patient, nil), "others have their turn")
	cancel()
	require.ErrorIs(t, <-done, context.Canceled)
	require.Equal(t, 3, g.vault.Calls().Unwrap)
	require.EqualValues(t, 2, left(t, s))
	require.NoError(t, s.RewrapDEKs(g.ctx, nil))
	require.Zero(t, left(t, s))
}

// The same where it waits for its own rate.
func TestRewrapStopsWhileItWaitsForItsRate(t *testing.T) {
	g := newByKEKRig(t)
	g.opts.Keyring.DEKCache, g.opts.VaultRate = -1, 30
	s := g.open()
	for i := range 3 {
		require.NoError(t, s.Put(g.ctx, fmt.Append(nil, i), nil))
	}
	g.vault.Rotate("customer")
	require.NoError(t, s.RotateKEK(g.ctx))
	waiting := g.clock.Pending()
	ctx, cancel := context.WithCancel(g.ctx)
	done := make(chan error, 1)
	go func() { done <- s.RewrapDEKs(ctx, nil) }()
	eventually(t, func() bool { return left(t, s) == 2 && g.clock.Pending() > waiting }, "it waits for the next")
	calls := g.vault.Calls()
	cancel()
	require.ErrorIs(t, <-done, context.Canceled)
	require.Equal(t, calls, g.vault.Calls())
	require.EqualValues(t, 2, left(t, s))
	go func() { done <- s.RewrapDEKs(g.ctx, nil) }()
	eventually(t, func() bool {
		g.clock.Advance(100 * time.Millisecond)
		return left(t, s) == 0
	}, "it goes on")
	require.NoError(t, <-done)
}

func TestStepRateAndLeft(t *testing.T) {
	for name, c := range map[string]struct {
		step block.Step
		rate float64
		left time.Duration
		ok   bool
	}{
		"nothing yet":     {step: block.Step{Total: 100}},
		"no time":         {step: block.Step{Done: 10, Total: 100}},
		"nothing done":    {step: block.Step{Total: 100, Elapsed: time.Second}},
		"no end in sight": {step: block.Step{Done: 10, Elapsed: 5 * time.Second}, rate: 2},
		"a quarter":       {step: block.Step{Done: 25, Total: 100, Elapsed: 10 * time.Second}, rate: 2.5, left: 30 * time.Second, ok: true},
		"slow":            {step: block.Step{Done: 1, Total: 3, Elapsed: 4 * time.Second}, rate: 0.25, left: 8 * time.Second, ok: true},
		"all":             {step: block.Step{Done: 100, Total: 100, Elapsed: 10 * time.Second}, rate: 10, ok: true},
		"more than all":   {step: block.Step{Done: 110, Total: 100, Elapsed: 10 * time.Second}, rate: 11, ok: true},
	} {
		t.Run(name, func(t *testing.T) {
			require.InDelta(t, c.rate, c.step.Rate(), 1e-9)
			left, ok := c.step.Left()
			require.Equal(t, c.ok, ok)
			require.Equal(t, c.left, left)
		})
	}
}
