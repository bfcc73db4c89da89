package block_test

import (
	"bytes"
	"errors"
	"fmt"
	"iter"
	"maps"
	"runtime"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/cockroachdb/pebble/v2/vfs"
	"github.com/stretchr/testify/require"

	"github.com/blockseal/blockseal/block"
	"github.com/blockseal/blockseal/internal/test/race"
	"github.com/blockseal/blockseal/keyring"
	"github.com/blockseal/blockseal/vault"
	"github.com/blockseal/blockseal/vault/vaulttest"
)

// A store under load that is locked and unlocked again and again, in every way: once
// the state says Inaccessible nothing is read and nothing acknowledged, and whatever
// was acknowledged is there.
func TestLockUnderLoad(t *testing.T) {
	g := newRig(t)
	s := g.open()
	l := &load{t: t, s: s, acked: map[string]bool{}}
	require.NoError(t, s.Put(g.ctx, []byte("first"), dataOf("first")))
	l.ack("first")
	l.start(g)
	defer func() {
		l.stop.Store(true)
		l.wg.Wait()
	}()

	var remove func()
	ways := []struct{ lose, back func() }{
		{ // the vault refuses
			func() { g.vault.SetEnabled(g.key, false); require.Error(t, s.Revalidate(g.ctx)) },
			func() { g.vault.SetEnabled(g.key, true) },
		},
		{ // the lease ends
			func() {
				g.vault.SetOutage(vaulttest.NetworkGone())
				require.Error(t, s.Revalidate(g.ctx))
				g.clock.Advance(keyring.DefaultLease)
			},
			func() { g.vault.SetOutage(nil) },
		},
		{ // the key expires
			func() {
				g.vault.SetDates(g.key, time.Time{}, g.clock.Now().Add(20*time.Second))
				require.NoError(t, s.Revalidate(g.ctx))
				g.clock.Advance(20 * time.Second)
			},
			func() { g.vault.SetDates(g.key, time.Time{}, time.Time{}) },
		},
		{ // the vault has another key
			func() {
				remove = g.vault.Inject(vaulttest.Fault{Op: vault.OpUnwrapKey, Plaintext: make([]byte, 32)})
				require.Error(t, s.Revalidate(g.ctx))
			},
			func() { remove() },
		},
	}
	cycles := 24
	if race.Enabled {
		cycles = 8 // each way twice
	}
	for cycle := range cycles {
		w := ways[cycle%len(ways)]
		w.lose()
		for s.State().Status != keyring.Inaccessible && !t.Failed() {
			runtime.Gosched()
		}
		l.everyoneWasRefused()
		l.unlocks.Add(1)
		w.back()
		require.NoError(t, s.Revalidate(g.ctx))
		require.Equal(t, keyring.Available, s.State().Status)
		l.unlocks.Add(1)
		l.someAreAcknowledged(20) // before it is locked again
		for range 20 {            // some of it while it serves
			id := fmt.Sprintf("between %d", cycle)
			require.NoError(t, s.Put(g.ctx, []byte(id), dataOf(id)))
			l.ack(id)
		}
		for _, id := range l.some(50) {
			got, err := s.Get(g.ctx, []byte(id), nil)
			require.NoError(t, err)
			require.True(t, bytes.Equal(dataOf(id), got), id)
		}
		require.False(t, t.Failed())
	}
	l.stop.Store(true)
	l.wg.Wait()
	all := func(s *block.Store) {
		require.Greater(t, len(l.acked), cycles*20)
		for id := range maps.Keys(l.acked) {
			got, err := s.Get(g.ctx, []byte(id), nil)
			require.NoError(t, err, id)
			require.True(t, bytes.Equal(dataOf(id), got), id)
		}
		n := 0
		for b, err := range s.Blocks(g.ctx, block.Range{}) {
			require.NoError(t, err)
			require.True(t, bytes.Equal(dataOf(string(b.ID)), b.Data), "whatever else is there is whole")
			n++
		}
		require.GreaterOrEqual(t, n, len(l.acked))
	}
	all(s)
	require.NoError(t, s.Close())
	all(g.open())
}

