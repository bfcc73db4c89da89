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
		if c.file == "sealed.txt" && len(r.rows) == 0 {
			continue // not measured yet
		}
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

func TestSealedFilesAreJudgedByTheirBound(t *testing.T) {
	r := newResults()
	require.NoError(t, r.parse("f", []byte("BenchmarkFilesRatio/get/files/size=4096-2 101 5 ns/op 0.65 cpu 0.6 wall 0.70 bound-cpu\n"+
		"BenchmarkFilesRatio/scan/files/size=4096-2 101 5 ns/op 0.91 cpu 0.9 wall 0.99 bound-cpu\n")))
	vs := apartOf(t, "sealed").judge(r).Verdicts
	require.Equal(t, verdict{Label: vs[0].Label, Want: "≥ 0.66", First: "≥ 0.85", Measured: "0.65", Bound: "0.70", Verdict: notMet}, vs[0])
	require.Equal(t, noData, vs[1].Verdict)
	require.Equal(t, verdict{Label: vs[4].Label, Want: "≥ 0.90", Measured: "0.91", Bound: "0.99", Verdict: met}, vs[4])
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
