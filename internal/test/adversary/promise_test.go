package adversary

import (
	"fmt"
	"os"
	"path/filepath"
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/blockseal/blockseal/block"
	"github.com/blockseal/blockseal/keyring"
	"github.com/blockseal/blockseal/vault"
	"github.com/blockseal/blockseal/vault/vaulttest"
)

// Opening costs one unwrap and rotating the KEK three calls, whatever the data.
func TestVaultCallsDoNotGrowWithTheData(t *testing.T) {
	for _, n := range []int{1, 3000} {
		t.Run(fmt.Sprint(n), func(t *testing.T) {
			g := newRig(t)
			var ids []string
			for i := range n {
				ids = append(ids, numbered("b", i))
			}
			g.fill(ids...)
			g.vault.ResetCalls()
			s := g.open()
			require.Equal(t, vaulttest.Calls{Get: 1, Wrap: 1, Unwrap: 1}, g.vault.Calls())
			for b, err := range s.Blocks(g.ctx, block.Range{}) {
				require.NoError(t, err)
				require.Contains(t, string(b.Data), canary)
			}
			require.NoError(t, s.Put(g.ctx, []byte("x"), nil))
			require.NoError(t, s.RotateEpoch(g.ctx, nil))
			require.Equal(t, 3, g.vault.Calls().Total(), "blocks and epochs cost no call")
			g.vault.Rotate("customer")
			g.vault.ResetCalls()
			require.NoError(t, s.RotateKEK(g.ctx))
			require.Equal(t, vaulttest.Calls{Get: 1, Wrap: 1, Unwrap: 1}, g.vault.Calls())
		})
	}
}

// What the threat model says a disk writer can do: delete a block with its record, and
// bring an older version back. RotateEpoch is the line behind which nothing comes back.
func TestRollbackIsNotNoticedUntilTheEpochIsRotated(t *testing.T) {
	forEachWrapping(t, func(t *testing.T, g *rig) {
		g.fill(many()...)
		old := g.records()
		s, err := block.Open(g.ctx, g.dir, g.kek, &g.opts)
		require.NoError(t, err)
		require.NoError(t, s.Put(g.ctx, []byte("a"), []byte("newer")))
		require.NoError(t, s.Close())
		rolledBack := map[string]string{dekKey("a"): old[dekKey("a")], dataKey("a"): old[dataKey("a")]}
		read := func() ([]byte, error) {
			s, err := block.Open(g.ctx, g.dir, g.kek, &g.opts)
			require.NoError(t, err)
			defer s.Close()
			return s.Get(g.ctx, []byte("a"), nil)
		}
		g.set(rolledBack)
		got, err := read()
		require.NoError(t, err)
		require.Equal(t, plain("a"), got, "a limit that the threat model states")
		g.remove(dekKey("b"), dataKey("b"))
		s, err = block.Open(g.ctx, g.dir, g.kek, &g.opts)
		require.NoError(t, err)
		_, err = s.Get(g.ctx, []byte("b"), nil)
		require.ErrorIs(t, err, block.ErrNotFound, "likewise")

		require.NoError(t, s.RotateEpoch(g.ctx, nil))
		require.NoError(t, s.Put(g.ctx, []byte("a"), []byte("newest")))
		require.NoError(t, s.Close())
		g.set(rolledBack)
		require.ErrorIs(t, g.tryOpen(), block.ErrCorrupt, "it is not written to")
		g.opts.ReadOnly = true
		got, err = read()
		refuses(t, got, err, "a record of an epoch that was dropped")
	})
}

// A directory that the store makes is for its owner alone.
func TestNewDirectoriesAreForTheirOwnerAlone(t *testing.T) {
	g := newRig(t)
	g.opts.Pebble.FS = nil
	g.dir = filepath.Join(t.TempDir(), "deep", "er", "store")
	g.fill("a")
	info, err := os.Stat(g.dir)
	require.NoError(t, err)
	require.Equal(t, os.FileMode(0o700), info.Mode().Perm())
}

// Taking the key away in each way ends reading and writing at the next check, and
// giving it back restores both.
func TestTakenAndGivenBack(t *testing.T) {
	for name, way := range map[string]struct {
		take, give func(g *rig)
		reason     error
	}{
		"disabled": {func(g *rig) { g.vault.SetEnabled(g.key, false) }, func(g *rig) { g.vault.SetEnabled(g.key, true) }, vault.ErrKeyDisabled},
		"deleted":  {func(g *rig) { g.vault.Delete("customer") }, func(g *rig) { g.vault.Recover("customer") }, vault.ErrKeyDeleted},
		"no get":   {func(g *rig) { g.vault.Revoke(vault.OpGet) }, func(g *rig) { g.vault.Restore() }, vault.ErrAccessDenied},
		"no wrap":  {func(g *rig) { g.vault.Revoke(vault.OpWrapKey) }, func(g *rig) { g.vault.Restore() }, vault.ErrAccessDenied},
		"no unwrap": {func(g *rig) { g.vault.Revoke(vault.OpUnwrapKey) }, func(g *rig) { g.vault.Restore() },
			vault.ErrAccessDenied},
	} {
		t.Run(name, func(t *testing.T) {
			g := newRig(t)
			s := g.open()
			require.NoError(t, s.Put(g.ctx, []byte("a"), plain("a")))
			sn, b := s.Snapshot(), s.NewBatch()
			require.NoError(t, b.Put(g.ctx, []byte("b"), plain("b")))
			way.take(g)
			require.ErrorIs(t, s.Revalidate(g.ctx), way.reason)
			g.shut(s, way.reason)
			_, err := sn.Get(g.ctx, []byte("a"), nil)
			require.ErrorIs(t, err, block.ErrInaccessible)
			require.ErrorIs(t, b.Commit(g.ctx), block.ErrInaccessible)
			for _, err := range s.Blocks(g.ctx, block.Range{}) {
				require.ErrorIs(t, err, block.ErrInaccessible)
			}
			require.Equal(t, keyring.Inaccessible, s.State().Status)
			way.give(g)
			require.NoError(t, s.Revalidate(g.ctx))
			got, err := s.Get(g.ctx, []byte("a"), nil)
			require.NoError(t, err)
			require.Equal(t, plain("a"), got)
			_, err = sn.Get(g.ctx, []byte("a"), nil)
			require.ErrorIs(t, err, block.ErrInaccessible, "a snapshot ends with the access in which it was taken")
			require.NoError(t, sn.Close())
			_, err = s.Get(g.ctx, []byte("b"), nil)
			require.ErrorIs(t, err, block.ErrNotFound)
		})
	}
}
