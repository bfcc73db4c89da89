package block_test

import (
	"context"
	"fmt"
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/blockseal/blockseal/block"
	"github.com/blockseal/blockseal/keyring"
	"github.com/blockseal/blockseal/vault"
)

// Without any key, Inspect says what the open store says.
func TestInspect(t *testing.T) {
	g := newByKEKRig(t)
	s := g.open()
	for i := range 20 {
		require.NoError(t, s.Put(g.ctx, fmt.Append(nil, i), fmt.Append(nil, "data ", i)))
	}
	_, err := block.Inspect(g.ctx, g.dir, &g.opts)
	require.ErrorIs(t, err, block.ErrLocked)

	second := g.vault.Rotate("customer")
	require.NoError(t, s.RotateKEK(g.ctx))
	require.NoError(t, s.Put(g.ctx, []byte("new"), nil))
	require.NoError(t, s.Checkpoint(g.ctx, "copy"))
	uses, err := s.KeyUsage(g.ctx)
	require.NoError(t, err)
	state, id, instance := s.State(), s.StoreID(), s.Instance()
	require.NoError(t, s.Close())

	// The vault is not asked, so that it may be gone.
	g.vault.ResetCalls()
	in, err := block.Inspect(g.ctx, g.dir, &g.opts)
	require.NoError(t, err)
	require.Zero(t, g.vault.Calls().Total())
	require.Equal(t, instance, in.Instance)
	require.Empty(t, in.CopyOf)
	require.Equal(t, id, in.Keyring.StoreID)
	require.GreaterOrEqual(t, in.Keyring.Generation, state.Generation) // Close may save once more
	require.Equal(t, second, in.Keyring.KEK)
	require.EqualValues(t, 21, in.Records)
	require.EqualValues(t, 21*keyring.RecordSizeByKEK, in.RecordBytes)
	require.Equal(t, map[uint32]uint64{1: 21}, in.Epochs)
	require.Equal(t, []vault.KeyID{g.key, second}, in.PastKEKs)
	require.False(t, in.Incomplete)
	require.Empty(t, in.Unfinished)
	require.NotZero(t, in.Files)
	require.Greater(t, in.Bytes, in.RecordBytes)
	for i := range uses {
		uses[i].Epochs = 0
		for j := range uses[i].Copies {
			require.Empty(t, uses[i].Copies[j].Doubt, "the store has made it")
			uses[i].Copies[j].Doubt = in.Keys[i].Copies[j].Doubt
			require.Contains(t, uses[i].Copies[j].Doubt, "nobody can tell")
		}
	}
	require.Equal(t, uses, in.Keys)
	byKey := map[vault.KeyID]block.KeyUse{}
	for _, u := range in.Keys {
		byKey[u.Key] = u
	}
	require.EqualValues(t, 20, byKey[g.key].Records)
	require.EqualValues(t, 1, byKey[second].Records)
	require.True(t, byKey[second].Document)
	require.Len(t, byKey[second].Copies, 1)

	info, err := block.InspectKeyring(g.dir, &g.opts)
	require.NoError(t, err)
	require.Equal(t, in.Keyring, info)

	c, err := block.Inspect(g.ctx, "copy", &g.opts)
	require.NoError(t, err)
	require.Equal(t, instance, c.CopyOf)
	require.NotEqual(t, instance, c.Instance)
	require.Equal(t, id, c.Keyring.StoreID)
}

func TestInspectNamesWhatIsUnfinished(t *testing.T) {
	g := newRig(t)
	s := g.open()
	for i := range 40 {
		require.NoError(t, s.Put(g.ctx, fmt.Append(nil, i), nil))
	}
	s.SetSteps(4, 1)
	require.ErrorIs(t, s.RotateEpoch(&endsAfter{Context: g.ctx, left: 5}, nil), context.Canceled)
	require.NoError(t, s.Close())
	in, err := block.Inspect(g.ctx, g.dir, &g.opts)
	require.NoError(t, err)
	require.Equal(t, []string{"rotate-epoch"}, in.Unfinished)
	require.Len(t, in.Epochs, 2)
	require.EqualValues(t, 40, in.Epochs[1]+in.Epochs[2])
}

func TestInspectRefusals(t *testing.T) {
	g := newRig(t)
	_, err := block.Inspect(g.ctx, "nowhere", &g.opts)
	require.ErrorIs(t, err, block.ErrNotStore)
	require.NoError(t, g.opts.Pebble.FS.MkdirAll("other/dir", 0o700))
	_, err = block.InspectKeyring("other", &g.opts)
	require.ErrorIs(t, err, block.ErrNotStore)

	// What could not be authenticated can still be seen to be damaged.
	s := g.open()
	require.NoError(t, s.Put(g.ctx, []byte("a"), nil))
	s.SetEngine([]byte("\x02\x00\x00\x00\x00a"), []byte("no record"))
	require.NoError(t, s.Close())
	_, err = block.Inspect(g.ctx, g.dir, &g.opts)
	require.ErrorIs(t, err, block.ErrVersion)
	_, err = block.InspectKeyring(g.dir, &g.opts)
	require.NoError(t, err)

	g = newRig(t)
	s = g.open()
	s.SetEngine([]byte("\x01\x00\x00\x00\x00keyring"), nil)
	require.NoError(t, s.Close())
	_, err = block.Inspect(g.ctx, g.dir, &g.opts)
	require.ErrorIs(t, err, keyring.ErrNoDocument)
	// A refusal leaves the directory to others.
	_, err = block.Open(g.ctx, g.dir, g.kek, &g.opts)
	require.ErrorIs(t, err, block.ErrCorrupt)
}

// endsAfter is a context that ends when it was asked so often.
type endsAfter struct {
	context.Context
	left int
}

func (c *endsAfter) Err() error {
	if c.left--; c.left < 0 {
		return context.Canceled
	}
	return nil
}
