package keyring_test

import (
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/blockseal/blockseal/internal/inner"
	"github.com/blockseal/blockseal/keyring"
)

// More keyrings than an epoch has slices of a few have one document: none of them begins an epoch
// because the others have reserved all of it, not when they begin and not when a new epoch is taken up.
func TestManyKeyringsShareAnEpoch(t *testing.T) {
	t.Parallel()
	const keyrings = 100
	for _, many := range []bool{true, false} {
		g := newRig(t)
		g.opts.For(inner.Block{}).Many = many
		require.NoError(t, g.create().Close())
		var all []*keyring.Keyring
		for range keyrings {
			all = append(all, g.open())
		}
		wrap := func() {
			for _, r := range all {
				key, _, err := r.NewDEK(t.Context(), nil)
				require.NoError(t, err)
				key.Destroy()
			}
		}
		wrap()
		last := all[keyrings-1]
		if !many {
			require.Greater(t, last.State().Epochs, 1, "which is why they reserve less")
			continue
		}
		require.Equal(t, 1, last.State().Epochs)
		err := last.BeginEpoch(t.Context())
		require.NoError(t, err)
		for _, r := range all {
			require.NoError(t, r.Revalidate(t.Context()))
		}
		wrap()
		wrap()
		require.Equal(t, 2, last.State().Epochs)
		reserved, err := last.Reserved()
		require.NoError(t, err)
		require.LessOrEqual(t, reserved[2], uint64(keyrings*keyring.DefaultEpochMaxDEKs/65536))
	}
}

// A keyring that wraps much saves seldom all the same, and has reserved no more than twice what it has
// wrapped.
func TestSlicesGrow(t *testing.T) {
	t.Parallel()
	g := newRig(t)
	g.opts.For(inner.Block{}).Many = true
	g.opts.EpochMaxDEKs = 1 << 20 // 16 in the first slice, 16,384 in the largest
	r := g.create()
	before := r.State().Generation
	const wraps = 5000
	for range wraps {
		key, _, err := r.NewDEK(t.Context(), nil)
		require.NoError(t, err)
		key.Destroy()
	}
	require.LessOrEqual(t, r.State().Generation-before, uint64(10), "16, 16, 32, ... 4,096")
	reserved, err := r.Reserved()
	require.NoError(t, err)
	require.GreaterOrEqual(t, reserved[1], uint64(wraps))
	require.LessOrEqual(t, reserved[1], uint64(2*wraps))
	require.NoError(t, r.Close())
	require.EqualValues(t, wraps, g.open().Stats().Epoch.DEKs, "what was not used is given back")
}
