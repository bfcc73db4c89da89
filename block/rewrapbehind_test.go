package block_test

import (
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/blockseal/blockseal/vault"
	"github.com/blockseal/blockseal/vault/vaulttest"
)

// What is committed behind the walk with DEKs that were wrapped before the KEK changed is
// rewrapped as well: when RewrapDEKs has ended, the KEK of before is not needed.
func TestRewrapDEKsOfWhatIsCommittedBehindIt(t *testing.T) {
	g := newByKEKRig(t)
	s := g.open()
	s.SetSteps(1, 1)
	for _, id := range []string{"b", "c", "d", "e"} {
		require.NoError(t, s.Put(g.ctx, []byte(id), []byte(id)))
	}
	batch := s.NewBatch()
	require.NoError(t, batch.Put(g.ctx, []byte("a"), []byte("a"))) // wrapped by the KEK of now
	g.vault.Rotate(g.key.Name)
	require.NoError(t, s.RotateKEK(g.ctx))

	// It is committed while the third block is asked about; the walk has been where it is.
	committed := make(chan error, 1)
	g.vault.Inject(vaulttest.Fault{Op: vault.OpWrapKey, Nth: 3, MutateWrapped: func(*vault.Wrapped) {
		go func() { committed <- batch.Commit(g.ctx) }()
		require.NoError(t, <-committed)
		close(committed)
	}})
	require.NoError(t, s.RewrapDEKs(g.ctx, nil))
	_, meanwhile := <-committed
	require.False(t, meanwhile, "it was committed meanwhile")
	uses, err := s.KeyUsage(g.ctx)
	require.NoError(t, err)
	require.Len(t, uses, 1)
	require.Equal(t, s.State().KEK, uses[0].Key)
	got, err := s.Get(g.ctx, []byte("a"), nil)
	require.NoError(t, err)
	require.Equal(t, "a", string(got))
}