// gate is a file system whose logs do not get durable while it is shut.
type gate struct {
	vfs.FS
	mu      sync.Mutex
	shut    chan struct{} // closed when it opens; nil: open
	waiting atomic.Int64
}

type gatedFile struct {
	vfs.File
	g *gate
}

func (g *gate) Create(name string, category vfs.DiskWriteCategory) (vfs.File, error) {
	f, err := g.FS.Create(name, category)
	return g.wrap(name, f), err
}

func (g *gate) ReuseForWrite(oldname, newname string, category vfs.DiskWriteCategory) (vfs.File, error) {
	f, err := g.FS.ReuseForWrite(oldname, newname, category)
	return g.wrap(newname, f), err
}

func (g *gate) wrap(name string, f vfs.File) vfs.File {
	if f == nil || !strings.HasSuffix(name, ".log") {
		return f
	}
	return &gatedFile{f, g}
}

// close shuts the gate and returns what opens it.
func (g *gate) close() (open func()) {
	g.mu.Lock()
	defer g.mu.Unlock()
	g.shut = make(chan struct{})
	shut := g.shut
	return func() {
		g.mu.Lock()
		defer g.mu.Unlock()
		g.shut = nil
		close(shut)
	}
}

func (g *gate) pass() {
	g.mu.Lock()
	shut := g.shut
	g.mu.Unlock()
	if shut != nil {
		g.waiting.Add(1)
		<-shut
		g.waiting.Add(-1)
	}
}

func (f *gatedFile) Sync() error     { f.g.pass(); return f.File.Sync() }
func (f *gatedFile) SyncData() error { f.g.pass(); return f.File.SyncData() }
func (f *gatedFile) SyncTo(n int64) (bool, error) {
	f.g.pass()
	return f.File.SyncTo(n)
}

// A write that is on its way to the disk when the store locks is over, with its
// result, before anybody is told that the store is locked; nothing begins meanwhile.
func TestOperationsEndBeforeTheLockIsAnnounced(t *testing.T) {
	for _, way := range []string{"denied", "expiry"} {
		t.Run(way, func(t *testing.T) {
			g := newRig(t)
			disk := &gate{FS: g.opts.Pebble.FS}
			g.opts.Pebble.FS = disk
			var open atomic.Bool // the gate
			var announced atomic.Int64
			g.opts.Keyring.OnEvent = func(e keyring.Event) {
				if e.Kind == keyring.StateChanged && e.To == keyring.Inaccessible {
					if announced.Add(1); !open.Load() {
						t.Error("announced while a write was in flight")
					}
				}
			}
			if way == "expiry" {
				g.vault.SetDates(g.key, time.Time{}, start.Add(20*time.Second))
			}
			s := g.open()
			require.NoError(t, s.Put(g.ctx, []byte("before"), []byte("1")))
			release := sync.OnceFunc(disk.close())
			defer release()
			acked := make(chan error, 1)
			go func() { acked <- s.Put(g.ctx, []byte("in flight"), []byte("2")) }()
			eventually := func(cond func() bool) {
				require.Eventually(t, cond, time.Minute, time.Millisecond)
			}
			eventually(func() bool { return disk.waiting.Load() == 1 }) // it waits for the disk

			locked := make(chan struct{})
			go func() { // the lock waits for the write, and this for the lock
				defer close(locked)
				if way == "denied" {
					g.vault.SetEnabled(g.key, false)
					s.Revalidate(g.ctx)
					return
				}
				g.clock.Advance(20 * time.Second)
			}()
			eventually(func() bool { // nothing begins any more
				_, err := s.Has(g.ctx, []byte("before"))
				return errors.Is(err, block.ErrInaccessible)
			})
			time.Sleep(20 * time.Millisecond) // time to do what it must not
			require.Empty(t, acked)
			require.NotEqual(t, keyring.Inaccessible, s.State().Status)
			require.Zero(t, announced.Load())
			_, err := s.Get(g.ctx, []byte("before"), nil)
			require.ErrorIs(t, err, block.ErrInaccessible, "nothing begins any more")
			require.ErrorIs(t, s.Put(g.ctx, []byte("after"), nil), block.ErrInaccessible)

			open.Store(true)
			release()
			<-locked
			require.NoError(t, <-acked)
			eventually(func() bool { return announced.Load() > 0 })
			require.Equal(t, keyring.Inaccessible, s.State().Status)

			g.vault.SetEnabled(g.key, true)
			g.vault.SetDates(g.key, time.Time{}, time.Time{})
			require.NoError(t, s.Revalidate(g.ctx))
			got, err := s.Get(g.ctx, []byte("in flight"), nil)
			require.NoError(t, err)
			require.Equal(t, "2", string(got))
			_, err = s.Get(g.ctx, []byte("after"), nil)
			require.ErrorIs(t, err, block.ErrNotFound)
		})
	}
}

