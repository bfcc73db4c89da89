package block_test

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"os"
	"testing"

	"github.com/cockroachdb/pebble/v2/vfs"
	"github.com/stretchr/testify/require"

	"github.com/blockseal/blockseal/block"
	"github.com/blockseal/blockseal/keyring"
	"github.com/blockseal/blockseal/vault"
)

// files returns the content of every file of a directory. The engine may remove one
// meanwhile.
func files(t *testing.T, fs vfs.FS, dir string) map[string][]byte {
	names, err := fs.List(dir)
	require.NoError(t, err)
	out := map[string][]byte{}
	for _, n := range names {
		f, err := fs.Open(fs.PathJoin(dir, n))
		if errors.Is(err, os.ErrNotExist) {
			continue
		}
		require.NoError(t, err)
		st, err := f.Stat()
		require.NoError(t, err)
		b := bytes.NewBuffer(make([]byte, 0, st.Size()+bytes.MinRead)) // which grows if the file does
		_, err = b.ReadFrom(f)
		require.NoError(t, err)
		out[n] = b.Bytes()
		require.NoError(t, f.Close())
	}
	return out
}

func holding(t *testing.T, fs vfs.FS, dir string, needle []byte) (found []string) {
	for name, content := range files(t, fs, dir) {
		if bytes.Contains(content, needle) {
			found = append(found, name)
		}
	}
	return found
}

// The two halves of erasure: nothing in the live files opens what was erased, and
// a raw copy that was taken before does so only while a KEK version exists that
// the receipt names.
func TestErase(t *testing.T) {
	g := newRig(t)
	s := g.open()
	for i := range 200 {
		require.NoError(t, s.Put(g.ctx, fmt.Appendf(nil, "%04d", i), bytes.Repeat([]byte("x"), 2000)))
	}
	require.NoError(t, s.Put(g.ctx, []byte("victim"), []byte("to be forgotten")))
	require.NoError(t, s.Put(g.ctx, []byte("overwritten"), []byte("old value")))
	victim, old := []byte(s.Records()["victim"]), []byte(s.Records()["overwritten"])
	document := s.Document()
	require.NotEmpty(t, holding(t, g.opts.Pebble.FS, g.dir, victim), "the search must be able to find it")
	require.NotEmpty(t, holding(t, g.opts.Pebble.FS, g.dir, document))

	// An attacker copies the files, and the KEK goes on to another version.
	copies := vfs.NewMem()
	_, err := vfs.Clone(g.opts.Pebble.FS, copies, g.dir, "raw1", vfs.CloneSync)
	require.NoError(t, err)
	first := g.key
	second := g.vault.Rotate("customer")
	require.NoError(t, s.RotateKEK(g.ctx))
	_, err = vfs.Clone(g.opts.Pebble.FS, copies, g.dir, "raw2", vfs.CloneSync)
	require.NoError(t, err)
	require.NoError(t, s.Delete(g.ctx, []byte("victim")))
	require.NoError(t, s.Put(g.ctx, []byte("overwritten"), []byte("new value")))

	calls := g.vault.Calls()
	r, err := s.Erase(g.ctx, nil)
	require.NoError(t, err)
	calls.Get += 2
	require.Equal(t, calls, g.vault.Calls(), "no vault call but those that ask for the KEK versions")
	require.Equal(t, []uint32{1}, r.Epochs)
	require.EqualValues(t, 201, r.Kept)
	require.Equal(t, []block.ReceiptKey{{Key: first, State: block.KeyExists}, {Key: second, State: block.KeyExists}}, bare(r.Keys))
	require.False(t, r.Incomplete)
	require.False(t, r.Pinned)
	require.Len(t, r.Hash, 64)
	require.Equal(t, s.State().Generation, r.Generation)

	for what, needle := range map[string][]byte{"the deleted record": victim, "the overwritten record": old, "the old document": document} {
		require.Empty(t, holding(t, g.opts.Pebble.FS, g.dir, needle), what)
	}
	_, err = s.Get(g.ctx, []byte("victim"), nil)
	require.ErrorIs(t, err, block.ErrNotFound)
	got, err := s.Get(g.ctx, []byte("overwritten"), nil)
	require.NoError(t, err)
	require.Equal(t, "new value", string(got))

	// The raw copies open as long as the KEK versions exist, and not after.
	raw := func(dir string) error {
		c := &rig{t: t, ctx: g.ctx, clock: g.clock, vault: g.vault, kek: g.kek, dir: dir, opts: g.opts}
		c.opts.Pebble.FS, c.opts.ReadOnly, c.opts.RequireAccess = copies, true, true
		s, err := block.Open(c.ctx, c.dir, c.kek, &c.opts)
		if err != nil {
			return err
		}
		defer s.Close()
		got, err := s.Get(c.ctx, []byte("victim"), nil)
		require.NoError(t, err)
		require.Equal(t, "to be forgotten", string(got))
		return nil
	}
	require.NoError(t, raw("raw1"))
	require.NoError(t, raw("raw2"))
	g.vault.DestroyVersion(first)
	require.ErrorIs(t, raw("raw1"), vault.ErrKeyNotFound)
	require.NoError(t, raw("raw2"))
	third := g.vault.Rotate("customer")
	require.NoError(t, s.RotateKEK(g.ctx))
	g.vault.DestroyVersion(second)
	require.ErrorIs(t, raw("raw2"), vault.ErrKeyNotFound)
	require.Equal(t, third, s.State().KEK)
	require.Equal(t, keyring.Available, s.State().Status)

	kept, found, err := s.LastReceipt(g.ctx)
	require.NoError(t, err)
	require.True(t, found)
	require.Equal(t, first, kept.Keys[0].Key)
	require.NoError(t, s.Close())
	s = g.open()
	again, _, err := s.LastReceipt(g.ctx)
	require.NoError(t, err)
	require.Equal(t, kept, again)
	require.Equal(t, r, again)

	// The next receipt names them all, and says which exist: what a version opens does not
	// depend on how often the store was erased since.
	r, err = s.Erase(g.ctx, nil)
	require.NoError(t, err)
	require.Equal(t, []block.ReceiptKey{{Key: first, State: block.KeyNotFound}, {Key: second, State: block.KeyNotFound},
		{Key: third, State: block.KeyExists}}, bare(r.Keys))
}

