package block_test

import (
	"context"
	"errors"
	"fmt"
	"sync"
	"testing"
	"time"

	"github.com/cockroachdb/pebble/v2/vfs"
	"github.com/stretchr/testify/require"

	"github.com/blockseal/blockseal/block"
	"github.com/blockseal/blockseal/keyring"
)

// notch is an anchor in memory, that can fail and that tells of each advance.
type notch struct {
	mu   sync.Mutex
	p    keyring.Point
	fail error
	seen func(keyring.Point)
	sign chan struct{} // gets one when something has happened, if there is room
}

func newNotch() *notch { return &notch{sign: make(chan struct{}, 1)} }

func (n *notch) Load(context.Context) (keyring.Point, error) {
	n.mu.Lock()
	defer n.mu.Unlock()
	return n.p, n.fail
}

func (n *notch) Advance(_ context.Context, to keyring.Point) (err error) {
	n.mu.Lock()
	defer n.mu.Unlock()
	if n.seen != nil {
		n.seen(to)
	}
	if err = n.fail; err == nil {
		n.p, err = n.p.Advanced(to)
	}
	select {
	case n.sign <- struct{}{}:
	default:
	}
	return err
}

func (n *notch) at() keyring.Point {
	n.mu.Lock()
	defer n.mu.Unlock()
	return n.p
}

func (n *notch) set(p keyring.Point, fail error) {
	n.mu.Lock()
	defer n.mu.Unlock()
	n.p, n.fail = p, fail
}

func (g *rig) anchored() *notch {
	n := newNotch()
	g.opts.Keyring.Anchor = n
	return n
}

// reaches waits until the anchor is where ok wants it.
func (n *notch) reaches(ok func(keyring.Point) bool) {
	for !ok(n.at()) {
		<-n.sign
	}
}

// copyDir replaces a directory of an in-memory file system by a copy of another.
func (g *rig) copyDir(from, to string) {
	g.t.Helper()
	require.NoError(g.t, g.opts.Pebble.FS.RemoveAll(to))
	ok, err := vfs.Clone(g.opts.Pebble.FS, g.opts.Pebble.FS, from, to)
	require.NoError(g.t, err)
	require.True(g.t, ok)
}

// The number grows with each change that is applied, and with nothing else; it outlives
// Close, is in clear in the files, and goes on in a copy.
func TestSequenceCountsChanges(t *testing.T) {
	g := newRig(t)
	s := g.open()
	n := uint64(1) // its creation
	grows := func(what string, by uint64, f func() error) {
		t.Helper()
		require.NoError(t, f(), what)
		n += by
		require.Equal(t, n, s.Sequence(), what)
	}
	put := func(id string) func() error {
		return func() error { return s.Put(g.ctx, []byte(id), []byte(id)) }
	}
	grows("nothing", 0, func() error { return nil })
	grows("put", 1, put("a"))
	grows("another", 1, put("b"))
	grows("get", 0, func() error { _, err := s.Get(g.ctx, []byte("a"), nil); return err })
	grows("delete", 1, func() error { return s.Delete(g.ctx, []byte("b")) })
	grows("batch", 1, func() error {
		b := s.NewBatch()
		require.NoError(t, b.Put(g.ctx, []byte("c"), nil))
		require.NoError(t, b.Delete(g.ctx, []byte("a")))
		return b.Commit(g.ctx)
	})
	grows("empty batch", 0, func() error { return s.NewBatch().Commit(g.ctx) })
	grows("a copy that is announced, and registered", 2, func() error { return s.Checkpoint(g.ctx, "another") })
	grows("a change that failed", 0, func() error {
		require.Error(t, s.Put(g.ctx, nil, nil))
		return nil
	})
	grows("writing it down", 0, func() error { _, err := s.AnchorPoint(g.ctx); return err })
	grows("checkpoint", 2, func() error { return s.Checkpoint(g.ctx, "copy") }) // is announced and registered
	copied := n - 2
	before := s.Sequence()
	require.NoError(t, s.Rekey(g.ctx, block.Range{}, nil))
	require.Greater(t, s.Sequence(), before)
	n = s.Sequence()
	require.NoError(t, s.Close())

	in, err := block.Inspect(g.ctx, g.dir, &g.opts)
	require.NoError(t, err)
	require.Equal(t, n, in.Sequence)
	s = g.open()
	grows("reopening", 0, func() error { return nil })
	grows("put", 1, put("d"))

	c := *g
	c.dir = "copy"
	in, err = block.Inspect(g.ctx, c.dir, &g.opts)
	require.NoError(t, err)
	require.Equal(t, copied, in.Sequence)
	other := c.open()
	require.Zero(t, other.Sequence(), "the number is not known to be authentic before there is access")
	require.NoError(t, other.Revalidate(g.ctx))
	require.Equal(t, copied, other.Sequence())
}

