package rewrite

import (
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/blockseal/blockseal/internal/inner"
	"github.com/blockseal/blockseal/keyring"
)

// DEKs are too old at the age at which they are to be replaced, and not before.
func TestDEKsAreDueAtTheirInstant(t *testing.T) {
	g := newRig(t, keyring.Options{RekeyAfter: time.Hour, Lease: 10 * time.Hour, AllowLongLease: true}, 0)
	due := func() (bound uint32) {
		g.held(func(h *keyring.Hold) {
			var err error
			bound, err = g.dueBefore(t.Context(), h)
			require.NoError(t, err)
		})
		return bound
	}
	g.clock.Step(time.Hour - 1)
	require.Zero(t, due())
	g.clock.Step(1)
	require.Equal(t, uint32(2), due())
}

// What is rewrapped keeps its age, also where there is one epoch and nothing older: a KEK
// that was rotated on the first day makes no DEK look as if it had always been there.
func TestAgeThatIsInherited(t *testing.T) {
	g := newRig(t, keyring.Options{RekeyAfter: time.Hour, Lease: 10 * time.Hour, AllowLongLease: true}, 0)
	g.held(func(h *keyring.Hold) {
		first := h.For(inner.Block{}).Epochs()[0]
		g.clock.Step(time.Hour - 1)
		require.NoError(t, g.inheritAge(t.Context(), h, first.ID))
		a, err := g.dekAge(t.Context(), h)
		require.NoError(t, err)
		require.Equal(t, dekAge{epoch: first.ID, since: first.Created}, a)
		bound, err := g.dueBefore(t.Context(), h)
		require.NoError(t, err)
		require.Zero(t, bound)
	})
}
