package block_test

import (
	"bytes"
	"errors"
	"flag"
	"fmt"
	"maps"
	"math/rand/v2"
	"sync"
	"testing"

	"github.com/cockroachdb/pebble/v2/vfs"
	"github.com/stretchr/testify/require"

	"github.com/blockseal/blockseal/block"
	"github.com/blockseal/blockseal/internal/test/race"
	"github.com/blockseal/blockseal/kek"
	"github.com/blockseal/blockseal/keyring"
	"github.com/blockseal/blockseal/vault/vaulttest"
)

var crashAll = flag.Bool("crash.all", false,
	"reopen the store, or the DB, as it was at every operation on its files during what is cut off, not at a sample of them")

// crashSample is how many crashes of each rotation are looked at without -crash.all.
func crashSample() int {
	if race.Enabled {
		return 5
	}
	return 12
}

// crashRig is a store whose files are cloned, as a crash would leave them, before
// each operation that changes them. Blocks are written meanwhile.
type crashRig struct {
	*rig
	s      *block.Store
	disk   *watchedFS
	second *kek.KEK // in another vault, to change to

	mu      sync.Mutex
	acked   map[string][]byte // what must be there
	begun   map[string][]byte // what may be, because it was not acknowledged yet
	crashes []crash
	seen    int
	over    bool     // nothing more is recorded: Pebble's own goroutines go on changing files
	remains [][]byte // DEK records that were deleted or overwritten
	rng     *rand.Rand
}

// crash is what is left of a store, and what was promised of it.
type crash struct {
	at           string // the operation that did not happen any more
	kept         int    // percent of what was not synced
	fs           *vfs.MemFS
	acked, begun map[string][]byte
}

func newCrashRig(t *testing.T, r rotation) *crashRig {
	c := &crashRig{rig: newRig(t), acked: map[string][]byte{}, begun: map[string][]byte{},
		rng: rand.New(rand.NewPCG(1, 2))}
	c.disk = &watchedFS{FS: vfs.NewCrashableMem()}
	c.opts.Pebble.FS, c.opts.Pebble.MemTable, c.opts.RecordCache, c.opts.Pebble.BlockCache = c.disk, 64<<10, 1<<12, 1<<20
	c.opts.ManualRewrap, c.opts.VaultRate = true, 1<<30
	if r.byKEK {
		c.opts.Keyring.Wrapping = keyring.ByKEK
	}
	other := vaulttest.New(&vaulttest.Options{Name: "mem:other", Clock: c.clock})
	c.second = kek.New(other, other.CreateKey("key").Versionless())
	c.opts.Keyring.OtherKEKs = []*kek.KEK{c.kek, c.second}
	c.s = c.open()
	c.s.SetSteps(4, 2)
	for i := range 40 {
		c.put(fmt.Sprintf("%02d", i), bytes.Repeat([]byte{byte(i)}, i%7*500))
	}
	c.put("old value", []byte("overwritten"))
	c.put("victim", []byte("deleted"))
	records := c.s.Records()
	c.remains = [][]byte{[]byte(records["old value"]), []byte(records["victim"])}
	c.put("old value", nil)
	require.NoError(t, c.s.Delete(c.ctx, []byte("victim")))
	delete(c.acked, "victim")
	return c
}

func (c *crashRig) put(id string, data []byte) {
	c.mu.Lock()
	c.begun[id] = data
	c.mu.Unlock()
	if err := c.s.Put(c.ctx, []byte(id), data); err != nil {
		c.t.Error(err)
		return
	}
	c.mu.Lock()
	defer c.mu.Unlock()
	c.acked[id] = data
	delete(c.begun, id)
}

// observe runs f with every crash in it recorded, and blocks written meanwhile.
func (c *crashRig) observe(f func() error) error {
	see := c.see
	c.disk.watch.Store(&see)
	defer c.disk.watch.Store(nil)
	done := make(chan struct{})
	go func() {
		defer close(done)
		for n := range 10 {
			c.put(fmt.Sprintf("%02d", n*7%40), fmt.Appendf(nil, "written meanwhile %d", n))
		}
	}()
	err := f()
	<-done
	c.see("the end", "")
	c.mu.Lock()
	defer c.mu.Unlock()
	c.over = true // a flush that found the watch before it was taken away is too late
	return err
}

