package keyring_test

import (
	"context"
	"errors"
	"sync"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/blockseal/blockseal/kek"
	"github.com/blockseal/blockseal/keyring"
	"github.com/blockseal/blockseal/vault"
	"github.com/blockseal/blockseal/vault/vaulttest"
)

// statsOf returns the statistics of one operation.
func statsOf(r *keyring.Keyring, op vault.Operation) keyring.CallStats {
	for _, c := range r.Stats().Calls {
		if c.Operation == op {
			return c
		}
	}
	return keyring.CallStats{}
}

func TestStatsCountCallsByOutcome(t *testing.T) {
	g := newRig(t)
	r := g.create()
	for _, c := range []struct {
		outcome string
		err     error
	}{
		{"key_not_found", vault.ErrKeyNotFound}, {"key_deleted", vault.ErrKeyDeleted}, {"key_disabled", vault.ErrKeyDisabled},
		{"key_expired", vault.ErrKeyExpired}, {"key_not_yet_valid", vault.ErrKeyNotYetValid}, {"access_denied", vault.ErrAccessDenied},
		{"wrong_tenant", vault.ErrWrongTenant}, {"unsupported_key", vault.ErrUnsupportedKey}, {"bad_ciphertext", vault.ErrBadCiphertext},
		{"throttled", vault.ErrThrottled}, {"unavailable", vault.ErrUnavailable}, {"unavailable", errors.New("anything else")},
	} {
		t.Run(c.outcome, func(t *testing.T) {
			before := statsOf(r, vault.OpUnwrapKey).Outcomes[c.outcome]
			remove := g.vault.Inject(vaulttest.Fault{Op: vault.OpUnwrapKey, Err: c.err})
			require.Error(t, r.Revalidate(t.Context()))
			remove()
			require.Equal(t, before+1, statsOf(r, vault.OpUnwrapKey).Outcomes[c.outcome])
		})
	}
	require.NoError(t, r.Revalidate(t.Context()))
	st := statsOf(r, vault.OpUnwrapKey)
	require.EqualValues(t, 14, st.Ended())
	require.EqualValues(t, 2, st.Outcomes["ok"])
	require.Len(t, st.Outcomes, len(keyring.Outcomes()), "all of them are there")
	require.Equal(t, keyring.CheckCounts{OK: 1, Denied: 9, Unanswered: 3}, r.Stats().Checks)
	require.Zero(t, r.Stats().InFlight)
}

func TestStatsTellTimeoutsFromCallersThatGiveUp(t *testing.T) {
	g := newRig(t)
	r := g.create()
	remove := g.vault.Inject(vaulttest.Fault{Op: vault.OpGet, Stuck: true})
	ended := make(chan error, 1)
	go func() { ended <- r.Revalidate(context.Background()) }()
	require.Eventually(t, func() bool { return g.vault.Waiting() == 1 }, time.Minute, time.Millisecond)
	require.Equal(t, 1, r.Stats().InFlight)
	g.clock.Advance(keyring.DefaultVaultTimeout)
	require.ErrorIs(t, <-ended, vault.ErrUnavailable)
	require.Equal(t, 1, r.Stats().Stuck)

	ctx, cancel := context.WithCancel(t.Context())
	go func() { ended <- r.Revalidate(ctx) }()
	require.Eventually(t, func() bool { return g.vault.Waiting() == 2 }, time.Minute, time.Millisecond)
	cancel()
	require.ErrorIs(t, <-ended, context.Canceled)
	get := statsOf(r, vault.OpGet)
	require.EqualValues(t, 1, get.Outcomes["timeout"])
	require.EqualValues(t, 1, get.Outcomes["canceled"])
	require.Equal(t, keyring.CheckCounts{Unanswered: 1, Other: 1}, r.Stats().Checks)
	require.ErrorIs(t, r.State().LastCheckErr, vault.ErrUnavailable, "who gave up has learned nothing")
	remove()
	require.Eventually(t, func() bool { return r.Stats().Stuck == 0 }, time.Minute, time.Millisecond)
}

