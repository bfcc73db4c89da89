package block_test

import (
	"bytes"
	"errors"
	"fmt"
	"io/fs"
	"strings"
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/blockseal/blockseal/block"
)

// A crash at any operation on the files during Drop leaves the store whole, or gone with a receipt;
// and so does another crash while that is finished. The other store is as it was, and the number of
// the partition is not given again.
func TestCrashDuringDrop(t *testing.T) {
	c := newDBCrashRig(t)
	c.fill(c.create("other"))
	victim := c.create("victim")
	b := victim.NewBatch()
	for i := range crashBlocks {
		require.NoError(t, b.Put(c.ctx, fmt.Appendf(nil, "victim-%02d", i), make([]byte, 300*i)))
	}
	require.NoError(t, b.Commit(c.ctx))
	id, instance := victim.StoreID(), victim.Instance()
	document := victim.Document()
	require.NotEmpty(t, holding(t, c.disk, "db", document), "the search can find it")
	var receipt block.Receipt
	crashes := c.observe(func() {
		var err error
		receipt, err = c.db.Drop(c.ctx, "victim")
		require.NoError(t, err)
	})
	require.Equal(t, []block.Receipt{receipt}, c.receipts())

	// after checks a DB that was opened after a crash, and reports whether the store is gone.
	after := func(g *dbRig, cr dbCrash) (gone bool) {
		defer g.requireWhole("other")
		all := g.receipts()
		require.LessOrEqual(g.t, len(all), 1)
		if gone = len(all) == 1; !gone {
			require.False(g.t, cr.ended, "the drop was acknowledged")
			s, release := g.acquire("victim")
			defer release()
			require.Equal(g.t, id, s.StoreID())
			rep, err := s.Verify(g.ctx, nil)
			require.NoError(g.t, err)
			require.EqualValues(g.t, crashBlocks, rep.Blocks, "it is whole")
			return false
		}
		r := all[0]
		require.True(g.t, r.Dropped)
		require.False(g.t, r.Pinned)
		require.False(g.t, r.Incomplete)
		require.Equal(g.t, "victim", r.Name)
		require.Equal(g.t, id, r.Store)
		require.Equal(g.t, instance, r.Instance)
		require.Len(g.t, r.Keys, 1)
		if cr.ended {
			require.Equal(g.t, receipt, r)
		}
		g.requireGone("victim")
		require.Empty(g.t, holding(g.t, g.opts.Pebble.FS, "db", document))
		g.requireForgotten("victim-")
		return true
	}
	finished, begun := 0, 0
	c.each(crashes, func(g *dbRig, cr dbCrash) {
		// What OpenDB finishes is cut off as well, at a few places.
		again := &dbCrashRig{dbRig: g, disk: &watchedFS{FS: cr.fs}, rng: c.rng}
		g.opts.Pebble.FS = again.disk
		next := again.observe(g.openDB)
		if after(g, cr) {
			finished++
		} else {
			begun++
			r, err := g.db.Drop(g.ctx, "victim")
			require.NoError(g.t, err)
			require.Equal(g.t, []block.Receipt{r}, g.receipts())
			g.requireGone("victim")
			g.requireForgotten("victim-")
		}
		s := g.create("victim")
		require.NotEqual(g.t, id, s.StoreID())
		require.NotEqual(g.t, instance, s.Instance(), "the number of the partition is given once")
		require.NoError(g.t, s.Put(g.ctx, []byte("new"), nil))
		g.reopen()
		g.reopen()
		require.NoError(g.t, g.db.Close())
		require.Empty(g.t, holding(g.t, g.opts.Pebble.FS, "db", []byte("victim-")), "nor do the lists, which were begun anew twice")
		for i := range next {
			if i%max(1, len(next)/3) == 1 {
				h := again.onDisk(g.t, next[i].fs)
				h.openDB()
				after(h, dbCrash{ended: cr.ended})
			}
		}
	})
	require.Positive(t, begun)
	require.Positive(t, finished)
}

