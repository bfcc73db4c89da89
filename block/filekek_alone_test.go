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

// aloneRig is a filesRig without a DB: a store that has the directory "alone", under a file KEK, for itself.
type aloneRig struct {
	*filesRig
	options block.Options
}

func newAloneRig(t *testing.T) *aloneRig {
	g := &aloneRig{filesRig: newFilesRig(t)}
	g.options = g.store
	g.options.ManualRewrap = false
	g.options.Pebble, g.options.FileKEK, g.options.RequireAccess = g.opts.Pebble, g.opts.FileKEK, true
	return g
}

func (g *aloneRig) open() *block.Store {
	g.t.Helper()
	s, err := block.Open(g.ctx, "alone", g.kek("a"), &g.options)
	require.NoError(g.t, err)
	g.t.Cleanup(func() { require.NoError(g.t, s.Close()) })
	return s
}

// A store that has its directory for itself is made, closed, opened and looked at under a file KEK, and
// by nobody without it.
func TestFileKEKOfAStoreAlone(t *testing.T) {
	g := newAloneRig(t)
	s := g.open()
	put(t, s, "one", "first")
	put(t, s, "two", "second")
	st := s.State()
	require.NoError(t, s.Close())

	without := g.options
	without.FileKEK = nil
	wrong := g.options
	wrong.FileKEK = kek.New(g.operator, g.operator.CreateKey("another").Versionless())
	for name, o := range map[string]*block.Options{"no file KEK": &without, "another file KEK": &wrong} {
		_, err := block.Open(g.ctx, "alone", g.kek("a"), o)
		require.ErrorIs(t, err, block.ErrFileKEK, name)
		_, err = block.Inspect(g.ctx, "alone", o)
		require.ErrorIs(t, err, block.ErrFileKEK, name)
		_, err = block.InspectKeyring("alone", o)
		require.ErrorIs(t, err, block.ErrFileKEK, name)
		_, err = block.HoldCheckpoint("alone", o)
		require.ErrorIs(t, err, block.ErrFileKEK, name)
		_, err = block.Relocate(g.ctx, "alone", g.kek("a"), o)
		require.ErrorIs(t, err, block.ErrFileKEK, name)
	}

	in, err := block.Inspect(g.ctx, "alone", &g.options)
	require.NoError(t, err)
	require.Equal(t, uint64(2), in.Records)
	require.Equal(t, st.KEK, in.Keyring.KEK)
	info, err := block.InspectKeyring("alone", &g.options)
	require.NoError(t, err)
	require.Equal(t, in.Keyring, info)

	g.operator.SetEnabled(g.options.FileKEK.ID(), false)
	for name, call := range map[string]func() error{
		"Open":           func() error { _, err := block.Open(g.ctx, "alone", g.kek("a"), &g.options); return err },
		"Inspect":        func() error { _, err := block.Inspect(g.ctx, "alone", &g.options); return err },
		"InspectKeyring": func() error { _, err := block.InspectKeyring("alone", &g.options); return err },
		"HoldCheckpoint": func() error { _, err := block.HoldCheckpoint("alone", &g.options); return err },
		"Relocate":       func() error { _, err := block.Relocate(g.ctx, "alone", g.kek("a"), &g.options); return err },
	} {
		err := call()
		require.ErrorIs(t, err, block.ErrFileKEK, name)
		require.ErrorIs(t, err, vault.ErrKeyDisabled, name)
	}
	g.operator.SetEnabled(g.options.FileKEK.ID(), true)
	s = g.open()
	holds(t, s, "one", "first")
	holds(t, s, "two", "second")
}

// A store of many in a directory under a file KEK is looked at by its name.
func TestInspectUnderAFileKEK(t *testing.T) {
	g := newFilesRig(t)
	put(t, g.create("a"), "one", "first")
	g.create("b")
	require.NoError(t, g.db.Close())
	o := block.Options{Pebble: g.opts.Pebble, FileKEK: g.opts.FileKEK, Name: "a"}
	in, err := block.Inspect(g.ctx, "db", &o)
	require.NoError(t, err)
	require.Equal(t, uint64(1), in.Records)
	require.NotZero(t, in.Files)
	o.Name = ""
	_, err = block.Inspect(g.ctx, "db", &o)
	require.ErrorIs(t, err, block.ErrNoStore)
}

