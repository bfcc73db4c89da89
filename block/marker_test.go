package block_test

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/blockseal/blockseal/block"
)

// steps is a context that ends after it was asked so often whether it has.
type steps struct {
	context.Context
	left int
}

func (s *steps) Err() error {
	if s.left--; s.left < 0 {
		return context.Canceled
	}
	return nil
}

// halfRekeyed is a store of 40 blocks in which a Rekey of all of them was cut off after
// about the half, the records from before it, and what it left of itself.
func halfRekeyed(t *testing.T) (g *rig, s *block.Store, before map[string]string, key, marker []byte) {
	g = newRig(t)
	s = g.open()
	s.SetSteps(4, 1)
	for i := range 40 {
		require.NoError(t, s.Put(g.ctx, fmt.Appendf(nil, "%02d", i), fmt.Appendf(nil, "data %d", i)))
	}
	before = s.Records()
	require.ErrorIs(t, s.Rekey(&steps{g.ctx, 10}, block.Range{}, nil), context.Canceled)
	require.NotEmpty(t, replaced(s, before))
	require.Less(t, len(replaced(s, before)), 30)
	key = []byte("\x01\x00\x00\x00\x00rekey")
	return g, s, before, key, s.Engine(key)
}

// A marker is gone by if it is the store's own.
func TestMarkerIsGoneBy(t *testing.T) {
	g, s, _, _, _ := halfRekeyed(t)
	half := s.Records()
	require.NoError(t, s.Rekey(g.ctx, block.Range{}, nil))
	require.NotContains(t, replaced(s, half), "00", "it went on, and did not begin anew")
	require.Contains(t, replaced(s, half), "39")
}

// A marker that somebody put there who can write the disk, and does not have the keys,
// makes no block be left out.
func TestForgedMarkers(t *testing.T) {
	end := func(marker []byte) []byte { // all is done but what comes after "39"
		at := bytes.LastIndex(marker, []byte{0, 0, 0, 2})
		return append(bytes.Clone(marker[:at+4]), "39"...)
	}
	for name, forge := range map[string]func(marker []byte) []byte{
		"further":                  end,
		"without a tag":            func(m []byte) []byte { return end(m)[33:] },
		"with the version before":  func(m []byte) []byte { return append([]byte{1}, end(m)[34:]...) },
		"with another tag":         func(m []byte) []byte { m = end(m); m[5] ^= 1; return m },
		"of nothing":               func([]byte) []byte { return []byte{} },
		"too short":                func(m []byte) []byte { return m[:20] },
		"with a version to come":   func(m []byte) []byte { m = end(m); m[0]++; return m },
		"with a range that is not": func(m []byte) []byte { return append(end(m), 0, 0, 0, 0) },
	} {
		t.Run(name, func(t *testing.T) {
			g, s, _, key, marker := halfRekeyed(t)
			s.SetEngine(key, forge(marker))
			half := s.Records()
			require.NoError(t, s.Rekey(g.ctx, block.Range{}, nil))
			require.Len(t, replaced(s, half), 40)
		})
	}
	t.Run("of an epoch before", func(t *testing.T) {
		g, s, _, key, marker := halfRekeyed(t)
		require.NoError(t, s.RotateEpoch(g.ctx, nil))
		s.SetEngine(key, marker)
		half := s.Records()
		require.NoError(t, s.Rekey(g.ctx, block.Range{}, nil))
		require.Len(t, replaced(s, half), 40)
	})
	t.Run("of an operation that has ended", func(t *testing.T) {
		g, s, _, key, marker := halfRekeyed(t)
		require.NoError(t, s.Rekey(g.ctx, block.Range{}, nil))
		s.SetEngine(key, marker)
		half := s.Records()
		require.NoError(t, s.Rekey(g.ctx, block.Range{}, nil))
		require.Len(t, replaced(s, half), 40)
	})
	t.Run("of an operation that another took the place of", func(t *testing.T) {
		g, s, _, key, marker := halfRekeyed(t)
		require.ErrorIs(t, s.Rekey(&steps{g.ctx, 5}, block.Range{Start: []byte("05")}, nil), context.Canceled)
		s.SetEngine(key, marker)
		half := s.Records()
		require.NoError(t, s.Rekey(g.ctx, block.Range{}, nil))
		require.Len(t, replaced(s, half), 40)
	})
	t.Run("of another operation", func(t *testing.T) {
		g, s, _, _, marker := halfRekeyed(t)
		s.SetEngine([]byte("\x01\x00\x00\x00\x00rotate-epoch"), marker)
		half := s.Records()
		require.NoError(t, s.RotateEpoch(g.ctx, nil))
		require.Equal(t, uint32(2), s.State().Epoch, "it began an epoch of its own")
		require.Len(t, replaced(s, half), 40)
	})
}

