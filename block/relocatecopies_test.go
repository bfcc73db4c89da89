package block_test

import (
	"context"
	"errors"
	"strings"
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/blockseal/blockseal/block"
	"github.com/blockseal/blockseal/internal/test/vaultkinds"
	"github.com/blockseal/blockseal/keyring"
)

// A copy that was made while the vault was gone already has the store's epoch; the relocated
// store wraps nothing more by it, also if it is closed in between.
func TestRelocateAfterACopyWithoutAccess(t *testing.T) {
	site, clock := vaultkinds.Memory(t)
	f := newFailover(t, site, clock, keyring.ByKeyring)
	s := openAt(t, f.rig, f.dir)
	require.NoError(t, s.Put(f.ctx, []byte("c"), []byte("3")))
	shared := epochIn(s.Records()["c"])
	require.NoError(t, s.Close())
	f.b.Restore(f.a, "customer")
	f.a.Gone()
	s = openAt(t, f.rig, f.dir)
	require.NoError(t, s.Checkpoint(f.ctx, "last"))
	require.NoError(t, s.Close())
	rel, err := block.Relocate(f.ctx, f.dir, f.to(), &f.opts)
	require.NoError(t, err)
	require.Len(t, rel.Copies, 3)
	for _, c := range rel.Copies { // who finds it cannot know who made it
		require.Equal(t, c.Path == "last", errors.Is(c.Err, block.ErrIncomplete), c.Path)
	}
	f.kek = f.to()
	s = f.open()
	require.Equal(t, shared, s.State().Epoch)
	require.NoError(t, s.Put(f.ctx, []byte("d"), nil))
	require.Greater(t, epochIn(s.Records()["d"]), shared)
}

// What was put back at a copy's path since it was relocated is not the copy any more.
func TestRelocatedCopyFromBefore(t *testing.T) {
	site, clock := vaultkinds.Memory(t)
	f := newFailover(t, site, clock, keyring.ByKeyring)
	f.b.Restore(f.a, "customer")
	for _, dir := range []string{"copy", "later"} {
		f.copyDir(dir, dir+" before")
	}
	_, err := block.Relocate(f.ctx, f.dir, f.to(), &f.opts)
	require.NoError(t, err)
	for _, dir := range []string{"copy", "later"} {
		f.copyDir(dir+" before", dir)
	}
	rel, err := block.Relocate(f.ctx, f.dir, f.to(), &f.opts)
	require.NoError(t, err)
	require.Len(t, rel.Copies, 2)
	for _, c := range rel.Copies {
		require.ErrorIs(t, c.Err, keyring.ErrUnexpected, c.Path)
		in, err := block.InspectKeyring(c.Path, &f.opts)
		require.NoError(t, err)
		require.Equal(t, f.a.Name, in.KEK.Vault, "it was not touched")
	}
}

// stopsAt is an anchor that does not answer when it is loaded for the nth time.
type stopsAt struct {
	keyring.Anchor
	n int
}

func (a *stopsAt) Load(ctx context.Context) (keyring.Point, error) {
	if a.n--; a.n == 0 {
		return keyring.Point{}, errors.New("no answer")
	}
	return a.Anchor.Load(ctx)
}

// Whenever Relocate fails it says whether the store was relocated before.
func TestRelocateSaysHowFarItCame(t *testing.T) {
	said := map[bool]int{}
	for n := 1; ; n++ {
		site, clock := vaultkinds.Memory(t)
		f := newFailover(t, site, clock, keyring.ByKeyring)
		f.b.Restore(f.a, "customer")
		f.opts.Keyring.Anchor = &stopsAt{keyring.Expect{}, n}
		_, err := block.Relocate(f.ctx, f.dir, f.to(), &f.opts)
		if err == nil {
			break
		}
		require.ErrorContains(t, err, "no answer")
		in, inspect := block.InspectKeyring(f.dir, &f.opts)
		require.NoError(t, inspect)
		relocated := in.KEK.Vault == f.b.Name
		require.Equal(t, relocated, strings.Contains(err.Error(), "the store was relocated"), err)
		said[relocated]++
	}
	require.Len(t, said, 2, "it was met before and after")
}
