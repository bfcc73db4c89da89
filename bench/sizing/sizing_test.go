package main

import (
	"bytes"
	"encoding/json"
	"flag"
	"io"
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

// Ids ascend, which Load asks for, and reach from one end of all ids to the other.
func TestLoadedIDsAscend(t *testing.T) {
	for _, n := range []int{1, 7, 1000, 100_000_000} {
		for i := range min(n, 1000) - 1 {
			require.Negative(t, bytes.Compare(loadedID(i, n), loadedID(i+1, n)))
		}
		if n > 1 {
			require.Negative(t, bytes.Compare(loadedID(0, n), loadedID(n-1, n)))
		}
	}
	require.Greater(t, loadedID(99_999_999, 100_000_000)[0], byte(0xf0))
}

// What the tables say, from measurements that are known.
func TestTables(t *testing.T) {
	m := measurements{
		Growth: []point{
			{Blocks: 1000, Size: 64, Disk: 1000*(64+200) + 5000, Heap: 3000, Open: 3 * time.Millisecond, OpenCalls: 3, FillCalls: 6, Keyring: 700, Epochs: 1},
			{Blocks: 1_000_000, Size: 64, Disk: 1_000_000*(64+200) + 5000, Heap: 3000 + 999_000/2, Open: 9 * time.Millisecond, OpenCalls: 3, FillCalls: 6, Keyring: 700, Epochs: 1},
		},
		Loaded:   []loaded{{Blocks: 100_000_000, Size: 64, Load: 500 * time.Second, Disk: 100_000_000 * (64 + 124), Open: 9 * time.Millisecond, OpenCalls: 3, Heap: 32 << 20, Get: 37_200 * time.Nanosecond, Reads: 1.314, Tables: 3}},
		Payloads: []payload{{Blocks: 1000, Size: 4096, Disk: 1000 * (4096 + 164)}, {Blocks: 1000, Size: 16384, Disk: 1000 * (16384 + 164)}},
	}
	var out bytes.Buffer
	require.NoError(t, m.write(&out))
	for _, want := range []string{
		"| 1 million | 251.8 MiB | 200 B |", "a block adds 200 bytes of disk beyond its plaintext and 0.50 bytes of live heap",
		"| 100 million | 200,000 | 17.5 GiB | 124 B | 9ms | 3 | 37.2µs | 1.31 | 3 | 32 MiB |",
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
	require.NoError(t, run(t.Context(), []string{"-blocks", "2000", "-load", "1000", "-payload", "1048576", "-dir", dir, "-out", file}, &first, &progress))
	require.Contains(t, progress.String(), "2000 blocks of 64 bytes")
	require.NoError(t, run(t.Context(), []string{"-in", file}, &again, &progress))
	require.Equal(t, first.String(), again.String())
	require.Contains(t, first.String(), "| 2,000 |")

	// More blocks are loaded beside what the file has.
	var more measurements
	require.NoError(t, run(t.Context(), []string{"-in", file, "-load", "3000", "-dir", dir, "-out", file}, io.Discard, io.Discard))
	b, err := os.ReadFile(file)
	require.NoError(t, err)
	require.NoError(t, json.Unmarshal(b, &more))
	require.Len(t, more.Growth, 2)
	require.Len(t, more.Loaded, 1)
	got := more.Loaded[0]
	require.Equal(t, 3000, got.Blocks)
	require.Greater(t, got.Disk, int64(3000*64))
	require.Positive(t, got.Get)
	require.Positive(t, got.Load)
	require.Equal(t, 3, got.OpenCalls)
	require.NoDirExists(t, filepath.Join(dir, "loaded"), "the stores are removed")
}

func TestCommandLine(t *testing.T) {
	var out strings.Builder
	require.ErrorIs(t, run(t.Context(), []string{"-h"}, &out, &out), flag.ErrHelp)
	for _, args := range [][]string{{"more"}, {"-blocks", "1"}, {"-payload", "1"}, {"-load", "-1"}, {"-load", "0"}, {"-what"}} {
		require.ErrorIs(t, run(t.Context(), args, &out, &out), errUsage, args)
	}
	require.Error(t, run(t.Context(), []string{"-in", filepath.Join(t.TempDir(), "none")}, &out, &out))
}
