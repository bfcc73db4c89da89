package main

import (
	"bytes"
	"encoding/json"
	"flag"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
)

func TestSlope(t *testing.T) {
	each, fixed := slope([]float64{1, 2, 3}, []float64{12, 14, 16})
	require.InDelta(t, 2, each, 1e-9)
	require.InDelta(t, 10, fixed, 1e-9)
	each, fixed = slope([]float64{5, 5}, []float64{1, 3})
	require.Zero(t, each, "of one point there is no slope")
	require.InDelta(t, 2, fixed, 1e-9)
}

// What the tables say, from measurements that are known.
func TestTables(t *testing.T) {
	m := measurements{
		Growth: []point{
			{Blocks: 1000, Size: 64, Disk: 1000*(64+200) + 5000, Heap: 3000, Open: 3 * time.Millisecond, OpenCalls: 3, FillCalls: 6, Keyring: 700, Epochs: 1},
			{Blocks: 1_000_000, Size: 64, Disk: 1_000_000*(64+200) + 5000, Heap: 3000 + 999_000/2, Open: 9 * time.Millisecond, OpenCalls: 3, FillCalls: 6, Keyring: 700, Epochs: 1},
		},
		Payloads: []payload{{Blocks: 1000, Size: 4096, Disk: 1000 * (4096 + 164)}, {Blocks: 1000, Size: 16384, Disk: 1000 * (16384 + 164)}},
	}
	var out bytes.Buffer
	require.NoError(t, m.write(&out))
	for _, want := range []string{
		"| 1 million | 251.8 MiB | 200 B |", "a block adds 200 bytes of disk beyond its plaintext and 0.50 bytes of live heap",
		"| 4 KiB | 1,000 | 164 B | 4.00% |", "**extrapolated** from at most 1 million blocks", "| | 4 KiB | 16 KiB |",
		"| blocks | 3.9 billion | 976.6 million |", "| vault calls to open | 3 | 3 |", "| vault calls a day, of checks | 4320 | 4320 |",
	} {
		require.Contains(t, out.String(), want)
	}
	require.Error(t, measurements{}.write(&out))
}

var update = flag.Bool("update", false, "write the tables into docs/performance.md")

// The tables of docs/performance.md are what results/sizing.json says.
func TestPageHasTheMeasuredTables(t *testing.T) {
	b, err := os.ReadFile(filepath.Join("..", "results", "sizing.json"))
	require.NoError(t, err)
	var m measurements
	require.NoError(t, json.Unmarshal(b, &m))
	var tables strings.Builder
	require.NoError(t, m.write(&tables))

	name := filepath.Join("..", "..", "docs", "performance.md")
	page, err := os.ReadFile(name)
	require.NoError(t, err)
	const begin, end = "<!-- bench/sizing -->\n", "<!-- end -->\n"
	before, rest, ok := strings.Cut(string(page), begin)
	require.True(t, ok, "there is no place for the tables")
	got, after, ok := strings.Cut(rest, end)
	require.True(t, ok, "the tables have no end")
	want := "\n" + tables.String() + "\n"
	if *update {
		require.NoError(t, os.WriteFile(name, []byte(before+begin+want+end+after), 0o644))
		return
	}
	require.Equal(t, want, got, "go -C bench test ./sizing -run TestPage -update")
}

// A small run, from filling stores to the tables, and the tables again from the file.
func TestRun(t *testing.T) {
	dir := t.TempDir()
	file := filepath.Join(dir, "m.json")
	var first, again, progress strings.Builder
	require.NoError(t, run(t.Context(), []string{"-blocks", "2000", "-payload", "1048576", "-dir", dir, "-out", file}, &first, &progress))
	require.Contains(t, progress.String(), "2000 blocks of 64 bytes")
	require.NoError(t, run(t.Context(), []string{"-in", file}, &again, &progress))
	require.Equal(t, first.String(), again.String())
	require.Contains(t, first.String(), "| 2,000 |")
}

func TestCommandLine(t *testing.T) {
	var out strings.Builder
	require.ErrorIs(t, run(t.Context(), []string{"-h"}, &out, &out), flag.ErrHelp)
	for _, args := range [][]string{{"more"}, {"-blocks", "1"}, {"-payload", "1"}, {"-what"}} {
		require.ErrorIs(t, run(t.Context(), args, &out, &out), errUsage, args)
	}
	require.Error(t, run(t.Context(), []string{"-in", filepath.Join(t.TempDir(), "none")}, &out, &out))
}
