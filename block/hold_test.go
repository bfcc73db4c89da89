package block_test

import (
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/blockseal/blockseal/block"
	"github.com/blockseal/blockseal/keyring"
)

// While a copy is held its store cannot move it to another KEK; afterwards it does, by
// itself. What is copied meanwhile is whole.
func TestHoldCheckpoint(t *testing.T) {
	g := newAgeRig(t) // access lasts, however far the clock is moved
	told := make(chan keyring.Event, 100)
	g.opts.Keyring.OnEvent = func(e keyring.Event) {
		if e.Kind == keyring.CopyKEKNotChanged || e.Kind == keyring.CopyKEKChanged {
			told <- e
		}
	}
	s := g.open()
	require.NoError(t, s.Put(g.ctx, []byte("a"), []byte("1")))
	require.NoError(t, s.Checkpoint(g.ctx, "copy"))
	release, err := block.HoldCheckpoint("copy", &g.opts)
	require.NoError(t, err)
	before := directory(files(t, g.opts.Pebble.FS, "copy"))
	second := g.vault.Rotate("customer")
	require.NoError(t, s.RotateKEK(g.ctx))
	e := <-told
	require.Equal(t, keyring.CopyKEKNotChanged, e.Kind)
	require.ErrorIs(t, e.Err, block.ErrLocked)
	require.Empty(t, before.changed(files(t, g.opts.Pebble.FS, "copy")))
	before.put(t, g.opts.Pebble.FS, "elsewhere")
	info, err := block.InspectKeyring("elsewhere", &g.opts)
	require.NoError(t, err)
	require.Equal(t, g.key, info.KEK)

	require.NoError(t, release())
	require.NoError(t, release())
	for e.Kind != keyring.CopyKEKChanged {
		g.clock.Advance(time.Minute)
		select {
		case e = <-told:
		case <-time.After(10 * time.Millisecond): // the clock may have been moved before the store waited for it
		}
	}
	copies, err := s.Copies(g.ctx)
	require.NoError(t, err)
	require.Equal(t, second, copies[0].KEK)
}

func TestHoldRefuses(t *testing.T) {
	g := newRig(t)
	_, err := block.HoldCheckpoint("nowhere", &g.opts)
	require.ErrorIs(t, err, block.ErrNotStore)
	s, err := block.Open(g.ctx, g.dir, g.kek, &g.opts)
	require.NoError(t, err)
	_, err = block.HoldCheckpoint(g.dir, &g.opts)
	require.ErrorIs(t, err, block.ErrLocked)
	crashed := directory(files(t, g.opts.Pebble.FS, g.dir))
	require.NoError(t, s.Close())
	release, err := block.HoldCheckpoint(g.dir, &g.opts)
	require.NoError(t, err)
	require.ErrorIs(t, g.tryOpen(), block.ErrLocked)
	require.NoError(t, release())
	require.NoError(t, g.tryOpen())

	crashed.put(t, g.opts.Pebble.FS, g.dir)
	_, err = block.HoldCheckpoint(g.dir, &g.opts)
	require.ErrorContains(t, err, "it was not closed; open it and close it again")
	require.NoError(t, g.tryOpen())
	for name := range files(t, g.opts.Pebble.FS, g.dir) {
		if role(name) == "marker.manifest" {
			require.NoError(t, g.opts.Pebble.FS.Remove(g.opts.Pebble.FS.PathJoin(g.dir, name)))
		}
	}
	_, err = block.HoldCheckpoint(g.dir, &g.opts)
	require.ErrorIs(t, err, block.ErrCorrupt)
}
