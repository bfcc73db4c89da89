package block_test

import (
	"fmt"
	"os"
	"slices"
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/blockseal/blockseal/block"
	"github.com/blockseal/blockseal/kek"
)

// A KEK that is none is refused by name, before a directory or a vault is looked at.
func TestAKEKIsRequired(t *testing.T) {
	g := newRig(t)
	s := g.open()
	require.NoError(t, s.Put(g.ctx, []byte("block"), []byte("data")))
	fs := g.opts.Pebble.FS
	copied, missing := "/copy", "/missing"
	require.NoError(t, s.Checkpoint(g.ctx, copied))
	before, calls := s.State().Generation, s.Stats().Keys.Calls
	files := func() (out []string) {
		names, err := fs.List(copied)
		require.NoError(t, err)
		for _, name := range names {
			info, err := fs.Stat(fs.PathJoin(copied, name))
			require.NoError(t, err)
			out = append(out, fmt.Sprintf("%s, %d bytes of %v", name, info.Size(), info.ModTime()))
		}
		slices.Sort(out)
		return out
	}
	found := files()
	for _, of := range []struct {
		what string
		kek  *kek.KEK
		says string
	}{
		{"no KEK", nil, "a KEK is required"},
		{"the zero KEK", &kek.KEK{}, "a KEK is required that has a vault"},
		{"a KEK without a vault", kek.New(nil, g.key), "a KEK is required that has a vault"},
	} {
		others := g.opts
		others.Keyring.OtherKEKs = []*kek.KEK{g.kek, of.kek}
		among := "block: options: Keyring.OtherKEKs[1]: " + of.says
		for _, tt := range []struct {
			call string
			err  func() error
			says string
		}{
			{"Open", func() error { _, err := block.Open(g.ctx, missing, of.kek, &g.opts); return err }, "block: open: " + of.says},
			{"Open, among others", func() error { _, err := block.Open(g.ctx, missing, g.kek, &others); return err }, among},
			{"Open of a copy, among others", func() error { _, err := block.Open(g.ctx, copied, g.kek, &others); return err }, among},
			{"Relocate", func() error { _, err := block.Relocate(g.ctx, copied, of.kek, &g.opts); return err }, "block: relocate: " + of.says},
			{"Relocate, among others", func() error { _, err := block.Relocate(g.ctx, copied, g.kek, &others); return err }, among},
			{"ChangeKEK", func() error { return s.ChangeKEK(g.ctx, of.kek) }, "block: change KEK: " + of.says},
			{"ChangeCheckpointKEK from", func() error { return block.ChangeCheckpointKEK(g.ctx, copied, of.kek, g.kek, &g.opts) },
				"block: change the KEK of checkpoint " + copied + ": from: " + of.says},
			{"ChangeCheckpointKEK to", func() error { return block.ChangeCheckpointKEK(g.ctx, copied, g.kek, of.kek, &g.opts) },
				"block: change the KEK of checkpoint " + copied + ": to: " + of.says},
			{"ChangeCheckpointKEK, among others", func() error { return block.ChangeCheckpointKEK(g.ctx, copied, g.kek, g.kek, &others) }, among},
		} {
			t.Run(tt.call+", "+of.what, func(t *testing.T) { require.ErrorContains(t, tt.err(), tt.says) })
		}
	}
	_, err := fs.Stat(missing)
	require.ErrorIs(t, err, os.ErrNotExist)
	require.Equal(t, found, files())
	require.Equal(t, before, s.State().Generation)
	require.Equal(t, calls, s.Stats().Keys.Calls)
}
