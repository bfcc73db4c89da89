package block_test

import (
	"context"
	"errors"
	"io/fs"
	"syscall"
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/blockseal/blockseal/block"
)

// The files of a copy are those of all stores: one of several does not pass for a copy of itself.
func TestCheckpointOfOneOfSeveral(t *testing.T) {
	g := newDBRig(t)
	requireRefused := func(s *block.Store) {
		t.Helper()
		err := s.Checkpoint(g.ctx, "copy")
		require.ErrorIs(t, err, errors.ErrUnsupported)
		require.ErrorContains(t, err, "DB.Checkpoint")
		require.ErrorContains(t, err, "DB.Export")
		_, err = g.opts.Pebble.FS.Stat("copy")
		require.ErrorIs(t, err, fs.ErrNotExist)
		copies, err := s.Copies(g.ctx)
		require.NoError(t, err)
		require.Empty(t, copies, "it remembers none")
	}
	requireRefused(g.create("a")) // others may come
	requireRefused(g.create("b"))
	require.NoError(t, g.db.Close())

	o := g.store
	o.Name, o.Pebble = "a", g.opts.Pebble
	s, err := block.Open(g.ctx, "db", g.kek("a"), &o)
	require.NoError(t, err)
	requireRefused(s)
	require.NoError(t, s.Close())

	g.openDB()
	_, err = g.db.Drop(g.ctx, "b")
	require.NoError(t, err)
	require.NoError(t, g.db.Close())
	s, err = block.Open(g.ctx, "db", g.kek("a"), &o)
	require.NoError(t, err)
	require.NoError(t, s.Checkpoint(g.ctx, "copy"), "it is the only one")
	require.NoError(t, s.Close())
}

// On a full disk a Checkpoint and a Drop end with their context and with Close, say why they waited,
// and do their work when there is room.
func TestFullDiskOfADB(t *testing.T) {
	checkpoint := func(ctx context.Context, d *block.DB) error { return d.Checkpoint(ctx, "copy") }
	drop := func(ctx context.Context, d *block.DB) error { _, err := d.Drop(ctx, "a"); return err }
	for name, op := range map[string]func(context.Context, *block.DB) error{"checkpoint": checkpoint, "drop": drop} {
		for _, end := range []string{"ctx", "close"} {
			t.Run(name+" ended by "+end, func(t *testing.T) {
				g := newDBRig(t)
				require.NoError(t, g.db.Close())
				disk := &fullFS{FS: g.opts.Pebble.FS, refused: make(chan struct{}, 1)}
				g.opts.Pebble.FS = disk
				g.openDB()
				a, b := g.create("a"), g.create("b")
				require.NoError(t, a.Put(g.ctx, []byte("id"), []byte("1")))
				require.NoError(t, b.Put(g.ctx, []byte("id"), []byte("2")))
				disk.full.Store(true)
				ctx, cancel := context.WithCancel(g.ctx)
				defer cancel()
				done := make(chan error, 1)
				go func() { done <- op(ctx, g.db) }()
				<-disk.refused
				<-disk.refused // the first refusal has come through
				requireData(t, b, "id", "2")
				want := context.Canceled
				if end == "close" {
					want = block.ErrClosed
					require.NoError(t, g.db.Close())
				} else {
					cancel()
				}
				err := <-done
				require.ErrorIs(t, err, want)
				require.ErrorIs(t, err, syscall.ENOSPC)
				_, err = disk.Stat("copy")
				require.ErrorIs(t, err, fs.ErrNotExist, "there is no half of a copy")
				if end == "ctx" {
					requireData(t, b, "id", "2")
					disk.full.Store(false)
					require.NoError(t, op(g.ctx, g.db))
				} else {
					disk.full.Store(false)
					g.openDB()
				}
				b, release := g.acquire("b")
				defer release()
				requireData(t, b, "id", "2")
				if name == "drop" {
					g.requireGone("a")
					require.Len(t, g.receipts(), 1)
					return
				}
				if end == "close" {
					require.NoError(t, op(g.ctx, g.db))
				}
				copies, err := b.Copies(g.ctx)
				require.NoError(t, err)
				require.Len(t, copies, 1, "the one that came to nothing is forgotten")
			})
		}
	}
}