// A crash at any operation on the files during Create leaves no store, whose name is free, or one.
func TestCrashDuringCreate(t *testing.T) {
	c := newDBCrashRig(t)
	c.fill(c.create("other"))
	c.kek("new")
	crashes := c.observe(func() { c.create("new") })
	made := map[bool]int{}
	c.each(crashes, func(g *dbRig, cr dbCrash) {
		g.openDB()
		there := len(g.names()) == 2
		made[there]++
		require.True(g.t, there || !cr.ended, "the creation was acknowledged")
		if !there {
			g.requireGone("new")
			require.NoError(g.t, g.create("new").Close())
		}
		s, release := g.acquire("new")
		rep, err := s.Verify(g.ctx, nil)
		require.NoError(g.t, err)
		require.Zero(g.t, rep.Blocks)
		g.fill(s)
		release()
		g.reopen()
		g.requireWhole("new")
		g.requireWhole("other")
		require.Empty(g.t, g.receipts())
	})
	require.Positive(t, made[false])
	require.Positive(t, made[true])
}

// The same of the first store, and of the directory: what a crash leaves of OpenDB, or of Open, is
// taken up by the next one.
func TestCrashDuringTheFirstCreate(t *testing.T) {
	c := newDBCrashRig(t)
	require.NoError(t, c.db.Close())
	require.NoError(t, c.disk.RemoveAll("db"))
	c.kek("new")
	crashes := c.observe(func() { c.openDB(); c.create("new") })
	c.each(crashes, func(g *dbRig, cr dbCrash) {
		g.openDB()
		there := len(g.names()) == 1
		require.True(g.t, there || !cr.ended, "the creation was acknowledged")
		if !there {
			g.requireGone("new")
			require.NoError(g.t, g.create("new").Close())
		}
		s, release := g.acquire("new")
		g.fill(s)
		release()
		g.reopen()
		g.requireWhole("new")
	})
}

// A crash at any operation on the files during Import leaves no store, which can be imported again,
// or a whole one.
func TestCrashDuringImport(t *testing.T) {
	from := newDBRig(t)
	from.fill(from.create("new"))
	var stream bytes.Buffer
	_, err := from.db.Export(from.ctx, "new", &stream)
	require.NoError(t, err)
	c := newDBCrashRig(t)
	c.vault, c.keks = from.vault, from.keks
	c.fill(c.create("other"))
	crashes := c.observe(func() {
		_, err := c.db.Import(c.ctx, bytes.NewReader(stream.Bytes()))
		require.NoError(t, err)
	})
	made := map[bool]int{}
	c.each(crashes, func(g *dbRig, cr dbCrash) {
		g.openDB()
		there := len(g.names()) == 2
		made[there]++
		require.True(g.t, there || !cr.ended, "the import was acknowledged")
		if !there {
			g.requireGone("new")
			_, err := g.db.Import(g.ctx, bytes.NewReader(stream.Bytes()))
			require.NoError(g.t, err)
		}
		s, release := g.acquire("new")
		_, err := s.Get(g.ctx, []byte("needle-00"), nil)
		require.ErrorIs(g.t, err, block.ErrInaccessible, "it is a copy")
		release()
		g.requireWhole("new")
		g.requireWhole("other")
	})
	require.Positive(t, made[false])
	require.Positive(t, made[true])
}

// A crash at any operation on the files during a Checkpoint of several stores, of which one is not
// open, leaves no copy, or a whole one that its sources remember.
func TestCrashDuringCheckpointOfADB(t *testing.T) {
	c := newDBCrashRig(t)
	c.fill(c.create("open"))
	closed := c.create("closed")
	c.fill(closed)
	require.NoError(t, closed.Close())
	crashes := c.observe(func() { require.NoError(t, c.db.Checkpoint(c.ctx, "copy")) })
	made := map[bool]int{}
	c.each(crashes, func(g *dbRig, cr dbCrash) {
		g.openDB()
		copied, err := block.OpenDB(g.ctx, "copy", &block.DBOptions{ReadOnly: true, Clock: g.clock, Pebble: g.opts.Pebble})
		whole := err == nil
		made[whole]++
		require.True(g.t, whole || !cr.ended, "the checkpoint was acknowledged")
		if whole {
			require.NoError(g.t, copied.Close())
			source := g.db
			g.db, err = block.OpenDB(g.ctx, "copy", &g.opts)
			require.NoError(g.t, err)
			instances := map[string]string{}
			for _, name := range []string{"open", "closed"} {
				g.requireWhole(name)
				s, release := g.acquire(name)
				instances[name] = s.Instance()
				release()
			}
			require.NoError(g.t, g.db.Close())
			g.db = source
			for name, instance := range instances {
				s, release := g.acquire(name)
				copies, err := s.Copies(g.ctx)
				require.NoError(g.t, err)
				require.Len(g.t, copies, 1)
				require.Equal(g.t, instance, copies[0].Instance)
				release()
			}
		} else if !errors.Is(err, block.ErrNotStore) && !errors.Is(err, block.ErrReadOnly) {
			require.NoError(g.t, err)
		} else if err := g.db.Checkpoint(g.ctx, "copy"); err != nil {
			require.ErrorIs(g.t, err, fs.ErrExist)
			require.NoError(g.t, g.opts.Pebble.FS.RemoveAll("copy"))
			require.NoError(g.t, g.db.Checkpoint(g.ctx, "copy"))
		}
		for _, name := range []string{"open", "closed"} {
			g.requireWhole(name)
		}
	})
	require.Positive(t, made[false])
	require.Positive(t, made[true])
}

