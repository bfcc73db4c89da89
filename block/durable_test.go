package block_test

import (
	"math/rand/v2"
	"testing"

	"github.com/cockroachdb/pebble/v2/vfs"
	"github.com/stretchr/testify/require"

	"github.com/blockseal/blockseal/block"
	"github.com/blockseal/blockseal/keyring"
)

// A crash that keeps nothing but what was synced, at the moment at which something was
// acknowledged, leaves it: the directories in which a store was made, its identity file in each
// state, and the whole of a copy.
func TestWhatIsAcknowledgedIsSynced(t *testing.T) {
	g := newRig(t)
	disk := &watchedFS{FS: vfs.NewCrashableMem()}
	g.opts.Pebble.FS, g.dir = disk, "a/b/store"
	crash := func() *rig {
		left := *g
		left.opts.Pebble.FS = disk.crash(vfs.CrashCloneCfg{UnsyncedDataPercent: 0, RNG: rand.New(rand.NewPCG(1, 2))})
		return &left
	}
	identity := func(g *rig, dir string) string {
		f, err := g.opts.Pebble.FS.Open(dir + "/BLOCKSEAL")
		require.NoError(t, err)
		defer f.Close()
		b := make([]byte, 1<<16)
		n, _ := f.Read(b)
		return string(b[:n])
	}
	opens := func(g *rig, dir string, want string) {
		t.Helper()
		s, err := block.Open(g.ctx, dir, g.kek, &g.opts)
		require.NoError(t, err)
		if s.State().Status != keyring.Available {
			require.NoError(t, s.Revalidate(g.ctx))
		}
		requireBlock(t, s, "a", want)
		require.NoError(t, s.Close())
	}

	s, err := block.Open(g.ctx, g.dir, g.kek, &g.opts)
	require.NoError(t, err)
	left := crash()
	require.Contains(t, identity(left, g.dir), "\nstate open\n")
	_, err = block.InspectKeyring(g.dir, &left.opts)
	require.NoError(t, err)

	require.NoError(t, s.Put(g.ctx, []byte("a"), []byte("1")))
	opens(crash(), g.dir, "1")

	require.NoError(t, s.Checkpoint(g.ctx, "copies/one"))
	left = crash()
	in, err := block.Inspect(g.ctx, "copies/one", &left.opts)
	require.NoError(t, err)
	require.Equal(t, s.Instance(), in.CopyOf)
	opens(left, "copies/one", "1")

	require.NoError(t, s.Close())
	left = crash()
	require.Contains(t, identity(left, g.dir), "\nstate closed\n")
	opens(left, g.dir, "1")

	c, err := block.Open(g.ctx, "copies/one", g.kek, &g.opts)
	require.NoError(t, err)
	require.NoError(t, c.Revalidate(g.ctx))
	require.NotContains(t, identity(crash(), "copies/one"), "\ncopy of ", "it is a store")
	require.NoError(t, c.Close())
}
