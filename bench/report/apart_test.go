package main

import (
	"os"
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
	table := apartOf(t, "postgres").markdown(r)
	require.Contains(t, table, "| Put 4 KiB, with the floor's guard, 1 connection | ≥ 0.90 | 0.97 | 0.95 to 0.99 | met |")
	require.Contains(t, table, "| Get 4 KiB, 8 connections | ≥ 0.90 | 0.84 |  | not met |")
	require.Contains(t, table, "| raising the floor under 32 writers, median, ms | ≤ 100.00 | 20.00 |  | met |")
	require.Contains(t, table, "| scan, 4 KiB | ≥ 0.85 | – |  | no data |")
}

func apartOf(t *testing.T, table string) apart {
	t.Helper()
	for _, c := range aparts() {
		if c.table == table {
			return c
		}
	}
	require.Failf(t, "there is no such table", "%s", table)
	return apart{}
}

// Each file that is there has each of its targets, and gives a chart.
func TestResultsApartFromTheRunAreWhole(t *testing.T) {
	for _, c := range aparts() {
		r, err := c.read(filepath.Join("..", "results"))
		require.NoError(t, err)
		require.Empty(t, r.failed)
		for _, v := range c.judge(r).Verdicts {
			require.NotEqual(t, noData, v.Verdict, "%s: %s", c.file, v.Label)
		}
		s := &source{results: r}
		_, ok := c.draw(s)
		require.True(t, ok, c.file)
		require.Empty(t, s.missing)
	}
}

// Without a file there is nothing to judge, and one that is broken is said to be.
func TestReadApartFromTheRun(t *testing.T) {
	dir := t.TempDir()
	tenants := apartOf(t, "tenants")
	r, err := tenants.read(dir)
	require.NoError(t, err)
	require.Empty(t, r.rows)
	for _, raw := range []string{"{", `{"create":{"create":[1,2],"close":[1]}}`, `{"use":[{"op":"Get","one":[{"cpu":1}]}]}`, `{"openDB":{"one":[{"cpu":1}]}}`} {
		require.NoError(t, os.WriteFile(filepath.Join(dir, tenants.file), []byte(raw), 0o644))
		_, err := tenants.read(dir)
		require.ErrorContains(t, err, tenants.file, raw)
	}
	require.NoError(t, os.WriteFile(filepath.Join(dir, tenants.file), []byte(`{"create":{"create":[2000000],"close":[8000000]},"use":[{"op":"Get 4 KiB, hot","one":[{"cpu":9}],"many":[{"cpu":10}]}]}`), 0o644))
	r, err = tenants.read(dir)
	require.NoError(t, err)
	vs := tenants.judge(r).Verdicts
	require.Equal(t, []string{"500.00", met}, []string{vs[0].Measured, vs[0].Verdict})
	require.Equal(t, []string{"100.00", notMet}, []string{vs[1].Measured, vs[1].Verdict})
	require.Equal(t, []string{"0.90", notMet}, []string{vs[5].Measured, vs[5].Verdict})
	require.Equal(t, noData, vs[3].Verdict)
}