// Dropped lists the receipts of drops that are finished, the latest of them, and says which it cannot
// read.
func TestDropped(t *testing.T) {
	g := newDBRig(t)
	require.Empty(t, g.receipts())
	var want []block.Receipt
	for _, name := range []string{"a", "b", "c"} {
		g.create(name)
	}
	for _, name := range []string{"c", "a"} {
		g.clock.Advance(1)
		r, err := g.db.Drop(g.ctx, name)
		require.NoError(t, err)
		want = append(want, r)
	}
	require.Equal(t, []block.Receipt{want[1], want[0]}, g.receipts(), "as the stores were made")
	g.reopen()
	require.Equal(t, []block.Receipt{want[1], want[0]}, g.receipts())
	for r, err := range g.db.Dropped(g.ctx) {
		require.NoError(t, err)
		require.Equal(t, "a", r.Name)
		break
	}

	g.db.SetReceipt(t, 0, []byte("{"))
	var names, bad []string
	for r, err := range g.db.Dropped(g.ctx) {
		if err != nil {
			require.ErrorIs(t, err, block.ErrCorrupt)
			bad = append(bad, err.Error())
			continue
		}
		names = append(names, r.Name)
	}
	require.Equal(t, []string{"c"}, names)
	require.Len(t, bad, 1)
	require.True(t, strings.Contains(bad[0], "receipt/00000000"), bad[0])

	// What is too much goes when the next one comes: first what cannot be read, then the oldest.
	for n := range uint32(block.KeptReceipts - 2) {
		g.db.SetReceipt(t, 100+n, []byte(`{"version":3,"time":"2030-01-01T00:00:00Z"}`))
	}
	_, err := g.db.Drop(g.ctx, "b")
	require.NoError(t, err)
	names = nil
	for r, err := range g.db.Dropped(g.ctx) {
		if err == nil {
			names = append(names, r.Name)
		}
	}
	require.Equal(t, []string{"b", "c"}, names)

	require.NoError(t, g.db.Close())
	for _, err := range g.db.Dropped(g.ctx) {
		require.ErrorIs(t, err, block.ErrClosed)
	}
}

// What somebody puts in the place of a draft comes to no receipt: the drop that goes on makes another one, of
// what is still there.
func TestDropWithADamagedDraft(t *testing.T) {
	for name, draft := range map[string]string{
		"cut off":          `{"version":3,"na`,
		"of another store": `{"version":3,"name":"b","dropped":true}`,
		"of no version":    `{"version":9}`,
	} {
		t.Run(name, func(t *testing.T) {
			g := newDBRig(t)
			a := g.create("a")
			id := a.StoreID()
			require.NoError(t, a.Close())
			g.db.MarkDropping(t, "a", []byte(draft))
			g.reopen()
			g.requireGone("a")
			all := g.receipts()
			require.Len(t, all, 1)
			require.Equal(t, "a", all[0].Name)
			require.Equal(t, id, all[0].Store)
			require.Equal(t, []block.KeyState{block.KeyUnknown}, states(all[0]))
			require.True(t, all[0].Incomplete)
		})
	}
}