// The number of a store that has lost access at Close is the last that was written down.
func TestSequenceWithoutAccess(t *testing.T) {
	g := newRig(t)
	s := g.open()
	require.NoError(t, s.Put(g.ctx, []byte("a"), nil))
	p, err := s.AnchorPoint(g.ctx)
	require.NoError(t, err)
	require.EqualValues(t, 2, p.Sequence)
	require.NoError(t, s.Put(g.ctx, []byte("b"), nil))
	g.vault.Revoke()
	require.Error(t, s.Revalidate(g.ctx))
	_, err = s.AnchorPoint(g.ctx)
	require.ErrorIs(t, err, block.ErrInaccessible)
	require.NoError(t, s.Close())
	_, err = s.AnchorPoint(g.ctx)
	require.ErrorIs(t, err, block.ErrClosed)
	g.vault.Restore()
	s = g.open()
	require.EqualValues(t, 2, s.Sequence())
	has, err := s.Has(g.ctx, []byte("b"))
	require.NoError(t, err)
	require.True(t, has, "which was durable all the same")
}

// The anchor follows the changes at the rate that was asked for, the document at once, and
// everything at Close.
func TestAnchorEvery(t *testing.T) {
	g := newRig(t)
	n := g.anchored()
	g.opts.AnchorEvery = 10 * time.Second
	var mu sync.Mutex
	var advanced []keyring.Point
	n.seen = func(p keyring.Point) {
		mu.Lock()
		defer mu.Unlock()
		advanced = append(advanced, p)
	}
	s := g.open()
	require.EqualValues(t, 1, n.at().Sequence, "a new store is anchored when Open returns")
	put := func() {
		t.Helper()
		require.NoError(t, s.Put(g.ctx, []byte("a"), nil))
	}
	for range 100 {
		put()
	}
	g.untilAnchored(s, n, func(p keyring.Point) bool { return p.Sequence == 101 })
	put()
	require.NoError(t, s.RotateKEK(g.ctx))
	require.Equal(t, s.State().Generation, n.at().Generation, "before it was acknowledged")
	n.reaches(func(p keyring.Point) bool { return p.Sequence == 102 }) // without the clock
	put()
	require.NoError(t, s.Close())
	require.EqualValues(t, 103, n.at().Sequence)
	mu.Lock()
	defer mu.Unlock()
	require.Less(t, len(advanced), 20, "for 103 changes: %v", advanced)
	for i := 1; i < len(advanced); i++ {
		require.LessOrEqual(t, advanced[i-1].Generation, advanced[i].Generation)
		require.LessOrEqual(t, advanced[i-1].Sequence, advanced[i].Sequence)
	}

	n.seen = func(keyring.Point) { t.Error("a store that is read only checks, and does not advance") }
	g.opts.ReadOnly = true
	require.NoError(t, g.tryOpen())
}

// untilAnchored lets time pass until the anchor is where ok wants it: the store arms its
// timer on a goroutine of its own. Access is renewed on the way.
func (g *rig) untilAnchored(s *block.Store, n *notch, ok func(keyring.Point) bool) {
	for !ok(n.at()) {
		g.clock.Advance(time.Second)
		require.NoError(g.t, s.Revalidate(g.ctx))
	}
}

// An anchor that fails stops no write and loses none. The store catches up when it is back,
// or says at Close that it has not.
func TestAnchorThatFails(t *testing.T) {
	g := newRig(t)
	n := g.anchored()
	s := g.open()
	full := errors.New("no space left on the anchor's device")
	n.set(n.at(), full)
	for range 10 {
		require.NoError(t, s.Put(g.ctx, []byte("a"), []byte("1")))
	}
	require.NoError(t, s.RotateKEK(g.ctx))
	require.NoError(t, s.RotateEpoch(g.ctx, nil))
	require.ErrorIs(t, s.State().AnchorErr, full)
	require.Equal(t, keyring.Available, s.State().Status)
	require.EqualValues(t, 1, n.at().Sequence)
	n.set(n.at(), nil)
	g.untilAnchored(s, n, func(p keyring.Point) bool { return p.Sequence == s.Sequence() && p.Generation == s.State().Generation })

	n.set(n.at(), full)
	require.NoError(t, s.Put(g.ctx, []byte("a"), []byte("2")))
	err := s.Close()
	require.ErrorIs(t, err, full)
	require.ErrorContains(t, err, "lags behind")
	require.NoError(t, s.Close())
	require.ErrorIs(t, g.tryOpen(), full, "nothing is opened without its anchor")
	lagging := n.at()
	n.set(lagging, nil)
	s = g.open()
	require.Equal(t, s.Sequence(), n.at().Sequence)
	require.Greater(t, s.Sequence(), lagging.Sequence)
	got, err := s.Get(g.ctx, []byte("a"), nil)
	require.NoError(t, err)
	require.Equal(t, "2", string(got))
}

