package main

import (
	"encoding/json"
	"flag"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
)

// What the tables say, from measurements that are known.
func TestTables(t *testing.T) {
	m := measurements{
		Stores: 10_000, Open: 1000,
		Create:  create{Create: []float64{2e6, 4e6, 3e6}, Close: []float64{2e6, 2e6, 3e6}, Put: []float64{1e6, 1e6, 1e6}, Calls: 3, Held: 100},
		OpenDB:  openDB{One: []spent{{5, 10}, {5, 10}}, Many: []spent{{5, 11}, {5, 13}}, Replay: time.Second},
		Memory:  memory{Closed: 0, Open: 80 << 10},
		Use:     []use{{Op: "Get", One: []spent{{10, 5}}, Many: []spent{{10, 10}}, Again: []spent{{10, 4}}}},
		Restart: restart{Asked: 1000, Delay: 20 * time.Millisecond, Calls: 3000, Most: 2900, AtOnce: 8, Median: 1500 * time.Millisecond, Slowest: 3 * time.Second, Refused: 1},
		Drop:    []drop{{Stores: 250, Blocks: 1, Took: []time.Duration{1}, Written: []int64{1 << 30}}, {Stores: 1000, Blocks: 16, Took: []time.Duration{3e6, 1e6, 2e6}, Written: []int64{65<<10 + 1024, 65 << 10, 68 << 10}}},
	}
	bound := use{Op: "Put", One: []spent{{10, 8}}, Many: []spent{{10, 10}}, Again: []spent{{10, 8}}}
	bound.Bound.One, bound.Bound.Many = []spent{{1, 8}, {1, 9}, {1, 8}}, []spent{{1, 10}, {1, 10}, {1, 10}}
	m.Use = append(m.Use, bound)
	var out strings.Builder
	require.NoError(t, m.write(&out))
	for _, want := range []string{
		"| 10,000 stores in one DB | target |",
		"| created, one after the other, each durably | ≥ 200 a second | 333 | 250 to 500 | met |",
		"| the same, and closed | ≥ 200 a second | 167 | 167 to 250 | not met |",
		"by processor time | ≤ 1.20 | 1.30 | 1.10 to 1.30 | not met |",
		"| the same, by the time that passes | ≤ 1.20 | 1 |  | met |",
		"| bytes of memory of a store that is not open | ≤ 256 | 0 |  | met |",
		"| KiB of memory of an open store | ≤ 64 | 80 |  | not met |",
		"| Get, over 1,000 stores: rate, in times of one store's, by processor time | ≥ 0.95 | 0.50 |  | not met |",
		"| the same, by the time that passes | ≥ 0.95 | 1 |  | met |",
		"| the bound of Put: the same of a map or a plain Pebble with a key for each store | | 0.80 | 0.80 to 0.90 | |",
		"| Put, over 1,000 stores: rate, in times of one store's, by processor time | ≥ 0.76 | 0.80 |  | met |",
		"| KiB that `Drop` of one of 1,000 stores writes beyond what that one had | ≤ 1,024 | 2 | 1 to 4 | met |",
		"1.25 to 1.25 for Get", "makes 3 calls to the vault and takes as long as 3 synced Puts",
		"was called 2 times on each side", "takes 1.0 s, with the engine's log",
		"| most calls to the vault in 10 seconds | ≤ 4,000 | 2,900 |  | met |",
		"| ≤ 0 | 1 |  | not met |",
		"1,000 of 10,000 stores", "| 3,000 | 8 | 1.5 s | 3.0 s | 1 |",
		"| 1,000 | 64 KiB | 2 ms | 66 KiB |",
	} {
		require.Contains(t, strings.ReplaceAll(out.String(), "restart: ", ""), want)
	}
	require.Error(t, measurements{}.write(&out))
}

var update = flag.Bool("update", false, "write the tables into docs/performance.md")

// The tables of docs/performance.md are what results/tenants.json says.
func TestPageHasTheMeasuredTables(t *testing.T) {
	b, err := os.ReadFile(filepath.Join("..", "results", "tenants.json"))
	require.NoError(t, err)
	var m measurements
	require.NoError(t, json.Unmarshal(b, &m))
	var tables strings.Builder
	require.NoError(t, m.write(&tables))

	name := filepath.Join("..", "..", "docs", "performance.md")
	page, err := os.ReadFile(name)
	require.NoError(t, err)
	const begin, end = "<!-- bench/tenants -->\n", "<!-- end -->\n"
	before, rest, ok := strings.Cut(string(page), begin)
	require.True(t, ok, "there is no place for the tables")
	got, after, ok := strings.Cut(rest, end)
	require.True(t, ok, "the tables have no end")
	want := "\n" + tables.String() + "\n"
	if *update {
		require.NoError(t, os.WriteFile(name, []byte(before+begin+want+end+after), 0o644))
		return
	}
	require.Equal(t, want, got, "go -C bench test ./tenants -run TestPage -update")
}

// A small run, from making stores to the tables, and the tables again from the file.
func TestRun(t *testing.T) {
	dir := t.TempDir()
	file := filepath.Join(dir, "m.json")
	var first, again, progress strings.Builder
	require.NoError(t, run(t.Context(), []string{"-stores", "30", "-open", "10", "-rounds", "1", "-turn", "10", "-dir", dir, "-out", file}, &first, &progress))
	require.NoError(t, run(t.Context(), []string{"-in", file}, &again, &progress))
	require.Equal(t, first.String(), again.String())
	require.Contains(t, first.String(), "| 30 stores in one DB |")
	left, err := os.ReadDir(dir)
	require.NoError(t, err)
	require.Len(t, left, 1, "the file alone")

	var b []byte
	b, err = os.ReadFile(file)
	require.NoError(t, err)
	var m measurements
	require.NoError(t, json.Unmarshal(b, &m))
	require.Len(t, m.Create.Create, 10)
	require.EqualValues(t, 3, m.Create.Calls)
	require.GreaterOrEqual(t, m.Restart.Calls, 30, "three for each that was asked for, and regular checks, whose moments are drawn by lot")
	require.Zero(t, m.Restart.Refused)
	require.Len(t, m.Use, 2)
	for _, u := range m.Use {
		require.Len(t, u.Bound.One, 1)
		require.Len(t, u.Bound.Many, 1)
	}
	require.Len(t, m.Drop, 2*len(dropSizes()))
	for _, d := range m.Drop {
		require.Positive(t, middle(d.Written))
	}
}

func TestCommandLine(t *testing.T) {
	var out strings.Builder
	require.ErrorIs(t, run(t.Context(), []string{"-h"}, &out, &out), flag.ErrHelp)
	for _, args := range [][]string{{"more"}, {"-open", "1"}, {"-stores", "2000"}, {"-rounds", "0"}, {"-turn", "0"}, {"-only", "lunch"}, {"-what"}} {
		require.ErrorIs(t, run(t.Context(), args, &out, &out), errUsage, args)
	}
	require.Error(t, run(t.Context(), []string{"-in", filepath.Join(t.TempDir(), "none")}, &out, &out))
}
