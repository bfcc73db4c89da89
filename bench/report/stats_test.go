package main

import (
	"math"
	"testing"

	"github.com/stretchr/testify/require"
)

func TestOver(t *testing.T) {
	require.Equal(t, spread{}, over(nil))
	require.Equal(t, spread{3, 3, 3, 3, 3, 1}, over([]float64{3}))
	require.Equal(t, spread{3, 1, 9, 1, 9, 3}, over([]float64{9, 1, 3}))
	require.Equal(t, spread{2.5, 1, 9, 1, 9, 4}, over([]float64{9, 1, 3, 2}))
	require.Equal(t, spread{3, 1, 9, 2, 4, 5}, over([]float64{9, 1, 3, 2, 4}))
	in := []float64{2, 1}
	over(in)
	require.Equal(t, []float64{2, 1}, in, "the order is the caller's")
	require.Equal(t, spread{0.5, 0.25, 1, 0.4, 0.8, 3}, spread{2, 1, 4, 1.25, 2.5, 3}.each(func(v float64) float64 { return 1 / v }))
}

func TestRatiosArePaired(t *testing.T) {
	a := []sample{{0, 10}, {1, 20}, {2, 60}}
	b := []sample{{2, 20}, {0, 5}, {3, 1}}
	require.Equal(t, []float64{2, 3}, ratios(a, b), "rounds 0 and 2, those that both have")
	require.Empty(t, ratios(a, nil))
	require.Empty(t, ratios(nil, b))
	require.Empty(t, ratios([]sample{{0, 1}}, []sample{{0, 0}}))
}

// The rounds of partial.txt give 1.2 and 1.5. Paired by position the second would be
// 4500/2000, and the quotient of the medians 2850/2000.
func TestRatiosSkipARoundThatIsMissing(t *testing.T) {
	r := load(t, "testdata/partial.txt")
	got := ratios(r.get("Seal/size=512", ours, seconds), r.get("Seal/size=512", "floor", seconds))
	require.InDeltaSlice(t, []float64{1.2, 1.5}, got, 1e-9)
	require.InDelta(t, 1.35, over(got).median, 1e-9)
}

func TestGrowth(t *testing.T) {
	require.Equal(t, []float64{1}, growth([]sample{{0, 3}}, []sample{{0, 3}}, []sample{{0, 3}}))
	require.Equal(t, []float64{2}, growth([]sample{{0, 3}}, []sample{{0, 6}}, []sample{{0, 4}}), "the one between is the largest")
	require.Equal(t, []float64{1}, growth([]sample{{0, 0}}, []sample{{0, 0}}))
	require.Equal(t, []float64{math.Inf(1)}, growth([]sample{{0, 0}}, []sample{{0, 1}}))
	require.Empty(t, growth([]sample{{0, 3}}, []sample{{1, 3}}), "no round has both")
}
