package main

import (
	"testing"

	"github.com/stretchr/testify/require"
)

func load(t *testing.T, file string) *results {
	t.Helper()
	r := newResults()
	require.NoError(t, r.readFile(file))
	return r
}

func TestParse(t *testing.T) {
	r := load(t, "testdata/partial.txt")
	got := r.get("Seal/size=512", "floor", seconds)
	require.Len(t, got, 3)
	require.InDeltaSlice(t, []float64{1e-6, 2e-6, 3e-6}, values(got), 1e-12)
	require.InDelta(t, 512e6, r.get("Seal/size=512", "floor", "B/s")[0].value, 1)
	require.Len(t, r.get("Seal/size=512", ours, seconds), 2)
	require.Nil(t, r.get("Seal/size=512", "none", seconds))
	require.Nil(t, r.get("Seal/size=512", ours, "none"))
	// A benchmark that nobody knows is kept.
	require.InDelta(t, 3.5, r.get("Of<script>alert(1)</script>/a=&b", "new", "sheep/op")[0].value, 0)

	require.True(t, r.quick)
	require.True(t, r.interrupted)
	require.Equal(t, []string{"Scan"}, r.failed)
	require.Positive(t, r.unreadable)
}

func TestParseNamesWithDashes(t *testing.T) {
	r := newResults()
	require.NoError(t, r.parse("f", []byte("BenchmarkX/impl=go-kms-wrapping-16 1 5 ns/op\nBenchmarkX/impl=go-kms-wrapping 1 7 ns/op\n")))
	require.Len(t, r.rows, 2, "GOMAXPROCS makes a row of its own")
	for i, procs := range []string{"-16", ""} {
		require.Equal(t, "X", r.rows[i].name)
		require.Equal(t, "go-kms-wrapping", r.rows[i].impl)
		require.Equal(t, procs, r.rows[i].procs)
	}
	names := r.table()
	require.Equal(t, "X-16", names[0].Name)
	require.Equal(t, "X", names[1].Name)
}

func TestParsePercentiles(t *testing.T) {
	r := newResults()
	require.NoError(t, r.parse("f", []byte("BenchmarkLatency/op=put/impl=blockseal-2 1 9 ns/op 1500 p50-ns 2000 p99.9-ns\n")))
	require.InDelta(t, 1.5e-6, r.get("Latency/op=put", ours, "p50-sec")[0].value, 1e-15)
	require.Equal(t, "p50 1.50 µs, p99.9 2.00 µs", r.table()[0].Other)
}

func TestParseTurns(t *testing.T) {
	r := newResults()
	require.NoError(t, r.parse("f", []byte("BenchmarkSeal/size=512/impl=blockseal-2 1 900 ns/op 800 floor-ns/op\n")))
	require.InDelta(t, 8e-7, r.get("Seal/size=512", ours, "floor-"+seconds)[0].value, 1e-15)
	require.Equal(t, "floor in turns with it 800 ns", r.table()[0].Other)
}

// Without the report's marks, as from go test -count, the how-manieth result of a row is
// the round; a second file brings rounds of its own.
func TestRoundsWithoutMarks(t *testing.T) {
	raw := []byte("BenchmarkX/impl=blockseal 1 2 ns/op\nBenchmarkX/impl=blockseal 1 4 ns/op\nBenchmarkX/impl=floor 1 1 ns/op\nBenchmarkX/impl=floor 1 1 ns/op\n")
	r := newResults()
	require.NoError(t, r.parse("a", raw))
	require.NoError(t, r.parse("b", raw))
	require.Len(t, r.rounds, 4)
	require.InDeltaSlice(t, []float64{2, 4, 2, 4}, ratios(r.get("X", ours, seconds), r.get("X", "floor", seconds)), 1e-9)
}

func TestParseFailures(t *testing.T) {
	for raw, want := range map[string][]string{
		"PASS\n": nil,
		"--- FAIL: BenchmarkA/x=1-2\n--- FAIL: BenchmarkA\nFAIL\n":       {"A"},
		"BenchmarkA-2 \t--- FAIL: BenchmarkA-2\n    f.go:1: x\nFAIL\n":   {"A"},
		"# report: failed BenchmarkB: signal: killed\n":                  {"B"},
		"panic: out of memory\nFAIL\texample.com/x\t0.1s\n":              {"one that the output does not name"},
		"--- FAIL: BenchmarkA (0.00s)\n# report: failed BenchmarkB: x\n": {"A", "B"},
	} {
		r := newResults()
		require.NoError(t, r.parse("f", []byte(raw)))
		require.Equal(t, want, r.failed, raw)
	}
}