// What is open keeps what it sees, in the files too: Erase says so and does nothing.
func TestEraseWithOpenSnapshot(t *testing.T) {
	g := newRig(t)
	s := g.open()
	require.NoError(t, s.Put(g.ctx, []byte("a"), []byte("1")))
	snap := s.Snapshot()
	require.NoError(t, s.Delete(g.ctx, []byte("a")))
	_, err := s.Erase(g.ctx, nil)
	require.ErrorIs(t, err, block.ErrPinned)
	require.EqualError(t, err, "block: erase: snapshots, scans or batches are open: 1 of them; close them and erase again")
	require.Equal(t, 1, s.State().Epochs)
	got, err := snap.Get(g.ctx, []byte("a"), nil)
	require.NoError(t, err)
	require.Equal(t, "1", string(got))
	require.NoError(t, snap.Close())
	r, err := s.Erase(g.ctx, nil)
	require.NoError(t, err)
	require.False(t, r.Pinned)
}

// What is deleted after a RotateEpoch that was cut off was under the epoch that this
// one had begun: Erase does not go on with it, but begins another.
func TestEraseAfterARotationThatWasCutOff(t *testing.T) {
	g := newRig(t)
	s := g.open()
	s.SetSteps(4, 1)
	for i := range 40 {
		require.NoError(t, s.Put(g.ctx, fmt.Appendf(nil, "%03d", i), nil))
	}
	require.ErrorIs(t, s.RotateEpoch(&steps{g.ctx, 5}, nil), context.Canceled)
	require.Equal(t, 2, s.State().Epochs)
	require.NoError(t, s.Put(g.ctx, []byte("victim"), []byte("under the second epoch")))
	require.NoError(t, s.Delete(g.ctx, []byte("victim")))
	r, err := s.Erase(g.ctx, nil)
	require.NoError(t, err)
	require.Equal(t, []uint32{1, 2}, r.Epochs)
}
