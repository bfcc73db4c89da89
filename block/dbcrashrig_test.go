package block_test

import (
	"bytes"
	"fmt"
	"io"
	"math/rand/v2"
	"strings"
	"sync"
	"testing"

	"github.com/cockroachdb/pebble/v2/vfs"
	"github.com/stretchr/testify/require"

	"github.com/blockseal/blockseal/block"
	"github.com/blockseal/blockseal/internal/test/race"
	"github.com/blockseal/blockseal/keyring"
)

// dbCrashRig is a DB whose files are cloned, as a crash would leave them, before each operation that
// changes them: with what was synced, and with half or all of the rest.
type dbCrashRig struct {
	*dbRig
	disk *watchedFS

	mu      sync.Mutex
	crashes []dbCrash
	seen    int
	over    bool
	rng     *rand.Rand
}

// dbCrash is what is left of a DB.
type dbCrash struct {
	at    string
	kept  int  // percent of what was not synced
	ended bool // what was cut off had returned
	fs    *vfs.MemFS
}

func newDBCrashRig(t *testing.T) *dbCrashRig {
	c := &dbCrashRig{dbRig: newDBRig(t), rng: rand.New(rand.NewPCG(1, 2))}
	require.NoError(t, c.db.Close())
	c.disk = &watchedFS{FS: vfs.NewCrashableMem()}
	c.opts.Pebble.FS = c.disk
	c.openDB()
	return c
}

// observe runs f with every crash in it recorded.
func (c *dbCrashRig) observe(f func()) []dbCrash {
	see := func(op, name string) { c.see(op+" "+name, false) }
	c.disk.watch.Store(&see)
	defer c.disk.watch.Store(nil)
	f()
	c.see("the end", true)
	c.mu.Lock()
	defer c.mu.Unlock()
	c.over = true // the engine's own goroutines go on changing files
	return c.crashes
}

func (c *dbCrashRig) see(at string, ended bool) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.over {
		return
	}
	ways := []int{0, 50, 100}
	if !*crashAll && !ended {
		ways = ways[c.seen%3 : c.seen%3+1]
	}
	c.seen++
	for _, kept := range ways {
		c.crashes = append(c.crashes, dbCrash{fmt.Sprintf("%d: %s", c.seen, at), kept, ended,
			c.disk.crash(vfs.CrashCloneCfg{UnsyncedDataPercent: kept, RNG: c.rng})})
	}
}

// each calls f with the DB that each crash left, or some sixty of them if -crash.all is not
// given. Under the race detector it takes every tenth.
func (c *dbCrashRig) each(crashes []dbCrash, f func(g *dbRig, cr dbCrash)) {
	c.t.Helper()
	require.Greater(c.t, len(crashes), 3, "the operation was watched") // three are of its end
	one := 1 + len(crashes)/61                                         // in so many
	if *crashAll {
		one = 1
	}
	if race.Enabled {
		one = 10
	}
	c.t.Logf("%d crashes, of which one in %d is looked at", len(crashes), one)
	for i, cr := range crashes {
		if i%one > 0 && !cr.ended {
			continue
		}
		ok := c.t.Run("", func(t *testing.T) {
			defer func() {
				if t.Failed() {
					t.Logf("crash before operation %s, %d%% of what was not synced kept", cr.at, cr.kept)
				}
			}()
			f(c.onDisk(t, cr.fs), cr)
		})
		require.True(c.t, ok)
	}
}

// onDisk returns the rig of the same DB on another disk, closed.
func (c *dbCrashRig) onDisk(t *testing.T, disk vfs.FS) *dbRig {
	g := &dbRig{t: t, ctx: t.Context(), vault: c.vault, clock: c.clock, keks: c.keks, opts: c.opts, store: c.store}
	g.opts.Pebble.FS = disk
	g.opts.Resolve = c.opts.Resolve
	return g
}

const crashBlocks = 12

// fill writes blocks that crashed looks for.
func (g *dbRig) fill(s *block.Store) {
	g.t.Helper()
	b := s.NewBatch()
	for i := range crashBlocks {
		require.NoError(g.t, b.Put(g.ctx, fmt.Appendf(nil, "needle-%02d", i), bytes.Repeat([]byte{byte(i)}, 300*i)))
	}
	require.NoError(g.t, b.Commit(g.ctx))
}

// requireWhole requires that a store has what fill wrote, and serves.
func (g *dbRig) requireWhole(name string) {
	g.t.Helper()
	s, release := g.acquire(name)
	defer release()
	if s.State().Status == keyring.Inaccessible {
		require.NoError(g.t, s.Revalidate(g.ctx)) // it is a copy
	}
	rep, err := s.Verify(g.ctx, nil)
	require.NoError(g.t, err)
	require.Empty(g.t, rep.Problems)
	require.EqualValues(g.t, crashBlocks, rep.Blocks)
	for i := range crashBlocks {
		requireData(g.t, s, fmt.Sprintf("needle-%02d", i), string(bytes.Repeat([]byte{byte(i)}, 300*i)))
	}
	require.NoError(g.t, s.Put(g.ctx, []byte("needle-00"), nil))
	require.NoError(g.t, s.RotateEpoch(g.ctx, nil))
}

// requireGone requires that a name is free and that nothing is found under it.
func (g *dbRig) requireGone(name string) {
	g.t.Helper()
	require.NotContains(g.t, g.names(), name)
	_, _, err := g.db.Acquire(g.ctx, name)
	require.ErrorIs(g.t, err, block.ErrNoStore)
	_, err = g.db.Export(g.ctx, name, io.Discard)
	require.ErrorIs(g.t, err, block.ErrNoStore)
	_, err = g.db.Drop(g.ctx, name)
	require.ErrorIs(g.t, err, block.ErrNoStore)
}

// receipts returns the receipts of all drops.
func (g *dbRig) receipts() (all []block.Receipt) {
	g.t.Helper()
	for r, err := range g.db.Dropped(g.ctx) {
		require.NoError(g.t, err)
		all = append(all, r)
	}
	return all
}

// requireForgotten requires that no file has an id of the victim's blocks, but for the engine's lists of
// tables, which name the first and the last one of each.
func (g *dbRig) requireForgotten(needle string) {
	g.t.Helper()
	for _, name := range holding(g.t, g.opts.Pebble.FS, "db", []byte(needle)) {
		require.True(g.t, strings.HasPrefix(name, "MANIFEST-"), name)
	}
}