// A checkpoint of a sealed directory is a sealed directory: it is held, damage in it is found, and it moves
// with its store from KEK to KEK.
func TestCheckpointsUnderAFileKEK(t *testing.T) {
	g := newAloneRig(t)
	s := g.open()
	put(t, s, "one", "first")
	require.NoError(t, s.Checkpoint(g.ctx, "copy"))

	release, err := block.HoldCheckpoint("copy", &g.options)
	require.NoError(t, err)
	_, err = block.Open(g.ctx, "copy", g.kek("a"), &g.options)
	require.ErrorIs(t, err, block.ErrLocked)
	require.NoError(t, release())
	require.NoError(t, release())

	was := s.State().KEK
	g.vault.Rotate(g.kek("a").ID().Name)
	require.NoError(t, s.RotateKEK(g.ctx))
	now := s.State().KEK
	require.NotEqual(t, was, now)
	g.eventually(func() bool {
		copies, err := s.Copies(g.ctx)
		require.NoError(t, err)
		return len(copies) == 1 && copies[0].NeedsOnly(now)
	})
	require.NoError(t, s.Close())
	in, err := block.InspectKeyring("copy", &g.options)
	require.NoError(t, err)
	require.Equal(t, now, in.KEK)

	names, err := g.options.Pebble.FS.List("copy")
	require.NoError(t, err)
	for _, name := range names {
		if len(name) > 4 && name[len(name)-4:] == ".log" {
			require.NoError(t, g.options.Pebble.FS.Remove(g.options.Pebble.FS.PathJoin("copy", name)))
		}
	}
	_, err = block.HoldCheckpoint("copy", &g.options)
	require.ErrorIs(t, err, block.ErrCorrupt)
}

// A store under a file KEK is relocated with its copies to a vault that has the same key.
func TestRelocateUnderAFileKEK(t *testing.T) {
	g := newAloneRig(t)
	s := g.open()
	put(t, s, "one", "first")
	require.NoError(t, s.Checkpoint(g.ctx, "copy"))
	require.NoError(t, s.Close())

	elsewhere := vaulttest.New(&vaulttest.Options{Name: "elsewhere", Clock: g.clock})
	moved := kek.New(elsewhere, elsewhere.CreateKey(g.kek("a").ID().Name).Versionless())
	rel, err := block.Relocate(g.ctx, "alone", moved, &g.options)
	require.NoError(t, err)
	require.Len(t, rel.Moved, 1)
	require.Len(t, rel.Copies, 1)
	require.NoError(t, rel.Copies[0].Err)
	for _, dir := range []string{"alone", "copy"} {
		in, err := block.InspectKeyring(dir, &g.options)
		require.NoError(t, err)
		require.Equal(t, moved.ID().Vault, in.KEK.Vault, dir)
	}
	s, err = block.Open(g.ctx, "alone", moved, &g.options)
	require.NoError(t, err)
	holds(t, s, "one", "first")
	require.Equal(t, keyring.Available, s.State().Status)
	require.NoError(t, s.Close())
}

// A copy is wrapped by the file KEK that the directory had when it was made. A DB that has changed to another one
// moves it all the same, also when it was opened anew, if it is told of the former one.
func TestCopiesAfterAChangeOfTheFileKEK(t *testing.T) {
	g := newFilesRig(t)
	s := g.create("a")
	put(t, s, "one", "first")
	rotated := func() {
		t.Helper()
		g.vault.Rotate(g.kek("a").ID().Name)
		require.NoError(t, s.RotateKEK(g.ctx))
		require.NoError(t, s.RewrapDEKs(g.ctx, nil))
		copies, err := s.Copies(g.ctx)
		require.NoError(t, err)
		require.Len(t, copies, 2)
		for _, c := range copies {
			require.True(t, c.NeedsOnly(s.State().KEK), "%s needs %v", c.Path, c.KEKs)
		}
	}
	require.NoError(t, g.db.Checkpoint(g.ctx, "before"))
	other := kek.New(g.operator, g.operator.CreateKey("other").Versionless())
	require.NoError(t, g.db.ChangeFileKEK(g.ctx, other))
	require.NoError(t, g.db.Checkpoint(g.ctx, "after"))
	rotated()

	require.NoError(t, g.db.Close())
	g.opts.FileKEK, g.opts.FileKeyring.OtherKEKs = other, []*kek.KEK{g.opts.FileKEK}
	g.openDB()
	var err error
	s, err = g.db.Open(g.ctx, "a", g.kek("a"), &g.store)
	require.NoError(t, err)
	rotated()
}
