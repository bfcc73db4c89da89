package block_test

import (
	"fmt"
	"sync"
	"testing"
	"time"

	"github.com/cockroachdb/pebble/v2/vfs"
	"github.com/stretchr/testify/require"

	"github.com/blockseal/blockseal/block"
	"github.com/blockseal/blockseal/kek"
	"github.com/blockseal/blockseal/keyring"
)

// deafen has no event come through to the stores that are opened from now on, nor to their
// listener: what must happen must not need one.
func (g *rig) deafen() {
	hear := make(chan struct{})
	g.t.Cleanup(func() { close(hear) })
	g.opts.Keyring.OnEvent = func(keyring.Event) { <-hear }
}

// withCopy is a store with a block and a copy, closed.
func withCopy(t *testing.T) *rig {
	g := newAgeRig(t)
	s, err := block.Open(g.ctx, g.dir, g.kek, &g.opts)
	require.NoError(t, err)
	require.NoError(t, s.Put(g.ctx, []byte("a"), []byte("1")))
	require.NoError(t, s.Checkpoint(g.ctx, "copy"))
	require.NoError(t, s.Close())
	return g
}

// copyNeeds returns the KEK version that wraps the one copy of a store.
func copyNeeds(t *testing.T, s *block.Store) fmt.Stringer {
	copies, err := s.Copies(t.Context())
	require.NoError(t, err)
	require.Len(t, copies, 1)
	return copies[0].KEK
}

// A version that is taken up while the store is opened is followed by the copies, each
// time, and without any event.
func TestCopiesFollowAVersionTakenUpAtOpen(t *testing.T) {
	g := withCopy(t)
	g.deafen()
	for range 5 {
		next := g.vault.Rotate("customer")
		s, err := block.Open(g.ctx, g.dir, g.kek, &g.opts)
		require.NoError(t, err)
		require.Equal(t, next, s.State().KEK)
		eventually(t, func() bool { return copyNeeds(t, s) == next }, "the copy follows")
		require.NoError(t, s.Close())
	}
	opensCopy(g, "copy", "1")
}

// A version that a check finds is followed at the next look, if the event is lost.
func TestCopiesFollowAVersionWithoutAnEvent(t *testing.T) {
	g := withCopy(t)
	g.deafen()
	clock := g.watch()
	s := g.open()
	clock.waited(t, time.Minute, 3) // the store has looked, and found nothing to do
	next := g.vault.Rotate("customer")
	require.NoError(t, s.Revalidate(g.ctx))
	require.Equal(t, next, s.State().KEK)
	g.soon(func() bool { return copyNeeds(t, s) == next }, "the copy follows")
}

// What a store does by itself it takes up within a minute when access comes back, if the
// event of that is lost.
func TestUpkeepAfterALockWithoutAnEvent(t *testing.T) {
	g, s := moving(t, 3)
	require.NoError(t, s.Close())
	g.opts.ManualRewrap, g.opts.Keyring.ManualRevalidation = false, true
	g.deafen()
	clock := g.watch()
	key := s.State().KEK
	g.vault.SetEnabled(key, false)
	s = g.open()
	require.Equal(t, keyring.Inaccessible, s.State().Status)
	clock.waited(t, time.Minute, 3) // each of the three waits
	g.vault.SetEnabled(key, true)
	require.NoError(t, s.Revalidate(g.ctx))
	require.EqualValues(t, 3, left(t, s))
	g.clock.Advance(time.Minute)
	eventually(t, func() bool { return left(t, s) == 0 }, "the DEKs are rewrapped")
}

