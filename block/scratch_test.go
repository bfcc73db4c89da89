package block_test

import (
	"context"
	"errors"
	"fmt"
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/blockseal/blockseal/block"
	"github.com/blockseal/blockseal/keyring"
)

// No operation leaves a DEK behind in the memory that operations share, whether it succeeds
// or fails.
func TestNoOperationLeavesADEK(t *testing.T) {
	for _, w := range []keyring.Wrapping{keyring.ByKeyring, keyring.ByKEK} {
		t.Run(w.String(), func(t *testing.T) {
			g := newRig(t)
			g.opts.Keyring.Wrapping, g.opts.VaultRate = w, 1<<30
			g.opts.RowCache, g.opts.Keyring.DEKCache = -1, -1
			s, err := block.Open(g.ctx, g.dir, g.kek, &g.opts)
			require.NoError(t, err)
			defer s.Close()
			g.putMany(s, "block", 40)
			scratches := s.WatchScratches()
			id, data := []byte("block 001"), []byte(plaintext)
			damaged := func(f func() error) func() error {
				return func() error {
					key := []byte("\x03\x00\x00\x00\x00block 001")
					good := s.Engine(key)
					s.SetEngine(key, append(append([]byte(nil), good[:len(good)-1]...), good[len(good)-1]^1))
					defer s.SetEngine(key, good)
					if err := f(); !errors.Is(err, block.ErrCorrupt) {
						return fmt.Errorf("a damaged block: %w", err)
					}
					return nil
				}
			}
			get := func() error { _, err := s.Get(g.ctx, id, nil); return err }
			verify := func() error { _, err := s.Verify(g.ctx, nil); return err }
			scan := func() error {
				for _, err := range s.Blocks(g.ctx, block.Range{}) {
					if err != nil {
						return err
					}
				}
				return nil
			}
			rekey := func() error { return s.Rekey(g.ctx, block.Range{}, nil) }
			batch := func(end func(*block.Batch) error) func() error {
				return func() error {
					b := s.NewBatch()
					return errors.Join(b.Put(g.ctx, []byte("batch"), data), end(b))
				}
			}
			for _, op := range []struct {
				name string
				do   func() error
			}{
				{"get", get},
				{"get, damaged", damaged(get)},
				{"put", func() error { return s.Put(g.ctx, id, data) }},
				{"batch", batch(func(b *block.Batch) error { return b.Commit(g.ctx) })},
				{"batch that is closed", batch((*block.Batch).Close)},
				{"scan", scan},
				{"scan, damaged", damaged(scan)},
				{"snapshot", func() error {
					sn := s.Snapshot()
					_, err := sn.Get(g.ctx, id, nil)
					return errors.Join(err, sn.Close())
				}},
				{"verify", verify},
				{"verify, damaged", damaged(verify)},
				{"rekey", rekey},
				{"rekey, damaged", damaged(rekey)},
				{"rotate the epoch", func() error { return s.RotateEpoch(g.ctx, nil) }},
				{"rewrap", func() error {
					g.vault.Rotate("customer")
					return errors.Join(s.RotateKEK(g.ctx), s.RewrapDEKs(g.ctx, nil))
				}},
			} {
				require.NoError(t, op.do(), op.name)
				_, live := scratches.Count()
				require.Zero(t, live, op.name)
			}
			all, _ := scratches.Count()
			require.Positive(t, all, "they are watched")
		})
	}
}

// While a write waits for the disk its DEK is gone already: a lock waits for the write, and
// a disk may take any time.
func TestNoDEKWaitsForTheDisk(t *testing.T) {
	g := newRig(t)
	disk := &gate{FS: g.opts.Pebble.FS}
	g.opts.Pebble.FS = disk
	s := g.open()
	require.NoError(t, s.Put(g.ctx, []byte("before"), []byte("1")))
	scratches := s.WatchScratches()
	for name, write := range map[string]func(context.Context) error{
		"put": func(ctx context.Context) error { return s.Put(ctx, []byte("a"), []byte(plaintext)) },
		"batch": func(ctx context.Context) error {
			b := s.NewBatch()
			return errors.Join(b.Put(ctx, []byte("b"), []byte(plaintext)), b.Commit(ctx))
		},
	} {
		open := disk.close()
		done := make(chan error, 1)
		go func() { done <- write(g.ctx) }()
		eventually(t, func() bool { return disk.waiting.Load() > 0 }, name+" waits for the disk")
		all, live := scratches.Count()
		open()
		require.NoError(t, <-done)
		require.Positive(t, all, name)
		require.Zero(t, live, name)
	}
}
