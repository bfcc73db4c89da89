package block_test

import (
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/blockseal/blockseal/block"
	"github.com/blockseal/blockseal/vault"
)

// A copy that was made without access, by a process that is gone, has the epoch of then. What
// the next process saves first has it in the register, and so it says at once that the epoch
// is shared: at Open already, before anything was written, and if nothing is.
func TestSharedIsSavedWithTheCopy(t *testing.T) {
	for name, save := range map[string]func(g *rig){
		"a newer version at Open": func(g *rig) {
			g.clock.Step(time.Minute)
			newest := g.vault.Rotate(g.key.Name)
			s := openAt(g.t, g, g.dir)
			require.Equal(g.t, newest, s.State().KEK)
			require.NoError(g.t, s.Close())
		},
		"a successor at Open": func(g *rig) {
			newest := g.expire(g.key)
			s := openAt(g.t, g, g.dir)
			require.Equal(g.t, newest, s.State().KEK)
			require.NoError(g.t, s.Close())
		},
		"a policy at Open": func(g *rig) {
			g.opts.Keyring.EpochMaxDEKs = 1 << 27
			require.NoError(g.t, openAt(g.t, g, g.dir).Close())
		},
	} {
		t.Run(name, func(t *testing.T) {
			g := newRig(t)
			s := openAt(t, g, g.dir)
			require.NoError(t, s.Put(g.ctx, []byte("a"), []byte("1")))
			require.NoError(t, s.Close())
			g.vault.Revoke(vault.OpUnwrapKey)
			s = openAt(t, g, g.dir)
			require.NoError(t, s.Checkpoint(g.ctx, "copy"))
			require.NoError(t, s.Close())
			g.vault.Restore(vault.OpUnwrapKey)
			save(g)
			s = g.open()
			copies, err := s.Copies(g.ctx)
			require.NoError(t, err)
			require.Len(t, copies, 1)
			require.EqualValues(t, 1, s.State().Epoch)
			require.NoError(t, s.Put(g.ctx, []byte("b"), nil))
			require.EqualValues(t, 2, epochIn(s.Records()["b"]))
		})
	}
}

// A copy of a copy that waits, made by hand or by Checkpoint, has the document of whichever was
// the last to save it. However often it is opened before it is revalidated, the register is
// no reason for doubt.
func TestRegisterOfACopyOfACopy(t *testing.T) {
	g := newRig(t)
	s := g.open()
	require.NoError(t, s.Put(g.ctx, []byte("a"), []byte("1")))
	require.NoError(t, s.Checkpoint(g.ctx, "as it was made"))
	g.copyDir("as it was made", "by hand of that")
	c := openAt(t, g, "as it was made")
	require.NoError(t, c.Checkpoint(g.ctx, "checkpoint of that"))
	require.NoError(t, c.Close())
	g.vault.Rotate("customer")
	require.NoError(t, s.RotateKEK(g.ctx)) // moves it
	g.copyDir("as it was made", "by hand, moved")
	c = openAt(t, g, "as it was made")
	require.NoError(t, c.Checkpoint(g.ctx, "checkpoint, moved"))
	require.NoError(t, c.Close())
	for _, dir := range []string{"by hand of that", "checkpoint of that", "by hand, moved", "checkpoint, moved"} {
		for range 3 {
			require.NoError(t, openAt(t, g, dir).Close())
		}
		c := *g
		c.dir = dir
		r := c.open()
		require.NoError(t, r.Revalidate(g.ctx))
		_, err := r.KeyUsage(g.ctx)
		require.NoError(t, err, dir)
		copies, err := r.Copies(g.ctx)
		require.NoError(t, err)
		require.Empty(t, copies, dir)
		requireBlock(t, r, "a", "1")
	}
}

// A register that is found not to be the store's puts what was found in doubt, and not the
// copies that this process has made meanwhile.
func TestCopyThatIsMadeBesideADoubt(t *testing.T) {
	g := newRig(t)
	require.NoError(t, openAt(t, g, g.dir).Close())
	g.vault.Revoke(vault.OpUnwrapKey)
	s := openAt(t, g, g.dir)
	register := s.Engine([]byte("\x01\x00\x00\x00\x00register"))
	register[1] ^= 1 // its tag
	s.SetEngine([]byte("\x01\x00\x00\x00\x00register"), register)
	require.NoError(t, s.Close())
	s = openAt(t, g, g.dir)
	require.NoError(t, s.Checkpoint(g.ctx, "copy"))
	g.vault.Restore(vault.OpUnwrapKey)
	require.NoError(t, s.Revalidate(g.ctx))
	require.NoError(t, s.Put(g.ctx, []byte("a"), nil))
	require.NoError(t, s.Close())
	s = g.open()
	copies, err := s.Copies(g.ctx)
	require.NoError(t, err)
	require.Len(t, copies, 1)
	require.Empty(t, copies[0].Doubt)
	_, err = s.KeyUsage(g.ctx)
	require.ErrorIs(t, err, block.ErrIncomplete)
}