// A vault that holds on to calls is not asked for ever more; what was not asked took no
// time and is no call.
func TestStatsTellCallsThatAreNotMade(t *testing.T) {
	g := newRig(t)
	r := g.create()
	remove := g.vault.Inject(vaulttest.Fault{Op: vault.OpGet, Stuck: true})
	ended := make(chan error, 1)
	const most = 8
	for i := range most {
		ctx, cancel := context.WithCancel(t.Context())
		go func() { ended <- r.Revalidate(ctx) }()
		require.Eventually(t, func() bool { return g.vault.Waiting() == i+1 }, time.Minute, time.Millisecond)
		cancel()
		require.ErrorIs(t, <-ended, context.Canceled)
	}
	calls := r.VaultCalls()
	for range 3 {
		err := r.Revalidate(t.Context())
		require.ErrorIs(t, err, vault.ErrUnavailable)
		require.ErrorContains(t, err, "8 calls, which its client still holds")
	}
	get := statsOf(r, vault.OpGet)
	require.EqualValues(t, 3, get.NotMade)
	require.EqualValues(t, most, get.Outcomes["canceled"])
	require.EqualValues(t, 1+most, get.Ended(), "with that of Create")
	require.EqualValues(t, 1+most, get.Latency.Count)
	require.Equal(t, calls, r.VaultCalls())
	require.Zero(t, r.Stats().InFlight)
	require.Equal(t, most, r.Stats().Stuck)
	require.Equal(t, keyring.Degraded, r.State().Status)
	remove()
	require.Eventually(t, func() bool { return r.Stats().Stuck == 0 }, time.Minute, time.Millisecond)
	require.NoError(t, r.Revalidate(t.Context()))
}

// What the vault says of a key is known also when it says no.
func TestStateTellsTheExpiryOfAKeyThatIsRefused(t *testing.T) {
	g := newRig(t)
	r := g.create()
	require.True(t, r.State().KEKKnown)
	require.Zero(t, r.State().KEKExpires)
	expired := start.Add(-time.Hour)
	g.vault.SetDates(g.key, time.Time{}, expired)
	require.ErrorIs(t, r.Revalidate(t.Context()), vault.ErrKeyExpired)
	require.Equal(t, expired, r.State().KEKExpires)
	require.Equal(t, expired, r.Stats().KEKExpires)
	require.NoError(t, r.Close())

	r = g.open()
	require.Equal(t, keyring.Inaccessible, r.State().Status)
	require.True(t, r.State().KEKKnown)
	require.Equal(t, expired, r.State().KEKExpires)
	require.Equal(t, start, r.Stats().KEKCreated)
	require.NoError(t, r.Close())

	g.vault.SetOutage(vault.ErrUnavailable)
	r = g.open()
	require.False(t, r.State().KEKKnown, "nobody has said")
	require.Zero(t, r.State().KEKExpires)
	g.vault.SetOutage(nil)
	g.vault.SetDates(g.key, time.Time{}, start.Add(time.Hour))
	require.NoError(t, r.Revalidate(t.Context()))
	require.Equal(t, start.Add(time.Hour), r.State().KEKExpires)
	newest := g.vault.Rotate(g.key.Name)
	require.NoError(t, r.RotateKEK(t.Context()))
	require.Equal(t, newest, r.State().KEK)
	require.True(t, r.State().KEKKnown)
	require.Zero(t, r.State().KEKExpires, "that of the version in use")
}

func TestStatsMeasureCallsByTheClock(t *testing.T) {
	g := newRig(t)
	r := g.create()
	require.Equal(t, uint64(1), statsOf(r, vault.OpGet).Latency.Counts[0], "no time has passed")
	g.vault.Inject(vaulttest.Fault{Op: vault.OpGet, Times: 1, Nth: 1, Delay: 40 * time.Millisecond})
	ended := make(chan error, 1)
	go func() { ended <- r.Revalidate(context.Background()) }()
	require.Eventually(t, func() bool { return g.vault.Waiting() == 1 }, time.Minute, time.Millisecond)
	g.clock.Advance(40 * time.Millisecond)
	require.NoError(t, <-ended)
	h := statsOf(r, vault.OpGet).Latency
	require.EqualValues(t, 2, h.Count)
	require.Equal(t, 40*time.Millisecond, h.Sum)
	require.Len(t, h.Counts, len(h.Bounds))
	for i, b := range h.Bounds {
		switch b {
		case time.Millisecond, 50 * time.Millisecond:
			require.EqualValues(t, 1, h.Counts[i], b)
		default:
			require.Zero(t, h.Counts[i], b)
		}
	}
}

