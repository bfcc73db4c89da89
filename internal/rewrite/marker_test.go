package rewrite

import (
	"testing"

	"github.com/stretchr/testify/require"
	"pgregory.net/rapid"

	"github.com/blockseal/blockseal/internal/row"
	"github.com/blockseal/blockseal/internal/test/seed"
)

// What a marker is written as it is read as, whatever range and id it has.
func TestMarkersAreReadAsWritten(t *testing.T) {
	bound := rapid.OneOf(rapid.Just([]byte(nil)), rapid.SliceOfN(rapid.Byte(), 1, 20), rapid.SliceOfN(rapid.Byte(), row.MaxID, 2*row.MaxID))
	end := rapid.OneOf(bound, rapid.Just([]byte{}))
	seed.Rapid(t)
	rapid.Check(t, func(t *rapid.T) {
		m := Marker{Epoch: rapid.Uint32().Draw(t, "epoch"), Next: bound.Draw(t, "next"), Start: bound.Draw(t, "start"), End: end.Draw(t, "end")}
		back, err := DecodeMarker(m.Encode())
		require.NoError(t, err)
		require.Equal(t, m, back)
	})
}
