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
	"testing/synctest"
	"time"

	"github.com/cockroachdb/pebble/v2/vfs"
	"github.com/stretchr/testify/require"

	"github.com/blockseal/blockseal/block"
	"github.com/blockseal/blockseal/keyring"
	"github.com/blockseal/blockseal/vault"
	"github.com/blockseal/blockseal/vault/vaulttest"
)

// load is goroutines that read and write a store while it is locked and unlocked.
type load struct {
	t    *testing.T
	s    *block.Store
	stop atomic.Bool
	wg   sync.WaitGroup

	// unlocks is counted up before the vault relents. An operation that began
	// when the state said Inaccessible, and ended when the count was the same, was
	// not allowed to do anything.
	unlocks atomic.Int64
	refused []*atomic.Int64 // operations that were, by worker

	mu    sync.Mutex
	acked map[string]bool
}

// dataOf is the content of the block with a given id.
func dataOf(id string) []byte { return bytes.Repeat([]byte(id+"|"), 10+len(id)%7*40) }

func (l *load) ack(ids ...string) {
	l.mu.Lock()
	defer l.mu.Unlock()
	for _, id := range ids {
		l.acked[id] = true
	}
}

// some returns up to n ids of blocks that are there.
func (l *load) some(n int) (ids []string) {
	l.mu.Lock()
	defer l.mu.Unlock()
	for id := range l.acked {
		if len(ids) == n {
			break
		}
		ids = append(ids, id)
	}
	return ids
}

// worker runs op, which reports whether something was read or acknowledged, over and
// over. Its error must be one that says Inaccessible and why.
func (l *load) worker(op func(n int) (did bool, err error)) {
	me, refused := len(l.refused), new(atomic.Int64)
	l.refused = append(l.refused, refused)
	l.wg.Add(1)
	go func() {
		defer l.wg.Done()
		for n := 0; !l.stop.Load(); n++ {
			unlocks := l.unlocks.Load()
			locked := l.s.State().Status == keyring.Inaccessible
			did, err := op(n)
			if err != nil && (!errors.Is(err, block.ErrInaccessible) || vault.Kind(err) == nil) {
				l.t.Errorf("worker %d: %v", me, err)
				return
			}
			if did && locked && l.unlocks.Load() == unlocks {
				l.t.Errorf("worker %d read or wrote when the state had said Inaccessible", me)
				return
			}
			if err != nil {
				refused.Add(1)
				runtime.Gosched()
			}
		}
	}()
}

// start starts workers of every kind.
func (l *load) start(g *rig) {
	ctx, s := g.ctx, l.s
	put := func(me int) func(int) (bool, error) {
		return func(n int) (bool, error) {
			id := fmt.Sprintf("put %d %06d", me, n)
			err := s.Put(ctx, []byte(id), dataOf(id))
			if err == nil {
				l.ack(id)
			}
			return err == nil, err
		}
	}
	batch := func(n int) (bool, error) {
		b := s.NewBatch()
		defer b.Close()
		var ids []string
		for i := range 3 {
			id := fmt.Sprintf("batch %06d %d", n, i)
			if err := b.Put(ctx, []byte(id), dataOf(id)); err != nil {
				return false, err
			}
			ids = append(ids, id)
		}
		if err := b.Commit(ctx); err != nil {
			return false, err
		}
		l.ack(ids...)
		return true, nil
	}
	get := func(int) (did bool, err error) {
		for _, id := range l.some(1) {
			got, err := s.Get(ctx, []byte(id), nil)
			if err != nil {
				return len(got) > 0, err
			}
			if did = true; !bytes.Equal(got, dataOf(id)) {
				l.t.Errorf("%s: a wrong block of %d bytes", id, len(got))
			}
		}
		return did, nil
	}
	scan := func(n int) (did bool, err error) {
		blocks := s.Blocks(ctx, block.Range{})
		if n%2 == 0 {
			snap := s.Snapshot()
			defer snap.Close()
			blocks = snap.Blocks(ctx, block.Range{Start: []byte("put")})
		}
		seen := 0
		for b, err := range blocks {
			if err != nil {
				return did, err
			}
			if did = true; !bytes.Equal(b.Data, dataOf(string(b.ID))) {
				l.t.Errorf("%s: a wrong block of %d bytes", b.ID, len(b.Data))
			}
			if seen++; seen == 50 {
				break
			}
		}
		return did, nil
	}
	for _, op := range []func(int) (bool, error){put(0), put(1), batch, get, get, scan} {
		l.worker(op)
	}
}

// everyoneWasRefused waits until every worker was refused something since the call.
func (l *load) everyoneWasRefused() {
	for i := range l.refused {
		for was := l.refused[i].Load(); l.refused[i].Load() < was+2 && !l.t.Failed(); {
			time.Sleep(10 * time.Microsecond)
		}
	}
}

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
			func() { g.vault.SetOutage(vaulttest.NetworkGone()); g.clock.Advance(keyring.DefaultLease) },
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
	for cycle := range 40 {
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
		for range 20 { // some of it while it serves
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
		require.Greater(t, len(l.acked), 500)
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
	for _, way := range []string{"denied", "lease"} {
		t.Run(way, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				g := newRig(t)
				disk := &gate{FS: g.opts.FS}
				g.opts.FS = disk
				var open atomic.Bool // the gate
				var announced atomic.Int64
				g.opts.Keyring.OnEvent = func(e keyring.Event) {
					if e.Kind == keyring.StateChanged && e.To == keyring.Inaccessible {
						if announced.Add(1); !open.Load() {
							t.Error("announced while a write was in flight")
						}
					}
				}
				s := g.open()
				require.NoError(t, s.Put(g.ctx, []byte("before"), []byte("1")))
				release := disk.close()
				acked := make(chan error, 1)
				go func() { acked <- s.Put(g.ctx, []byte("in flight"), []byte("2")) }()
				synctest.Wait()
				require.EqualValues(t, 1, disk.waiting.Load(), "it waits for the disk")

				locked := make(chan struct{})
				go func() { // the lock waits for the write, and this for the lock
					defer close(locked)
					if way == "denied" {
						g.vault.SetEnabled(g.key, false)
						s.Revalidate(g.ctx)
						return
					}
					g.vault.SetOutage(vaulttest.NetworkGone())
					g.clock.Advance(keyring.DefaultLease)
				}()
				time.Sleep(time.Hour) // of the bubble's: everybody got as far as can be
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
				synctest.Wait()
				require.Equal(t, keyring.Inaccessible, s.State().Status)
				require.NotZero(t, announced.Load())

				g.vault.SetEnabled(g.key, true)
				g.vault.SetOutage(nil)
				require.NoError(t, s.Revalidate(g.ctx))
				got, err := s.Get(g.ctx, []byte("in flight"), nil)
				require.NoError(t, err)
				require.Equal(t, "2", string(got))
				_, err = s.Get(g.ctx, []byte("after"), nil)
				require.ErrorIs(t, err, block.ErrNotFound)
			})
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