// see records the crash before an operation: with what was synced, with half of
// the rest, and with all of it, in turn, or each with -crash.all.
func (c *crashRig) see(op, name string) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.over {
		return
	}
	ways := []int{0, 50, 100}
	if !*crashAll {
		ways = ways[c.seen%3 : c.seen%3+1]
	}
	c.seen++
	for _, kept := range ways {
		cr := crash{at: fmt.Sprintf("%d: %s %s", c.seen, op, name), kept: kept, acked: maps.Clone(c.acked), begun: maps.Clone(c.begun)}
		cr.fs = c.disk.crash(vfs.CrashCloneCfg{UnsyncedDataPercent: kept, RNG: c.rng})
		c.crashes = append(c.crashes, cr)
	}
}

// sample returns the crashes to look at, when observe is over.
func (c *crashRig) sample() []crash {
	c.mu.Lock()
	defer c.mu.Unlock()
	if *crashAll || len(c.crashes) <= crashSample() {
		return c.crashes
	}
	out := []crash{c.crashes[0], c.crashes[len(c.crashes)-1]}
	for _, i := range c.rng.Perm(len(c.crashes) - 2)[:crashSample()-2] {
		out = append(out, c.crashes[1+i])
	}
	return out
}

// reopen returns the rig of what a crash left.
func (c *crashRig) reopen(t *testing.T, cr crash) *rig {
	g := *c.rig
	g.t = t
	g.opts.Pebble.FS = cr.fs
	return &g
}

// openAny opens a store of which nobody remembers which of the two KEKs wraps it.
func (c *crashRig) openAny(g *rig) *block.Store {
	s, err := block.Open(g.ctx, g.dir, c.kek, &g.opts)
	if errors.Is(err, keyring.ErrWrongKEK) {
		s, err = block.Open(g.ctx, g.dir, c.second, &g.opts)
	}
	require.NoError(g.t, err)
	return s
}

// check verifies a store and compares it with what was promised.
func (cr crash) check(t *testing.T, g *rig, s *block.Store) {
	require.Equal(t, keyring.Available, s.State().Status)
	rep, err := s.Verify(g.ctx, nil)
	require.NoError(t, err)
	require.EqualValues(t, len(cr.acked), rep.Blocks, "nothing but overwriting went on")
	for id, data := range cr.acked {
		got, err := s.Get(g.ctx, []byte(id), nil)
		require.NoError(t, err, id)
		if next, ok := cr.begun[id]; ok && bytes.Equal(next, got) {
			continue
		}
		require.True(t, bytes.Equal(data, got), "%s has %d bytes, want %d", id, len(got), len(data))
	}
}

// A crash at any operation on the files during a rotation loses nothing that was
// acknowledged, and the rotation can be called again and completes.
func TestCrashDuringRotation(t *testing.T) {
	for _, r := range rotations() {
		t.Run(r.name, func(t *testing.T) {
			c := newCrashRig(t, r)
			state := r.prepare(c)
			require.NoError(t, c.observe(func() error { return r.run(c.rig, c.s, c) }))
			r.done(c.rig, c.s, c, state)
			sample := c.sample()
			t.Logf("%d of %d crashes", len(sample), len(c.crashes))
			for _, cr := range sample {
				what := fmt.Sprintf("crash before operation %s, %d%% of what was not synced kept", cr.at, cr.kept)
				ok := t.Run("", func(t *testing.T) {
					defer func() {
						if t.Failed() {
							t.Log(what)
						}
					}()
					g := c.reopen(t, cr)
					s := c.openAny(g)
					defer func() { s.Close() }()
					s.SetSteps(4, 2)
					cr.check(t, g, s)
					if r.left != nil {
						r.left(g, s, c, cr)
					}
					require.NoError(t, r.run(g, s, c))
					cr.check(t, g, s)
					r.done(g, s, c, state)
					require.NoError(t, s.Close())
					s = c.openAny(g)
					cr.check(t, g, s)
				})
				require.True(t, ok, what)
			}
		})
	}
}
