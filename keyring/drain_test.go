package keyring_test

import (
	"sync/atomic"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/blockseal/blockseal/internal/inner"
	"github.com/blockseal/blockseal/keyring"
	"github.com/blockseal/blockseal/vault"
)

// A lock refuses new operations at once, and is announced only when the last one
// that was in flight has ended. The state says then since when operations were refused.
func TestLockWaitsForWhatIsInFlight(t *testing.T) {
	g := newRig(t)
	var announced atomic.Bool
	g.opts.OnEvent = func(e keyring.Event) {
		if e.Kind == keyring.StateChanged && e.To == keyring.Inaccessible {
			announced.Store(true)
		}
	}
	r := g.create()
	_, record, err := r.NewDEK(t.Context(), []byte("id"))
	require.NoError(t, err)

	inFlight, err := r.Acquire()
	require.NoError(t, err)
	g.vault.Revoke(vault.OpUnwrapKey)
	done := make(chan error, 1)
	var said error
	go func() { done <- r.Revalidate(t.Context()) }()
	require.Eventually(t, func() bool {
		h, err := r.Acquire()
		if err == nil {
			h.Release()
			return false
		}
		require.ErrorIs(t, err, keyring.ErrInaccessible)
		require.ErrorIs(t, err, vault.ErrAccessDenied)
		said = err
		return true
	}, time.Minute, time.Millisecond)
	// Nothing new begins, what has begun goes on, and the state does not say yet
	// what is not true yet.
	require.Equal(t, keyring.Available, r.State().Status)
	require.False(t, announced.Load())
	var b keyring.Binding
	b.Set([]byte("id"))
	require.NoError(t, inFlight.For(inner.Block{}).CheckRecord(t.Context(), record, &b))
	select {
	case err := <-done:
		t.Fatalf("the check ended before the operation in flight: %v", err)
	case <-time.After(20 * time.Millisecond):
	}

	g.clock.Advance(3 * time.Second)
	inFlight.Release()
	require.ErrorIs(t, <-done, vault.ErrAccessDenied)
	require.Equal(t, keyring.Inaccessible, r.State().Status)
	require.ErrorContains(t, said, "inaccessible since "+r.State().Since.UTC().Format(time.RFC3339)+":")
	require.Eventually(t, announced.Load, time.Minute, time.Millisecond)
}
