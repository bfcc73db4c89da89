package main

import (
	"flag"
	"fmt"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"testing"

	"github.com/stretchr/testify/require"
)

var update = flag.Bool("update", false, "write the tables into the pages")

// table is one that stands in a page.
type table struct{ page, table, want string }

// The tables in the pages are what results/latest says. They stand between two comments, which
// a reader of the page does not see.
func TestPagesHaveTheMeasuredTables(t *testing.T) {
	r := newResults()
	require.NoError(t, r.readFile(filepath.Join("..", "results", "latest", "raw.txt")))
	tables := []table{{"docs/performance.md", "targets", targetsTable(r)}, {"README.md", "summary", summaryTable(r)}}
	for _, c := range aparts() {
		if c.table == "tenants" { // its own table, in bench/tenants, says more
			continue
		}
		own, err := c.read(filepath.Join("..", "results"))
		require.NoError(t, err)
		if len(own.rows) > 0 {
			tables = append(tables, table{"docs/performance.md", c.table, c.markdown(own)})
		}
		if c.table == "sealed" {
			tables = append(tables, table{"docs/performance.md", "sealed reads", sealedReadsTable(own)})
		}
	}
	for _, c := range tables {
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
	same := func(v verdict, rate float64) {
		t.Helper()
		got, err := strconv.ParseFloat(v.Measured, 64) // with more digits where it is close to its target
		require.NoError(t, err)
		require.InDelta(t, rate, got, 0.0051, v.Label)
	}
	for title, other := range map[string]string{pebbleTitle: "pebble", badgerTitle: "badger"} {
		for _, op := range storedOps() {
			same(find(t, judge(r), title, op.label), s.rate(op.name, other).median)
		}
	}
	for _, n := range sizes() {
		for _, peer := range []string{"tink", "go-kms-wrapping", "sio"} {
			v := find(t, judge(r), peerTitle, "seal and wrap "+size(n)+", beside "+label(peer))
			same(v, s.rate(fmt.Sprintf("SealWrapped/size=%d", n), peer).median)
		}
		// The chart has a rate where the table has a time: of what was measured in turns, one is
		// the other's inverse by round, so that the medians of five rounds are too.
		v := find(t, judge(r), floorTitle, "seal "+size(n))
		same(v, 1/s.rate(fmt.Sprintf("Seal/size=%d", n), "floor").median)
	}
}
