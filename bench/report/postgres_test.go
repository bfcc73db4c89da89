package main

import (
	"path/filepath"
	"testing"

	"github.com/stretchr/testify/require"
)

func TestPostgresTable(t *testing.T) {
	r := newResults()
	raw := "BenchmarkPostgresPut/connections=1-2 10 5 ns/op 0.95 pgx-rate\nBenchmarkPostgresGet/connections=8-2 10 5 ns/op 0.84 pgx-rate\n" +
		"BenchmarkPostgresRaise-2 10 5 ns/op 20 p50-ms 99 max-ms\n"
	require.NoError(t, r.parse("first", []byte(raw)))
	require.NoError(t, r.parse("second", []byte("BenchmarkPostgresPut/connections=1-2 10 5 ns/op 0.99 pgx-rate\n")))
	table := postgresTable(r)
	require.Contains(t, table, "| Put 4 KiB, with the floor's guard, 1 connection | ≥ 0.90 | 0.97 | 0.95 to 0.99 | met |")
	require.Contains(t, table, "| Get 4 KiB, 8 connections | ≥ 0.90 | 0.84 |  | not met |")
	require.Contains(t, table, "| raising the floor under 32 writers, median, ms | ≤ 100.00 | 20.00 |  | met |")
	require.Contains(t, table, "| scan, 4 KiB | ≥ 0.85 | – |  | no data |")
}

// Each of them is measured.
func TestPostgresResultsAreWhole(t *testing.T) {
	r := newResults()
	require.NoError(t, r.readFile(filepath.Join("..", "results", "postgres.txt")))
	require.Empty(t, r.failed)
	for _, target := range postgresTargets() {
		require.NotEqual(t, noData, target.judge(r).Verdict, target.label)
	}
}
