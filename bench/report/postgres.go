package main

import (
	"fmt"
	"strings"
)

// postgresTitle heads the comparisons on PostgreSQL, which are measured by themselves
// (results/postgres.txt): they need a server, and a table of their own says so.
const postgresTitle = "On PostgreSQL, beside plain pgx with one table (id, data): rate, in times of plain pgx's"

// postgresTargets are medians over pairs of turns, which the benchmarks report: on a machine that does
// much else a sum of times is that of its worst turns.
func postgresTargets() (t []target) {
	for _, op := range []struct {
		label, name string
		limit       float64
	}{{"Put 4 KiB, with the floor's guard", "Put", 0.90}, {"Get 4 KiB", "Get", 0.90}, {"batch of 100 blocks of 4 KiB", "Batch", 0.90}} {
		for _, n := range []int{1, 8, 32} {
			connections := fmt.Sprintf("%d connections", n)
			if n == 1 {
				connections = "1 connection"
			}
			t = append(t, postgresRate(op.limit, op.label+", "+connections, fmt.Sprintf("Postgres%s/connections=%d", op.name, n)))
		}
	}
	return append(t, postgresRate(0.85, "scan, 4 KiB", "PostgresScan"),
		postgresMetric(100, "raising the floor under 32 writers, median, ms", "PostgresRaise", "p50-ms"))
}

func postgresRate(limit float64, label, name string) target {
	t := postgresMetric(limit, label, name, "pgx-rate")
	t.atMost = false
	return t
}

func postgresMetric(limit float64, label, name, unit string) target {
	return target{label: label, atMost: true, limit: limit, measure: func(r *results) ([]float64, string) {
		return values(r.get(name, "", unit)), ""
	}}
}

// postgresTable is the table of docs/performance.md, in Markdown.
func postgresTable(r *results) string {
	var b strings.Builder
	fmt.Fprintf(&b, "| %s | target | measured | range | |\n|---|---|---|---|---|\n", postgresTitle)
	for _, t := range postgresTargets() {
		v := t.judge(r)
		fmt.Fprintf(&b, "| %s | %s | %s | %s | %s |\n", v.Label, v.Want, v.Measured, v.Range, v.Verdict)
	}
	return b.String()
}
