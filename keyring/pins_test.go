package keyring_test

import (
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/blockseal/blockseal/internal/inner"
)

// A pin is there until it is released, whatever became of the stretch of access in which
// it was taken.
func TestPinsOfBeforeALockCount(t *testing.T) {
	g := newRig(t)
	r := g.create()
	pin := func() (release func()) {
		h, err := r.Acquire()
		require.NoError(t, err)
		defer h.Release()
		return h.Pin()
	}
	before := pin()
	require.Equal(t, 1, r.For(inner.Block{}).Pins())
	g.vault.SetEnabled(g.key, false)
	require.Error(t, r.Revalidate(t.Context()))
	require.Equal(t, 1, r.For(inner.Block{}).Pins(), "also while there is no access")
	g.vault.SetEnabled(g.key, true)
	require.NoError(t, r.Revalidate(t.Context()))
	after := pin()
	require.Equal(t, 2, r.For(inner.Block{}).Pins())
	before()
	require.Equal(t, 1, r.For(inner.Block{}).Pins())
	after()
	require.Zero(t, r.For(inner.Block{}).Pins())
}