func TestStatsOfTheDEKCache(t *testing.T) {
	g := newRig(t)
	g.opts.Wrapping = keyring.ByKEK
	r := g.create()
	_, wrapped, err := r.NewDEK(t.Context(), []byte("block"))
	require.NoError(t, err)
	for range 3 {
		_, err := r.OpenDEK(t.Context(), wrapped, []byte("block"))
		require.NoError(t, err)
	}
	st := r.Stats()
	require.EqualValues(t, 1, st.DEKMisses)
	require.EqualValues(t, 2, st.DEKHits)
	require.Equal(t, 1, st.DEKs)
	g.vault.SetEnabled(g.key, false)
	require.Error(t, r.Revalidate(t.Context()))
	require.Zero(t, r.Stats().DEKs, "the cache ends with the lease")
}

// traced is a vault that notes which caller its calls were made for.
type traced struct {
	vault.Vault
	mu   sync.Mutex
	seen []any
}

type spanKey struct{}

func (v *traced) note(ctx context.Context) {
	v.mu.Lock()
	defer v.mu.Unlock()
	v.seen = append(v.seen, ctx.Value(spanKey{}))
}

func (v *traced) take() []any {
	v.mu.Lock()
	defer v.mu.Unlock()
	out := v.seen
	v.seen = nil
	return out
}

func (v *traced) GetKey(ctx context.Context, id vault.KeyID) (vault.Key, error) {
	v.note(ctx)
	return v.Vault.GetKey(ctx, id)
}

func (v *traced) WrapKey(ctx context.Context, id vault.KeyID, secret []byte) (vault.Wrapped, error) {
	v.note(ctx)
	return v.Vault.WrapKey(ctx, id, secret)
}

func (v *traced) UnwrapKey(ctx context.Context, w vault.Wrapped) ([]byte, error) {
	v.note(ctx)
	return v.Vault.UnwrapKey(ctx, w)
}

// A call that is made for a caller carries the values of the caller's context, such
// as the span of a trace; one that the keyring makes by itself carries nobody's.
func TestContextReachesTheVault(t *testing.T) {
	g := newRig(t)
	v := &traced{Vault: g.vault}
	g.kek = kek.New(v, g.key.Versionless())
	g.opts.Wrapping = keyring.ByKEK
	span := func(name string) context.Context { return context.WithValue(context.Background(), spanKey{}, name) }

	r, err := keyring.Create(span("create"), g.storage, g.kek, &g.opts)
	require.NoError(t, err)
	require.Equal(t, []any{"create", "create", "create"}, v.take())
	_, wrapped, err := r.NewDEK(span("new"), []byte("block"))
	require.NoError(t, err)
	require.Equal(t, []any{"new"}, v.take())
	_, err = r.OpenDEK(span("open DEK"), wrapped, []byte("block"))
	require.NoError(t, err)
	require.Equal(t, []any{"open DEK"}, v.take())
	require.NoError(t, r.Revalidate(span("revalidate")))
	require.Equal(t, []any{"revalidate", "revalidate", "revalidate"}, v.take())
	require.NoError(t, r.RotateKEK(span("rotate")))
	require.Equal(t, []any{"rotate", "rotate", "rotate"}, v.take())

	g.clock.Advance(time.Minute)
	require.Eventually(t, func() bool { return r.Stats().Checks.OK == 2 }, time.Minute, time.Millisecond)
	require.Equal(t, []any{nil, nil, nil}, v.take())
	require.NoError(t, r.Close())

	r, err = keyring.Open(span("open"), g.storage, g.kek, &g.opts)
	require.NoError(t, err)
	defer r.Close()
	require.Equal(t, []any{"open", "open", "open"}, v.take())
}
