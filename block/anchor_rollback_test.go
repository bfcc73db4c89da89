package block_test

import (
	"encoding/binary"
	"errors"
	"fmt"
	"testing"
	"time"

	"github.com/cockroachdb/pebble/v2"
	"github.com/stretchr/testify/require"

	"github.com/blockseal/blockseal/block"
	"github.com/blockseal/blockseal/keyring"
	"github.com/blockseal/blockseal/vault"
)

const sequenceKey = "\x01\x00\x00\x00\x00sequence"

// Each way to put back what was, in each way to open it: refused, with what was expected and
// what was found; and accepted, where there is a store to accept, when the anchor was emptied.
func TestAnchorRefusesWhatIsOlder(t *testing.T) {
	type world struct {
		*rig
		n *notch
	}
	for name, c := range map[string]struct {
		putBack func(w world)
		text    string
		none    bool // no store is left that could be accepted
	}{
		"older blocks under the same document": {func(w world) { w.copyDir("older blocks", w.dir) }, "the sequence number of store is 5, at least 9 was expected", false},
		"an older document":                    {func(w world) { w.copyDir("older document", w.dir) }, "at least 6 was expected: an older copy", false},
		"another store": {func(w world) {
			other := newRig(t)
			other.vault, other.kek = w.vault, w.kek
			other.opts.Pebble.FS, other.dir = w.opts.Pebble.FS, "another"
			s := other.open()
			for i := range 9 {
				require.NoError(t, s.Put(w.ctx, fmt.Append(nil, i), nil))
				require.NoError(t, s.RotateKEK(w.ctx))
			}
			require.NoError(t, s.Close())
			w.copyDir("another", w.dir)
			require.NoError(t, w.opts.Pebble.FS.RemoveAll("another")) // or it would be found to be a copy of that, and wait
		}, "another store's keyring", false},
		"the log's end cut off after a crash": {func(w world) {
			w.copyDir("crashed", w.dir)
			w.emptyLogs()
		}, "the sequence number of store is 5, at least 9 was expected", false},
		"the record alone removed": {func(w world) {
			w.edit(func(db *pebble.DB) { require.NoError(t, db.Delete([]byte(sequenceKey), pebble.Sync)) })
		}, "the sequence number of store is 0, at least 9 was expected", false},
		"the directory emptied": {func(w world) { require.NoError(t, w.opts.Pebble.FS.RemoveAll(w.dir)) }, "there is none", true},
	} {
		t.Run(name, func(t *testing.T) {
			w := world{newRig(t), nil}
			w.t = t
			w.n = w.anchored()
			w.opts.AnchorEvery = time.Hour
			s, err := block.Open(w.ctx, w.dir, w.kek, &w.opts)
			require.NoError(t, err)
			anchor := func() (p keyring.Point) {
				p, err := s.AnchorPoint(w.ctx)
				require.NoError(t, err)
				return p
			}
			require.NoError(t, s.Put(w.ctx, []byte("a"), []byte("1")))
			old := anchor()
			w.copyDir(w.dir, "older document")
			require.NoError(t, s.RotateKEK(w.ctx))
			require.NoError(t, s.Checkpoint(w.ctx, "checkpoint"))
			require.NoError(t, s.Put(w.ctx, []byte("a"), []byte("by another epoch than the checkpoint's")))
			require.EqualValues(t, 5, anchor().Sequence)
			require.NoError(t, s.FlushEngine(w.ctx)) // which begins another log
			w.copyDir(w.dir, "older blocks")
			for i := range 4 {
				require.NoError(t, s.Put(w.ctx, []byte("a"), fmt.Append(nil, i)))
			}
			kept := anchor()
			// The KEK, the copy announced and registered, and the epoch that the copy does not have.
			require.Equal(t, old.Generation+4, kept.Generation)
			w.copyDir(w.dir, "crashed")
			require.NoError(t, s.Close())
			w.n.set(kept, nil) // as it was when "crashed" was taken
			c.putBack(w)

			refused := func(how string) {
				t.Helper()
				err := w.tryOpen()
				require.ErrorIs(t, err, keyring.ErrUnexpected, how)
				require.ErrorContains(t, err, c.text, how)
				require.Equal(t, kept, w.n.at(), how)
			}
			refused("with access")
			if !c.none {
				w.opts.ReadOnly = true
				refused("read only")
				w.opts.ReadOnly = false
			}
			if name != "another store" && !c.none { // whose fingerprint nobody knows without access
				w.vault.SetOutage(errors.New("away"))
				refused("without access")
				w.vault.SetOutage(nil)
			}
			if c.none {
				return
			}
			w.n.set(keyring.Point{}, nil)
			require.NoError(t, w.tryOpen())
			require.NotEqual(t, keyring.Point{}, w.n.at(), "from here on it holds what was accepted")
			require.NoError(t, w.tryOpen())
		})
	}
}

// emptyLogs empties the engine's log files, as file systems do at times after a crash.
func (g *rig) emptyLogs() {
	g.t.Helper()
	names, err := g.opts.Pebble.FS.List(g.dir)
	require.NoError(g.t, err)
	emptied := 0
	for _, name := range names {
		if len(name) > 4 && name[len(name)-4:] == ".log" {
			write(g.t.(*testing.T), g.opts.Pebble.FS, g.opts.Pebble.FS.PathJoin(g.dir, name), "")
			emptied++
		}
	}
	require.NotZero(g.t, emptied)
}

// A number that was made up opens nothing: without access it is believed for as long, and
// when the vault says yes the store stays locked. It counts as none without an anchor.
func TestForgedSequence(t *testing.T) {
	g := newRig(t)
	n := g.anchored()
	s := g.open()
	require.NoError(t, s.Put(g.ctx, []byte("a"), nil))
	require.NoError(t, s.Close())
	g.edit(func(db *pebble.DB) {
		v, closer, err := db.Get([]byte(sequenceKey))
		require.NoError(t, err)
		forged := append([]byte{}, v...)
		require.NoError(t, closer.Close())
		require.Len(t, forged, 42)
		binary.BigEndian.PutUint64(forged[34:], 1<<60)
		require.NoError(t, db.Set([]byte(sequenceKey), forged, pebble.Sync))
	})
	require.ErrorIs(t, g.tryOpen(), keyring.ErrUnexpected)

	g.vault.SetOutage(&vault.Error{Kind: vault.ErrUnavailable, Detail: "away"})
	s, err := block.Open(g.ctx, g.dir, g.kek, &g.opts)
	require.NoError(t, err)
	require.Equal(t, keyring.Inaccessible, s.State().Status)
	g.vault.SetOutage(nil)
	require.ErrorIs(t, s.Revalidate(g.ctx), keyring.ErrUnexpected)
	for _, err := range []error{s.Put(g.ctx, []byte("b"), nil), func() error { _, err := s.Get(g.ctx, []byte("a"), nil); return err }()} {
		require.ErrorIs(t, err, block.ErrInaccessible)
		require.ErrorIs(t, err, keyring.ErrUnexpected)
	}
	kept := n.at()
	require.NoError(t, s.Close())
	require.Equal(t, kept, n.at())

	g.opts.Keyring.Anchor = nil
	s = g.open()
	require.Zero(t, s.Sequence())
	require.NoError(t, s.Put(g.ctx, []byte("b"), nil))
	require.NoError(t, s.Close())
	require.EqualValues(t, 1, g.open().Sequence())
}
