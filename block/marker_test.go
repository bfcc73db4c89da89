package block_test

import (
	"bytes"
	"context"
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
	key = []byte("\x01rekey")
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
	t.Run("of another operation", func(t *testing.T) {
		g, s, _, _, marker := halfRekeyed(t)
		s.SetEngine([]byte("\x01rotate-epoch"), marker)
		half := s.Records()
		require.NoError(t, s.RotateEpoch(g.ctx, nil))
		require.Equal(t, uint32(2), s.State().Epoch, "it began an epoch of its own")
		require.Len(t, replaced(s, half), 40)
	})
}
