package block_test

import (
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/blockseal/blockseal/block"
	"github.com/blockseal/blockseal/kek"
	"github.com/blockseal/blockseal/keyring"
	"github.com/blockseal/blockseal/vault"
	"github.com/blockseal/blockseal/vault/vaulttest"
)

// A copy waits for its own Revalidate, and can leave the source's key behind.
func TestCheckpointIsAStoreOfItsOwn(t *testing.T) {
	g := newRig(t)
	s := g.open()
	require.NoError(t, s.Put(g.ctx, []byte("a"), []byte("before")))
	require.NoError(t, s.Checkpoint(g.ctx, "copy"))
	require.NoError(t, s.Put(g.ctx, []byte("a"), []byte("after")))
	require.Error(t, s.Checkpoint(g.ctx, "copy"), "a copy overwrites nothing")

	c := &rig{t: t, ctx: g.ctx, clock: g.clock, vault: g.vault, kek: g.kek, dir: "copy", opts: g.opts}
	copied := c.open()
	require.NotEqual(t, s.Instance(), copied.Instance())
	require.Equal(t, s.StoreID(), copied.StoreID())
	require.Equal(t, keyring.Inaccessible, copied.State().Status)
	_, err := copied.Get(g.ctx, []byte("a"), nil)
	require.ErrorIs(t, err, block.ErrInaccessible)
	require.ErrorContains(t, err, "a copy of a store stays locked until Revalidate succeeds")

	require.NoError(t, copied.Revalidate(g.ctx))
	require.EqualValues(t, 2, copied.State().Epoch, "it has one of its own at once")
	got, err := copied.Get(g.ctx, []byte("a"), nil)
	require.NoError(t, err)
	require.Equal(t, "before", string(got))

	other := vaulttest.New(&vaulttest.Options{Name: "mem:other", Clock: g.clock})
	other.CreateKey("own")
	own := kek.New(other, other.CreateKey("own2").Versionless())
	require.NoError(t, copied.ChangeKEK(g.ctx, own))
	require.NoError(t, copied.Close())
	g.vault.Delete("customer")
	g.vault.Purge("customer")

	c.kek = own
	copied = c.open()
	require.Equal(t, keyring.Available, copied.State().Status, "it was revalidated before")
	got, err = copied.Get(g.ctx, []byte("a"), nil)
	require.NoError(t, err)
	require.Equal(t, "before", string(got))
	require.ErrorIs(t, s.Revalidate(g.ctx), vault.ErrKeyNotFound)
	require.Equal(t, keyring.Inaccessible, s.State().Status)
}

func TestReadOnlyCopy(t *testing.T) {
	g := newRig(t)
	s := g.open()
	require.NoError(t, s.Put(g.ctx, []byte("a"), []byte("1")))
	require.NoError(t, s.Checkpoint(g.ctx, "copy"))

	c := &rig{t: t, ctx: g.ctx, clock: g.clock, vault: g.vault, kek: g.kek, dir: "copy", opts: g.opts}
	c.opts.ReadOnly = true
	for range 2 { // it stays a copy: nothing is written to it
		r := c.open()
		require.Equal(t, keyring.Inaccessible, r.State().Status)
		require.NoError(t, r.Revalidate(g.ctx))
		got, err := r.Get(g.ctx, []byte("a"), nil)
		require.NoError(t, err)
		require.Equal(t, "1", string(got))
		require.ErrorIs(t, r.Put(g.ctx, []byte("a"), nil), block.ErrReadOnly)
		require.ErrorIs(t, r.Delete(g.ctx, []byte("a")), block.ErrReadOnly)
		require.ErrorIs(t, r.RotateKEK(g.ctx), block.ErrReadOnly)
		require.NoError(t, r.Close())
	}
}

// A copy of a read-only store would take changes of it; the error says so, and nothing is
// left where the copy was to be.
func TestCheckpointOfAReadOnlyStore(t *testing.T) {
	g := newRig(t)
	s, err := block.Open(g.ctx, g.dir, g.kek, &g.opts)
	require.NoError(t, err)
	require.NoError(t, s.Put(g.ctx, []byte("a"), []byte("1")))
	require.NoError(t, s.Close())
	g.opts.ReadOnly = true
	s = g.open()
	err = s.Checkpoint(g.ctx, "copy")
	require.ErrorIs(t, err, block.ErrReadOnly)
	require.ErrorContains(t, err, "open it for writing")
	_, err = g.opts.Pebble.FS.Stat("copy")
	require.Error(t, err)
}
