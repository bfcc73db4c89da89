package main

import (
	"flag"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/stretchr/testify/require"
)

var update = flag.Bool("update", false, "write the tables into the pages")

// The tables in the pages are what results/latest says. They stand between two comments, which
// a reader of the page does not see.
func TestPagesHaveTheMeasuredTables(t *testing.T) {
	r := newResults()
	require.NoError(t, r.readFile(filepath.Join("..", "results", "latest", "raw.txt")))
	onServer := newResults()
	require.NoError(t, onServer.readFile(filepath.Join("..", "results", "postgres.txt")))
	onSealed := newResults()
	require.NoError(t, onSealed.readFile(filepath.Join("..", "results", "sealed.txt")))
	for _, c := range []struct{ page, table, want string }{
		{"docs/performance.md", "sealed", sealedTable(onSealed)},
		{"docs/performance.md", "sealed reads", sealedReadsTable(onSealed)},
		{"docs/performance.md", "postgres", postgresTable(onServer)},
		{"docs/performance.md", "targets", targetsTable(r)},
		{"README.md", "summary", summaryTable(r)},
	} {
		name := filepath.Join("..", "..", filepath.FromSlash(c.page))
		b, err := os.ReadFile(name)
		require.NoError(t, err)
		before, rest, ok := strings.Cut(string(b), "<!-- bench/report: "+c.table+" -->\n")
		require.True(t, ok, "%s has no place for the table", c.page)
		got, after, ok := strings.Cut(rest, "<!-- end -->\n")
		require.True(t, ok, "%s: the table has no end", c.page)
		want := "\n" + c.want + "\n"
		if *update && got != want {
			text := before + "<!-- bench/report: " + c.table + " -->\n" + want + "<!-- end -->\n" + after
			require.NoError(t, os.WriteFile(name, []byte(text), 0o644))
			continue
		}
		require.Equal(t, want, got, "%s: go -C bench test ./report -run TestPages -update", c.page)
	}
}

// What a chart shows of a comparison is what the tables say of it.
func TestChartsAndTablesAgree(t *testing.T) {
	r := newResults()
	require.NoError(t, r.readFile(filepath.Join("..", "results", "latest", "raw.txt")))
	s := &source{results: r}
	for title, other := range map[string]string{pebbleTitle: "pebble", badgerTitle: "badger"} {
		for _, op := range storedOps() {
			require.Equal(t, find(t, judge(r), title, op.label).Measured, short(s.rate(op.name, other).median), "%s: %s", title, op.label)
		}
	}
	for _, n := range sizes() {
		for _, peer := range []string{"tink", "go-kms-wrapping", "sio"} {
			v := find(t, judge(r), peerTitle, "seal and wrap "+size(n)+", beside "+label(peer))
			require.Equal(t, v.Measured, short(s.rate(fmt.Sprintf("SealWrapped/size=%d", n), peer).median), v.Label)
		}
		// The chart has a rate where the table has a time: of what was measured in turns, one is
		// the other's inverse by round, so that the medians of five rounds are too.
		v := find(t, judge(r), floorTitle, "seal "+size(n))
		require.Equal(t, v.Measured, short(1/s.rate(fmt.Sprintf("Seal/size=%d", n), "floor").median), v.Label)
	}
}
