package block_test

import (
	"strings"
	"sync"
	"testing"

	"github.com/cockroachdb/pebble/v2/vfs"
	"github.com/stretchr/testify/require"

	"github.com/blockseal/blockseal/block"
	"github.com/blockseal/blockseal/kek"
	"github.com/blockseal/blockseal/keyring"
)

// A copy that is announced when others begin to be moved, and whole before it is its turn,
// is the copy that was registered, and follows like the others.
func TestCopyThatIsMadeWhileOthersAreMoved(t *testing.T) {
	g := newRig(t)
	disk := &watchedFS{FS: vfs.NewCrashableMem()}
	g.opts.Pebble.FS = disk
	// Its DEKs stay with the KEK of before, so that what is copied needs to be moved.
	g.opts.Keyring.Wrapping, g.opts.ManualRewrap, g.opts.VaultRate = keyring.ByKEK, true, 1<<30
	s := g.open()
	require.NoError(t, s.Put(g.ctx, []byte("a"), []byte("data")))
	require.NoError(t, s.Checkpoint(g.ctx, "copy-1"))
	release, err := block.HoldCheckpoint("copy-1", &g.opts)
	require.NoError(t, err)
	other := kek.New(g.vault, g.vault.CreateKey("other").Versionless())
	require.NoError(t, s.ChangeKEK(g.ctx, other)) // which copy-1 does not follow yet

	var first, second sync.Once
	making, moving, make2, move1 := make(chan struct{}), make(chan struct{}), make(chan struct{}), make(chan struct{})
	see := func(op, name string) {
		switch {
		case op == "lock" && strings.Contains(name, "copy-2"): // to read what is to be registered
			second.Do(func() { close(making); <-make2 })
		case op == "create" && strings.Contains(name, "copy-1"): // not the lock, which is held at first
			first.Do(func() { close(moving); <-move1 })
		}
	}
	disk.watch.Store(&see)
	made, looked := make(chan error, 1), make(chan error, 1)
	go func() { made <- s.Checkpoint(g.ctx, "copy-2") }()
	<-making // it is announced, and has its files
	release()
	go func() { looked <- s.LookAtCopies(g.ctx) }()
	<-moving // both were listed
	close(make2)
	require.NoError(t, <-made)
	close(move1)
	require.NoError(t, <-looked)
	disk.watch.Store(nil)

	require.NoError(t, s.RotateKEK(g.ctx))
	copies, err := s.Copies(g.ctx)
	require.NoError(t, err)
	require.Len(t, copies, 2)
	for _, c := range copies {
		require.True(t, c.NeedsOnly(s.State().KEK), "%+v", c)
	}
}
