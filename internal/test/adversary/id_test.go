package adversary

import (
	"bytes"
	"errors"
	"fmt"
	"slices"
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/blockseal/blockseal/block"
	"github.com/blockseal/blockseal/vault"
)

// oddIDs are ids that look like something else: to a shell, to a path, to the engine's
// own keys, to a C string.
func oddIDs() []string {
	ids := []string{"\x00", "\x00\x00", "a", "a\x00", "a\x00b", "\x00a", "a/b", "a//b", "../a", "/", ".", "..", "\\", "a\n", "\n", "\r\n",
		"keyring", "\x01keyring", "\x01\x00\x00\x00\x00keyring", "\x01\x00\x00\x00\x00store", "store", "\x02\x00\x00\x00\x00a", "\x03\x00\x00\x00\x00a", "\x00\x00\x00\x00a", "\x00\x00\x00\x01a",
		"\xff", "\xff\xff\xff\xff\xff", "\xff\xff\xff\xfe", "%s%n", "\x1b[2J", "'; DROP TABLE blocks; --", "\u202eevil", "caf\u00e9", "cafe\u0301", "\xc3\x28",
		"copy/", "BLOCKSEAL", "LOCK", "CURRENT", "00000000000000000000000000000000"}
	for _, n := range []int{15, 16, 17, 255, 256, 257, 4095, 4096} {
		ids = append(ids, string(repeat('x', n)), string(repeat(0, n)), string(repeat(0xff, n)))
	}
	slices.Sort(ids)
	return slices.Compact(ids)
}

// Each odd id is an id like any other: every one has its own block, and no other's.
func TestOddIDs(t *testing.T) {
	forEachWrapping(t, func(t *testing.T, g *rig) {
		s := g.open()
		ids := oddIDs()
		for i, id := range ids {
			require.NoError(t, s.Put(g.ctx, []byte(id), []byte(fmt.Sprint(canary, i))), "%q", id)
		}
		check := func() {
			for i, id := range ids {
				got, err := s.Get(g.ctx, []byte(id), nil)
				require.NoError(t, err, "%q", id)
				require.Equal(t, fmt.Sprint(canary, i), string(got), "%q", id)
			}
			i := 0
			for b, err := range s.Blocks(g.ctx, block.Range{}) {
				require.NoError(t, err)
				require.Equal(t, ids[i], string(b.ID))
				i++
			}
			require.Equal(t, len(ids), i)
		}
		check()
		require.NoError(t, s.RotateEpoch(g.ctx, nil))
		require.NoError(t, s.Rekey(g.ctx, block.Range{}, nil))
		check()
		for _, id := range ids {
			require.NoError(t, s.Delete(g.ctx, []byte(id)))
			_, err := s.Get(g.ctx, []byte(id), nil)
			require.ErrorIs(t, err, block.ErrNotFound)
		}
		rep, err := s.Verify(g.ctx, nil)
		require.NoError(t, err)
		require.Zero(t, rep.Blocks)
	})
}

// An id that is empty or too long is refused by every entrance, with an error that
// says so in one line that a terminal survives, and changes nothing.
func TestRefusedIDs(t *testing.T) {
	g := newRig(t)
	g.fill("a")
	before := g.records()
	s, err := block.Open(g.ctx, g.dir, g.kek, &g.opts)
	require.NoError(t, err)
	sn := s.Snapshot()
	for _, id := range [][]byte{nil, {}, repeat('x', block.MaxID+1), repeat(0, block.MaxID+1), repeat('x', 1<<20)} {
		b := s.NewBatch()
		for what, err := range map[string]error{
			"Put": s.Put(g.ctx, id, []byte("x")), "Get": second(s.Get(g.ctx, id, nil)), "Has": second(s.Has(g.ctx, id)),
			"Delete": s.Delete(g.ctx, id), "Batch.Put": b.Put(g.ctx, id, nil), "Batch.Delete": s.NewBatch().Delete(g.ctx, id),
			"Snapshot.Get": second(sn.Get(g.ctx, id, nil)), "Snapshot.Has": second(sn.Has(g.ctx, id)),
		} {
			require.ErrorIs(t, err, block.ErrInvalidID, what)
			require.Less(t, len(err.Error()), 500, "%s: an error is no place for an id of a megabyte", what)
		}
		require.Error(t, b.Commit(g.ctx), "after an error a batch cannot be committed")
	}
	require.NoError(t, sn.Close())
	require.NoError(t, s.Close())
	require.Equal(t, before, g.records())
}

// What an error says of an id is quoted: no line breaks, no escapes for a terminal.
func TestErrorsQuoteIDs(t *testing.T) {
	g := newRig(t)
	s := g.open()
	for _, id := range oddIDs() {
		_, err := s.Get(g.ctx, []byte(id), nil)
		require.ErrorIs(t, err, block.ErrNotFound)
		require.False(t, bytes.ContainsAny([]byte(err.Error()), "\x00\n\r\x1b"), "%q", err.Error())
		require.Less(t, len(err.Error()), 500)
	}
}

// Ids of keys in a vault: nothing that is no id passes for one.
func TestOddKeyIDs(t *testing.T) {
	for _, s := range []string{"", "/", "keys", "/keys/", "v/keys/", "v/keys/n/", "v/keys/n/v/", "v/keys/n/v/x", "v/keys/../x", "v/keys/n\x00/v",
		"v/keys/n\n/v", "v\x00/keys/n/v", "v/keys/n/keys/m", "v /keys/n", "v/keys/" + string(repeat('n', 128)), string(repeat('v', 513)) + "/keys/n"} {
		id, err := vault.ParseKeyID(s)
		require.Error(t, err, "%q", s)
		require.Zero(t, id)
		require.False(t, bytes.ContainsAny([]byte(err.Error()), "\x00\n"), "%q", err.Error())
	}
}

// Blocks of no bytes, of the most, and of one more.
func TestBlockSizesAtTheBounds(t *testing.T) {
	g := newRig(t)
	s := g.open()
	most := repeat('m', block.MaxBlock)
	require.NoError(t, s.Put(g.ctx, []byte("a"), nil))
	got, err := s.Get(g.ctx, []byte("a"), nil)
	require.NoError(t, err)
	require.Empty(t, got)
	require.NoError(t, s.Put(g.ctx, []byte("a"), most))
	tooLarge := append(most, 'm')
	b := s.NewBatch()
	require.NoError(t, b.Put(g.ctx, []byte("b"), []byte("with it")))
	for what, err := range map[string]error{"Put": s.Put(g.ctx, []byte("a"), tooLarge), "Batch.Put": b.Put(g.ctx, []byte("a"), tooLarge)} {
		require.ErrorIs(t, err, block.ErrTooLarge, what)
	}
	require.Error(t, b.Commit(g.ctx))
	got, err = s.Get(g.ctx, []byte("a"), nil)
	require.NoError(t, err)
	require.True(t, bytes.Equal(most, got), "what was refused changed nothing")
	ok, err := s.Has(g.ctx, []byte("b"))
	require.NoError(t, errors.Join(err))
	require.False(t, ok, "a batch happens whole or not at all")
}