// A copy that cannot be reached is told of once, however often the store looks for it; it
// follows when it is there again.
func TestCopyThatIsAwayIsToldOfOnce(t *testing.T) {
	g := withCopy(t)
	var mu sync.Mutex
	var told []keyring.Event
	g.opts.Keyring.OnEvent = func(e keyring.Event) {
		if e.Kind == keyring.CopyKEKNotChanged || e.Kind == keyring.Progressed {
			mu.Lock()
			defer mu.Unlock()
			told = append(told, e)
		}
	}
	times := func() int {
		mu.Lock()
		defer mu.Unlock()
		return len(told)
	}
	away := vfs.NewMem()
	_, err := vfs.Clone(g.opts.Pebble.FS, away, "copy", "copy")
	require.NoError(t, err)
	require.NoError(t, g.opts.Pebble.FS.RemoveAll("copy"))
	next := g.vault.Rotate("customer")
	clock := g.watch()
	s := g.open()
	eventually(t, func() bool { return times() == 1 }, "it is told of")
	for wait := 2 * time.Minute; wait < 30*time.Minute; wait *= 2 {
		clock.waited(t, wait, 1) // it looked, and waits twice as long
		g.clock.Advance(wait)
	}
	clock.waited(t, 32*time.Minute, 1)
	mu.Lock()
	require.Len(t, told, 1)
	require.Equal(t, keyring.CopyKEKNotChanged, told[0].Kind)
	mu.Unlock()

	require.NoError(t, s.RotateKEK(g.ctx))
	eventually(t, func() bool { return times() == 2 }, "who asks is told")
	_, err = vfs.Clone(away, g.opts.Pebble.FS, "copy", "copy")
	require.NoError(t, err)
	eventually(t, func() bool {
		g.clock.Advance(time.Minute) // who looks may not have begun to wait yet
		return copyNeeds(t, s) == next
	}, "it follows")
	opensCopy(g, "copy", "1")
}

// A copy that is moved to another KEK is not rewritten, whatever is due in it: neither by
// ChangeCheckpointKEK nor when its store takes it along.
func TestMovingACopyTouchesNoBlock(t *testing.T) {
	g := newRig(t)
	g.opts.Keyring.RekeyAfter = time.Hour
	s, err := block.Open(g.ctx, g.dir, g.kek, &g.opts)
	require.NoError(t, err)
	for i := range 100 {
		require.NoError(t, s.Put(g.ctx, fmt.Appendf(nil, "%03d", i), fmt.Appendf(nil, "data %d", i)))
	}
	require.NoError(t, s.Checkpoint(g.ctx, "copy"))
	look := func(k *kek.KEK) (records map[string]string, blocks []string) {
		o := g.opts
		o.ReadOnly = true
		r, err := block.Open(g.ctx, "copy", k, &o)
		require.NoError(t, err)
		defer r.Close()
		records = r.Records()
		for i := range 100 {
			blocks = append(blocks, string(r.Engine(fmt.Appendf([]byte{3, 0, 0, 0, 0}, "%03d", i))))
		}
		return records, blocks
	}
	records, blocks := look(g.kek)
	for range 12 { // the DEKs are due since an hour
		g.clock.Advance(10 * time.Minute)
		require.NoError(t, s.Revalidate(g.ctx))
	}
	second := g.vault.Rotate("customer")
	require.NoError(t, s.RotateKEK(g.ctx))
	require.Equal(t, second, copyNeeds(t, s))
	require.NoError(t, s.Close())
	nowRecords, nowBlocks := look(g.kek)
	require.Equal(t, records, nowRecords)
	require.Equal(t, blocks, nowBlocks)

	other := kek.New(g.vault, g.vault.CreateKey("other").Versionless())
	require.NoError(t, block.ChangeCheckpointKEK(g.ctx, "copy", g.kek, other, &g.opts))
	nowRecords, nowBlocks = look(other)
	require.Equal(t, records, nowRecords)
	require.Equal(t, blocks, nowBlocks)
}

// A copy that is forgotten while it is moved stays forgotten, and nobody has its files open
// when ForgetCopy has returned.
func TestForgetACopyThatIsBeingMoved(t *testing.T) {
	g := newByKEKRig(t)
	g.opts.Keyring.DEKCache = -1
	s := g.open()
	require.NoError(t, s.Put(g.ctx, []byte("a"), []byte("1")))
	require.NoError(t, s.Checkpoint(g.ctx, "copy"))
	copies, err := s.Copies(g.ctx)
	require.NoError(t, err)
	g.vault.Rotate("customer")
	defer g.vault.Inject(hangOnUnwrap(5))() // of the copy's record
	rotated := make(chan error, 1)
	go func() { rotated <- s.RotateKEK(g.ctx) }()
	eventually(t, func() bool { return g.vault.Waiting() == 1 }, "the copy is being moved")
	require.NoError(t, s.ForgetCopy(g.ctx, copies[0].Instance))
	_, err = block.Inspect(g.ctx, "copy", &g.opts)
	require.NoError(t, err, "it can be opened")
	require.NoError(t, g.opts.Pebble.FS.RemoveAll("copy"))
	require.NoError(t, soonFrom(t, rotated))
	copies, err = s.Copies(g.ctx)
	require.NoError(t, err)
	require.Empty(t, copies)
}
