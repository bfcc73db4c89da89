package adversary

import (
	"bytes"
	"context"
	"encoding/binary"
	"maps"
	"strings"
	"sync"
	"testing"

	"github.com/cockroachdb/pebble/v2"
	"github.com/stretchr/testify/require"

	"github.com/blockseal/blockseal/block"
	"github.com/blockseal/blockseal/keyring"
)

// branches are the ways in which a copy becomes a store that writes.
func branches() map[string]func(t *testing.T, g *rig) *rig {
	revalidate := func(t *testing.T, c *rig) *rig {
		r, err := block.Open(c.ctx, c.dir, c.kek, &c.opts)
		require.NoError(t, err)
		require.ErrorIs(t, r.Put(c.ctx, []byte("a"), nil), block.ErrInaccessible)
		require.NoError(t, r.Revalidate(c.ctx))
		require.NoError(t, r.Close())
		return c
	}
	checkpoint := func(t *testing.T, g *rig) *rig {
		s, err := block.Open(g.ctx, g.dir, g.kek, &g.opts)
		require.NoError(t, err)
		require.NoError(t, s.Checkpoint(g.ctx, "replica"))
		require.NoError(t, s.Close())
		return g.at("replica")
	}
	return map[string]func(t *testing.T, g *rig) *rig{
		"a checkpoint that is revalidated": func(t *testing.T, g *rig) *rig { return revalidate(t, checkpoint(t, g)) },
		"a checkpoint whose mark was taken away": func(t *testing.T, g *rig) *rig {
			c := checkpoint(t, g)
			c.settle()
			return c
		},
		"a checkpoint that was moved to another KEK": func(t *testing.T, g *rig) *rig {
			c := checkpoint(t, g)
			c.kek = c.newKEK("replica")
			require.NoError(t, block.ChangeCheckpointKEK(g.ctx, c.dir, g.kek, c.kek, &g.opts))
			return revalidate(t, c)
		},
		"a copy of a copy": func(t *testing.T, g *rig) *rig {
			c := revalidate(t, checkpoint(t, g))
			s, err := block.Open(c.ctx, c.dir, c.kek, &c.opts)
			require.NoError(t, err)
			require.NoError(t, s.Checkpoint(g.ctx, "replica of the replica"))
			require.NoError(t, s.Close())
			return revalidate(t, g.at("replica of the replica"))
		},
		"a copy that somebody made by hand, beside its store": func(t *testing.T, g *rig) *rig {
			g.copyFiles(g.dir, "replica")
			c := revalidate(t, g.at("replica"))
			// Its source knows nothing of it: what that writes opens until it rotates.
			s, err := block.Open(g.ctx, g.dir, g.kek, &g.opts)
			require.NoError(t, err)
			require.NoError(t, s.RotateEpoch(g.ctx, nil))
			require.NoError(t, s.Close())
			return c
		},
	}
}

// What a copy writes opens in its source no more than another store's, and what the source
// writes opens in no copy from before, though both have the same store id and were made
// from one document. What was there when the copy was made opens in both.
func TestTransplantBetweenCopyAndSource(t *testing.T) {
	for name, branch := range branches() {
		t.Run(name, func(t *testing.T) {
			forEachWrapping(t, func(t *testing.T, g *rig) {
				g.fill(many()...)
				c := branch(t, g)
				write := func(g *rig, id string) map[string]string {
					s, err := block.Open(g.ctx, g.dir, g.kek, &g.opts)
					require.NoError(t, err)
					require.Equal(t, keyring.Available, s.State().Status)
					got, err := s.Get(g.ctx, []byte("b"), nil)
					require.NoError(t, err)
					require.Equal(t, plain("b"), got)
					require.NoError(t, s.Put(g.ctx, []byte(id), plain(g.dir)))
					require.NoError(t, s.Close())
					records := g.records()
					return map[string]string{dekKey(id): records[dekKey(id)], dataKey(id): records[dataKey(id)]}
				}
				theirs, mine := write(c, "a"), write(g, "a")
				for _, o := range []struct {
					into *rig
					what map[string]string
				}{{g, theirs}, {c, mine}} {
					before := o.into.records()
					o.into.set(o.what)
					opts := o.into.opts
					opts.ReadOnly = true // which opens also if it is noticed at once
					s, err := block.Open(g.ctx, o.into.dir, o.into.kek, &opts)
					require.NoError(t, err)
					got, err := s.Get(g.ctx, []byte("a"), nil)
					refuses(t, got, err, "into %s", o.into.dir)
					require.NoError(t, s.Close())
					o.into.set(map[string]string{dekKey("a"): before[dekKey("a")], dataKey("a"): before[dataKey("a")]})
				}
			})
		})
	}
}

// However many write into a copy while it is revalidated, none writes under an epoch that
// its source has.
func TestNobodyWritesIntoACopyBeforeItsOwnEpoch(t *testing.T) {
	g := newRig(t)
	g.fill(many()...)
	s := g.open()
	require.NoError(t, s.Checkpoint(g.ctx, "replica"))
	shared := s.State().Epoch
	c := g.at("replica")
	r, err := block.Open(c.ctx, c.dir, c.kek, &c.opts)
	require.NoError(t, err)
	ctx, cancel := context.WithCancel(g.ctx)
	var wg sync.WaitGroup
	for i := range 8 {
		wg.Go(func() {
			for n := 0; ctx.Err() == nil && n < 50; {
				b := r.NewBatch()
				if b.Put(g.ctx, []byte(numbered("written", i)), []byte("by the copy")) == nil && b.Commit(g.ctx) == nil {
					n++
				}
			}
		})
	}
	require.NoError(t, r.Revalidate(g.ctx))
	wg.Wait()
	cancel()
	require.NoError(t, r.Close())
	records := c.records()
	for key := range maps.Keys(records) {
		if strings.HasPrefix(key, dekKey("written")) {
			require.Greater(t, binary.BigEndian.Uint32([]byte(records[key][1:5])), shared)
		}
	}
}

// A copy whose document cannot be saved is not revalidated, and stays a copy.
func TestCopyStaysOneUntilItHasAnEpochOfItsOwn(t *testing.T) {
	g := newRig(t)
	g.fill(many()...)
	s, err := block.Open(g.ctx, g.dir, g.kek, &g.opts)
	require.NoError(t, err)
	require.NoError(t, s.Checkpoint(g.ctx, "replica"))
	require.NoError(t, s.Close())
	c := g.at("replica")
	// A record that names an epoch which there is not: nothing is written then.
	before := c.records()
	c.engine(func(db *pebble.DB) {
		record := bytes.Clone([]byte(before[dekKey("a")]))
		binary.BigEndian.PutUint32(record[1:], 77)
		require.NoError(t, db.Set([]byte(dekKey("a")), record, pebble.Sync))
	})
	r, err := block.Open(c.ctx, c.dir, c.kek, &c.opts)
	require.NoError(t, err)
	require.ErrorIs(t, r.Revalidate(c.ctx), block.ErrCorrupt)
	require.ErrorIs(t, r.Put(c.ctx, []byte("b"), nil), block.ErrCorrupt)
	require.NoError(t, r.Close())
	require.Equal(t, before[documentKey], c.records()[documentKey], "nothing was saved")
	in, err := block.Inspect(c.ctx, c.dir, &c.opts)
	require.NoError(t, err)
	require.NotEmpty(t, in.CopyOf)
}
