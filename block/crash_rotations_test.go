package block_test

import (
	"errors"
	"io/fs"
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/blockseal/blockseal/block"
	"github.com/blockseal/blockseal/kek"
	"github.com/blockseal/blockseal/keyring"
)

// rotation is one that TestCrashDuringRotation crashes.
type rotation struct {
	name    string
	byKEK   bool
	prepare func(c *crashRig) (state any)
	run     func(g *rig, s *block.Store, c *crashRig) error
	// left is what must hold after a crash, before run is called again.
	left func(g *rig, s *block.Store, c *crashRig, cr crash)
	done func(g *rig, s *block.Store, c *crashRig, state any) // what must hold after run
}

func rotations() []rotation {
	rotateKEK := rotation{name: "RotateKEK",
		prepare: func(c *crashRig) any {
			require.NoError(c.t, c.s.Checkpoint(c.ctx, "copy"))
			return c.vault.Rotate("customer")
		},
		run: func(g *rig, s *block.Store, _ *crashRig) error { return s.RotateKEK(g.ctx) },
		done: func(g *rig, s *block.Store, _ *crashRig, second any) {
			require.Equal(g.t, second, s.State().KEK)
			copies, err := s.Copies(g.ctx)
			require.NoError(g.t, err)
			require.Len(g.t, copies, 1)
			require.Equal(g.t, second, copies[0].KEK, "the copy is moved along")
		},
	}
	changeKEK := rotation{name: "ChangeKEK",
		prepare: func(c *crashRig) any { require.NoError(c.t, c.s.Checkpoint(c.ctx, "copy")); return nil },
		run:     func(g *rig, s *block.Store, c *crashRig) error { return s.ChangeKEK(g.ctx, c.second) },
		done: func(g *rig, s *block.Store, c *crashRig, _ any) {
			require.Equal(g.t, "mem:other", s.State().KEK.Vault)
			copies, err := s.Copies(g.ctx)
			require.NoError(g.t, err)
			require.Len(g.t, copies, 1)
			require.Equal(g.t, "mem:other", copies[0].KEK.Vault, "the copy is moved along")
		},
	}
	rotateEpoch := rotation{name: "RotateEpoch",
		prepare: func(*crashRig) any { return nil },
		run:     func(g *rig, s *block.Store, _ *crashRig) error { return s.RotateEpoch(g.ctx, nil) },
		done: func(g *rig, s *block.Store, _ *crashRig, _ any) {
			st := s.State()
			require.Equal(g.t, 1, st.Epochs)
			rep, err := s.Verify(g.ctx, nil)
			require.NoError(g.t, err)
			require.Equal(g.t, map[uint32]uint64{st.Epoch: rep.Blocks}, rep.DEKs)
		},
	}
	erase := rotation{name: "Erase",
		prepare: func(c *crashRig) any { return c.remains },
		run: func(g *rig, s *block.Store, _ *crashRig) error {
			r, err := s.Erase(g.ctx, nil)
			if err == nil && len(r.Epochs) == 0 {
				err = errors.New("no epoch was destroyed")
			}
			return err
		},
		done: func(g *rig, s *block.Store, c *crashRig, state any) {
			rotateEpoch.done(g, s, c, nil)
			for _, needle := range state.([][]byte) {
				require.Empty(g.t, holding(g.t.(*testing.T), g.opts.Pebble.FS, g.dir, needle))
			}
		},
	}
	rekey := rotation{name: "Rekey",
		prepare: func(c *crashRig) any { return c.s.Records() },
		run: func(g *rig, s *block.Store, _ *crashRig) error {
			return s.Rekey(g.ctx, block.Range{Start: []byte("03"), End: []byte("37")}, nil)
		},
		done: func(g *rig, s *block.Store, _ *crashRig, before any) {
			after := s.Records()
			for id, record := range before.(map[string]string) {
				if id >= "03" && id < "37" {
					require.NotEqual(g.t, record, after[id], "%s has the DEK of before", id)
				}
			}
		},
	}
	rewrap := rotation{name: "RewrapDEKs", byKEK: true,
		prepare: func(c *crashRig) any { require.NoError(c.t, c.s.ChangeKEK(c.ctx, c.second)); return nil },
		run:     func(g *rig, s *block.Store, _ *crashRig) error { return s.RewrapDEKs(g.ctx, nil) },
		done: func(g *rig, s *block.Store, _ *crashRig, _ any) {
			uses, err := s.KeyUsage(g.ctx)
			require.NoError(g.t, err)
			require.Len(g.t, uses, 1, "nothing needs the KEK of before")
			require.Equal(g.t, s.State().KEK, uses[0].Key)
		},
	}
	checkpoint := rotation{name: "Checkpoint",
		prepare: func(*crashRig) any { return nil },
		run: func(g *rig, s *block.Store, _ *crashRig) error {
			if err := g.opts.Pebble.FS.RemoveAll("copy"); err != nil {
				return err
			}
			return s.Checkpoint(g.ctx, "copy")
		},
		// What was cut off is no store, or a whole one that the source remembers.
		left: func(g *rig, s *block.Store, c *crashRig, cr crash) {
			copied := *g
			copied.dir, copied.opts.RequireAccess = "copy", false
			r, err := block.Open(g.ctx, "copy", g.kek, &copied.opts)
			if errors.Is(err, block.ErrNotStore) {
				// Its files are there, and not its identity: it has a name all the same.
				err := s.Checkpoint(g.ctx, "copy")
				require.ErrorIs(g.t, err, fs.ErrExist)
				require.ErrorContains(g.t, err, "a checkpoint to it was cut off; remove the directory and forget copy ")
				return
			}
			require.NoError(g.t, err)
			defer r.Close()
			if r.State().Status == keyring.Available {
				return // there was nothing, and Open made a store of its own
			}
			require.NoError(g.t, r.Revalidate(g.ctx))
			_, err = r.Verify(g.ctx, nil)
			require.NoError(g.t, err)
			copies, err := s.Copies(g.ctx)
			require.NoError(g.t, err)
			found := false
			for _, k := range copies {
				found = found || k.Instance == r.Instance()
			}
			require.True(g.t, found, "there is a copy that the store does not remember")
		},
		done: func(g *rig, s *block.Store, _ *crashRig, _ any) {
			r, err := block.Open(g.ctx, "copy", g.kek, &g.opts)
			require.NoError(g.t, err)
			defer r.Close()
			require.NoError(g.t, r.Revalidate(g.ctx))
			want, err := s.Verify(g.ctx, nil)
			require.NoError(g.t, err)
			got, err := r.Verify(g.ctx, nil)
			require.NoError(g.t, err)
			require.Equal(g.t, want.Blocks, got.Blocks)
		},
	}
	rewrapCopy := rotation{name: "ChangeCheckpointKEK", byKEK: true,
		prepare: func(c *crashRig) any { require.NoError(c.t, c.s.Checkpoint(c.ctx, "copy")); return nil },
		run: func(g *rig, _ *block.Store, c *crashRig) error {
			return block.ChangeCheckpointKEK(g.ctx, "copy", kek.New(c.vault, c.key), c.second, &g.opts)
		},
		done: func(g *rig, s *block.Store, c *crashRig, _ any) {
			o := g.opts
			o.Keyring.OtherKEKs = nil // nothing of it needs the KEK of before
			r, err := block.Open(g.ctx, "copy", c.second, &o)
			require.NoError(g.t, err)
			defer r.Close()
			require.Equal(g.t, keyring.Inaccessible, r.State().Status, "it waits still")
			require.NoError(g.t, r.Revalidate(g.ctx))
			_, err = r.Verify(g.ctx, nil)
			require.NoError(g.t, err)
		},
	}
	return []rotation{rotateKEK, changeKEK, rotateEpoch, erase, rekey, rewrap, checkpoint, rewrapCopy}
}
