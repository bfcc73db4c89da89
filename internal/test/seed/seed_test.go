package seed

import (
	"testing"

	"github.com/stretchr/testify/require"
	"pgregory.net/rapid"
)

func TestSeeds(t *testing.T) {
	for _, tt := range []struct {
		value string
		want  uint64
	}{{"", 1}, {"1", 1}, {"77", 77}, {"18446744073709551615", 1<<64 - 1}} {
		t.Setenv(Variable, tt.value)
		require.Equal(t, tt.want, Of(t), tt.value)
		require.Equal(t, tt.want, Of(t), "the same again")
	}
	t.Setenv(Variable, "0")
	drawn := map[uint64]bool{}
	for range 10 {
		n := Of(t)
		require.NotZero(t, n, "0 would draw another one when it is given again")
		drawn[n] = true
	}
	require.Greater(t, len(drawn), 1)
	for _, bad := range []string{"x", "-1", "1.5", "18446744073709551616"} {
		_, err := Parse(bad)
		require.ErrorContains(t, err, Variable+"="+bad)
	}
}

// rapid draws the same in two runs of one process.
func TestRapid(t *testing.T) {
	t.Setenv(Variable, "")
	var runs [2][]uint64
	for i := range runs {
		Rapid(t)
		rapid.Check(t, func(t *rapid.T) { runs[i] = append(runs[i], rapid.Uint64().Draw(t, "number")) })
	}
	require.NotEmpty(t, runs[0])
	require.Equal(t, runs[0], runs[1])
}