// What was open when the store locked ends, with the reason, and stays ended when
// the store comes back.
func TestOpenThingsEndWithTheLock(t *testing.T) {
	for _, relent := range []bool{false, true} { // before the next use
		t.Run(fmt.Sprintf("used after revalidation=%v", relent), func(t *testing.T) {
			g := newRig(t)
			s := g.open()
			for i := range 10 {
				require.NoError(t, s.Put(g.ctx, fmt.Appendf(nil, "%d", i), []byte("x")))
			}
			pull := func(blocks iter.Seq2[block.Block, error]) func() (block.Block, error, bool) {
				next, stop := iter.Pull2(blocks)
				t.Cleanup(stop)
				b, err, ok := next()
				require.True(t, ok)
				require.NoError(t, err)
				require.Equal(t, "x", string(b.Data))
				return next
			}
			snap := s.Snapshot()
			defer snap.Close()
			scan, snapScan := pull(s.Blocks(g.ctx, block.Range{})), pull(snap.Blocks(g.ctx, block.Range{}))
			batch, other, empty := s.NewBatch(), s.NewBatch(), s.NewBatch()
			defer batch.Close()
			defer other.Close()
			require.NoError(t, batch.Put(g.ctx, []byte("batch"), []byte("y")))
			require.NoError(t, other.Put(g.ctx, []byte("batch"), []byte("y")))

			g.vault.SetEnabled(g.key, false)
			require.ErrorIs(t, s.Revalidate(g.ctx), vault.ErrKeyDisabled)
			late := s.Snapshot()
			defer late.Close()
			back := func() {
				g.vault.SetEnabled(g.key, true)
				require.NoError(t, s.Revalidate(g.ctx))
			}
			if relent {
				back()
			}
			ended := func(err error) {
				t.Helper()
				require.ErrorIs(t, err, block.ErrInaccessible)
				require.ErrorIs(t, err, vault.ErrKeyDisabled)
			}
			use := func() {
				for _, sn := range []*block.Snapshot{snap, late} {
					got, err := sn.Get(g.ctx, []byte("0"), nil)
					ended(err)
					require.Empty(t, got)
					_, err = sn.Has(g.ctx, []byte("0"))
					ended(err)
					n := 0
					for b, err := range sn.Blocks(g.ctx, block.Range{}) {
						ended(err)
						require.Zero(t, b)
						n++
					}
					require.Equal(t, 1, n)
				}
				ended(batch.Put(g.ctx, []byte("more"), nil))
				ended(batch.Delete(g.ctx, []byte("0")))
				ended(batch.Commit(g.ctx))
				ended(other.Commit(g.ctx))
			}
			for _, next := range []func() (block.Block, error, bool){scan, snapScan} {
				b, err, ok := next()
				require.True(t, ok)
				ended(err)
				require.Zero(t, b)
				_, _, ok = next()
				require.False(t, ok, "the error is the last that comes")
			}
			use()
			if !relent {
				back()
				use()
			}
			// A batch that held nothing belongs to no stretch of access yet.
			require.NoError(t, empty.Put(g.ctx, []byte("new"), []byte("z")))
			require.NoError(t, empty.Commit(g.ctx))
			_, err := s.Get(g.ctx, []byte("batch"), nil)
			require.ErrorIs(t, err, block.ErrNotFound, "nothing of a batch that ended is there")
			got, err := s.Get(g.ctx, []byte("new"), nil)
			require.NoError(t, err)
			require.Equal(t, "z", string(got))
		})
	}
}
