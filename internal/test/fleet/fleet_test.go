package main

import (
	"flag"
	"os"
	"strings"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
)

var update = flag.Bool("update", false, "write the tables into docs/scale.md")

// The tables of docs/scale.md are what the simulation says.
func TestScaleHasTheTables(t *testing.T) {
	t.Parallel()
	const page = "../../../docs/scale.md"
	b, err := os.ReadFile(page)
	require.NoError(t, err)
	text := string(b)
	for _, table := range allTables(seed) {
		begin := "<!-- fleet: " + table.name + " -->\n"
		before, rest, ok := strings.Cut(text, begin)
		require.True(t, ok, "docs/scale.md has no place for the table %s", table.name)
		got, after, ok := strings.Cut(rest, "<!-- end -->\n")
		require.True(t, ok, "the table %s has no end", table.name)
		want := "\n" + table.text + "\n"
		if *update {
			text = before + begin + want + "<!-- end -->\n" + after
			continue
		}
		require.Equal(t, want, got, "go test ./internal/test/fleet -run TestScale -update")
	}
	if *update && text != string(b) {
		require.NoError(t, os.WriteFile(page, []byte(text), 0o644))
	}
}

// A seed gives the same whenever it is run, and another one something else.
func TestSeedDecides(t *testing.T) {
	t.Parallel()
	a := contend(7, 200, 2, askSmall, true)
	require.Equal(t, a, contend(7, 200, 2, askSmall, true))
	require.NotEqual(t, a.all, contend(8, 200, 2, askSmall, true).all)
}

// What the page concludes does not hang on its seed.
func TestConclusionsHoldForOtherSeeds(t *testing.T) {
	t.Parallel()
	for seed := uint64(100); seed < 103; seed++ {
		require.Positive(t, contend(seed, 1000, 32, askSmall, false).failed, "writes fail where nobody waits")
		c := contend(seed, 1000, 32, askSmall, true)
		require.Zero(t, c.failed)
		require.Less(t, c.inARow, bears/8)
		require.Positive(t, reserve(seed, 100, 1, false).epochs, "64ths are too few for 100 processes")
		require.Zero(t, reserve(seed, 100, 1, true).epochs)
		r := raise(seed, 32, 2)
		require.Less(t, r.median, 100*time.Millisecond)
		require.Greater(t, r.median, r.put, "it waits for those that are under way")
		few := checks(seed, 100, 1, limitHSM, checkEvery)
		require.Zero(t, few.failed)
		require.Zero(t, few.ended)
	}
}

// A vault serves no more than its limit in any 10 seconds, and who is refused for long loses the lease.
func TestVaultServesItsLimit(t *testing.T) {
	t.Parallel()
	c := checks(seed, 100, 4, 50, checkEvery)
	require.Equal(t, 50, c.most)
	require.Positive(t, c.ended)
	r := restart(seed, 10, 10, 50, 0)
	require.Positive(t, r.throttled)
	require.GreaterOrEqual(t, r.all, 50*time.Second, "300 calls, 50 in 10 seconds")
	within := restart(seed, 10, 10, 4000, 12)
	require.Zero(t, within.throttled)
	require.GreaterOrEqual(t, within.all, 20*time.Second, "30 calls of each, 12 in 10 seconds")
}

// A server does as many requests at once as it has cores, in the order in which they came.
func TestServerServesInOrder(t *testing.T) {
	s := newSim(seed)
	v := &server{s: s, cores: 2}
	var done []int
	for i := range 6 {
		v.ask(time.Second, func() { done = append(done, i) })
	}
	s.run(time.Hour)
	require.Equal(t, []int{0, 1, 2, 3, 4, 5}, done)
	require.Equal(t, 3*time.Second, s.now)
}

func TestDurationsAreShort(t *testing.T) {
	for d, want := range map[time.Duration]string{1500 * time.Microsecond: "1.5 ms", 26 * time.Millisecond: "26 ms", 1100 * time.Millisecond: "1.1 s",
		90 * time.Second: "1.5 min", 12 * time.Minute: "12 min", 4 * time.Hour: "4.0 hours", 72 * time.Hour: "3.0 days"} {
		require.Equal(t, want, took(d))
	}
}