// A creation that fails, at whatever step, leaves the anchor empty, so that it can be done
// again.
func TestAnchorOfACreationThatFails(t *testing.T) {
	steps := 0
	for step := 1; ; step++ {
		g := newRig(t)
		n := g.anchored()
		disk := &watchedFS{FS: vfs.NewCrashableMem()}
		g.opts.Pebble.FS = disk
		var mu sync.Mutex // the engine writes on goroutines of its own, too
		seen := 0
		var left *vfs.MemFS
		see := func(string, string) {
			mu.Lock()
			defer mu.Unlock()
			if seen++; seen == step {
				left = disk.crash(vfs.CrashCloneCfg{})
			}
		}
		over := func() {
			mu.Lock()
			defer mu.Unlock()
			seen = step
		}
		n.seen = func(keyring.Point) { over() } // from here on it is the next test's
		disk.watch.Store(&see)
		s, err := block.Open(g.ctx, g.dir, g.kek, &g.opts)
		disk.watch.Store(nil)
		over() // what found the watch before it was taken away is too late
		require.NoError(t, err)
		require.NoError(t, s.Close())
		if left == nil {
			break
		}
		steps++
		// As it was then: nothing had been said to the anchor.
		g.opts.Pebble.FS, n.seen = left, nil
		n.set(keyring.Point{}, nil)
		require.NoError(t, g.tryOpen(), "step %d", step)
		require.NoError(t, g.tryOpen(), "step %d", step)
	}
	require.Greater(t, steps, 10)
}

// An anchor never holds what a crash could take away: at each advance, what a crash would
// leave at that moment, nothing kept that was not synced, opens with that very anchor. Writers,
// rotations and copies are at work meanwhile.
func TestAnchorNeverRunsAhead(t *testing.T) {
	for _, noSync := range []bool{false, true} {
		t.Run(fmt.Sprint("NoSync ", noSync), func(t *testing.T) {
			g := newRig(t)
			disk := &watchedFS{FS: vfs.NewCrashableMem()}
			g.opts.Pebble.FS, g.opts.NoSync, g.opts.Pebble.MemTable = disk, noSync, 64<<10
			g.opts.Keyring.EpochMaxDEKs = 64 * 16 // the document is saved every 16 DEKs
			g.opts.AnchorEvery = time.Millisecond
			n := g.anchored()
			looks := 0
			n.seen = func(p keyring.Point) {
				looks++
				c := newRig(t)
				c.vault, c.kek, c.opts.Pebble.FS = g.vault, g.kek, disk.crash(vfs.CrashCloneCfg{})
				c.opts.Keyring.Anchor, c.opts.ReadOnly = keyring.Expect(p), true
				if err := c.tryOpen(); err != nil {
					t.Errorf("advanced to %v, and a crash would leave: %v", p, err)
				}
			}
			s, err := block.Open(g.ctx, g.dir, g.kek, &g.opts)
			require.NoError(t, err)
			var wg sync.WaitGroup
			for w := range 3 {
				wg.Go(func() {
					for i := range 60 {
						if err := s.Put(g.ctx, fmt.Append(nil, w, i%7), make([]byte, 100*w)); err != nil {
							t.Error(err)
						}
						if i%10 == 0 {
							g.clock.Advance(time.Millisecond)
						}
					}
				})
			}
			wg.Go(func() {
				for range 3 {
					if err := errors.Join(s.RotateEpoch(g.ctx, nil), s.RotateKEK(g.ctx)); err != nil {
						t.Error(err)
					}
				}
			})
			wg.Wait()
			require.NoError(t, s.Checkpoint(g.ctx, "copy"))
			require.NoError(t, s.Close())
			require.Greater(t, looks, 5)
			n.seen = nil
			g.opts.Pebble.FS = disk.crash(vfs.CrashCloneCfg{})
			require.NoError(t, g.tryOpen())
		})
	}
}

// The options of a store move its copy, which is older, without its anchor getting in the way
// or being moved.
func TestAnchorAndCopies(t *testing.T) {
	g := newRig(t)
	n := g.anchored()
	s := g.open()
	require.NoError(t, s.Put(g.ctx, []byte("a"), nil))
	require.NoError(t, s.Checkpoint(g.ctx, "copy"))
	for range 5 {
		require.NoError(t, s.Put(g.ctx, []byte("a"), nil))
	}
	require.NoError(t, s.Close())
	kept := n.at()
	require.NoError(t, block.ChangeCheckpointKEK(g.ctx, "copy", g.kek, g.kek, &g.opts))
	require.Equal(t, kept, n.at())

	c := *g
	c.dir = "copy"
	err := c.tryOpen()
	require.ErrorIs(t, err, keyring.ErrUnexpected, "the copy is not the store, and older")
	own := newNotch()
	c.opts.Keyring.Anchor = own
	s = c.open()
	require.Equal(t, keyring.Point{}, own.at(), "a copy that waits for its revalidation has said nothing")
	require.NoError(t, s.Revalidate(g.ctx))
	require.NoError(t, s.Put(g.ctx, []byte("b"), nil))
	require.NoError(t, s.Close())
	require.Equal(t, kept.Fingerprint, own.at().Fingerprint)
	require.NotZero(t, own.at().Sequence)
	require.NoError(t, c.tryOpen())
}