// Every byte of a genuine marker flipped, and every length of it: the operation begins
// anew, or refuses with an error that matches; it leaves out nothing, and loses nothing.
func TestEveryWayToAlterAMarker(t *testing.T) {
	rekey := func(g *rig, s *block.Store) error { return s.Rekey(g.ctx, block.Range{}, nil) }
	rotate := func(g *rig, s *block.Store) error { return s.RotateEpoch(g.ctx, nil) }
	for name, op := range map[string]func(*rig, *block.Store) error{"rekey": rekey, "rotate-epoch": rotate} {
		t.Run(name, func(t *testing.T) {
			const blocks = 12
			g := newRig(t)
			s := g.open()
			s.SetSteps(2, 1)
			id := func(i int) string { return fmt.Sprintf("%02d", i) }
			for i := range blocks {
				require.NoError(t, s.Put(g.ctx, []byte(id(i)), fmt.Appendf(nil, "data %d", i)))
			}
			key := []byte("\x01\x00\x00\x00\x00" + name)
			// half cuts an operation off and returns the marker that it left.
			from := 3
			half := func() []byte {
				require.NoError(t, op(g, s)) // what was cut off before
				whole := g.ctx
				for n := from; n < 1000; n++ { // checks of the context, until some are done and not all
					was := s.Records()
					g.ctx = &steps{whole, n}
					err := op(g, s)
					g.ctx = whole
					done := len(replaced(s, was))
					if n > 3 && n == from && done >= blocks-2 { // fewer checks than the last time
						from, n = 3, 2
						require.NoError(t, op(g, s))
						continue
					}
					require.ErrorIs(t, err, context.Canceled)
					if done > 2 && done < blocks-2 {
						from = n // which will do the next time too
						return s.Engine(key)
					}
					require.NoError(t, op(g, s)) // to its end
				}
				t.Fatal("it was never cut off half way")
				return nil
			}
			marker := half()
			ways := map[string][]byte{}
			for i := range marker {
				flipped := bytes.Clone(marker)
				flipped[i] ^= 1
				ways[fmt.Sprint("byte ", i)] = flipped
				ways[fmt.Sprint("cut to ", i)] = marker[:i]
			}
			ways["longer"] = append(bytes.Clone(marker), 0)
			for what, bad := range ways {
				half()
				s.SetEngine(key, bad)
				was := s.Records()
				if err := op(g, s); err != nil {
					require.True(t, errors.Is(err, block.ErrCorrupt) || errors.Is(err, block.ErrVersion), "%s: %v", what, err)
					s.SetEngine(key, nil)
					require.NoError(t, op(g, s))
				}
				require.Len(t, replaced(s, was), blocks, what)
			}
			rep, err := s.Verify(g.ctx, nil)
			require.NoError(t, err)
			require.EqualValues(t, blocks, rep.Blocks)
			for i := range blocks {
				got, err := s.Get(g.ctx, []byte(id(i)), nil)
				require.NoError(t, err)
				require.Equal(t, fmt.Sprintf("data %d", i), string(got))
			}
		})
	}
}

// Each RotateEpoch that returns nil has begun an epoch after it was called, and everything
// from before is gone: also if one was cut off before, and whatever of earlier ones
// somebody put back who writes the disk.
func TestEachRotateEpochBeginsAnEpoch(t *testing.T) {
	g := newRig(t)
	s := g.open()
	s.SetSteps(4, 1)
	for i := range 40 {
		require.NoError(t, s.Put(g.ctx, fmt.Appendf(nil, "%02d", i), nil))
	}
	rotated := func(what string) {
		t.Helper()
		before, records := s.State().Epoch, s.Records()
		require.NoError(t, s.RotateEpoch(g.ctx, nil), what)
		require.Greater(t, s.State().Epoch, before, what)
		require.Equal(t, 1, s.State().Epochs, what)
		require.Len(t, replaced(s, records), 40, what)
	}
	key := []byte("\x01\x00\x00\x00\x00rotate-epoch")
	require.ErrorIs(t, s.RotateEpoch(&steps{g.ctx, 5}, nil), context.Canceled)
	require.Equal(t, 2, s.State().Epochs)
	marker := s.Engine(key)
	rotated("after one that was cut off")
	s.SetEngine(key, marker)
	rotated("after its marker was put back")

	require.ErrorIs(t, s.RotateEpoch(&steps{g.ctx, 5}, nil), context.Canceled)
	require.NoError(t, s.Close())
	s = g.open()
	rotated("after a restart")
}
