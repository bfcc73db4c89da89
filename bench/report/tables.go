package main

import (
	"fmt"
	"strings"
)

// targetsTable is the table of docs/performance.md, in Markdown.
func targetsTable(r *results) string {
	var b strings.Builder
	b.WriteString("| ratio | target | at first | measured | bound | |\n|---|---|---|---|---|---|\n")
	for _, g := range judge(r) {
		fmt.Fprintf(&b, "| **%s** | | | | | |\n", g.Title)
		for _, v := range g.Verdicts {
			fmt.Fprintf(&b, "| %s | %s | %s | %s | %s | %s |\n", v.Label, v.Want, v.First, v.Measured, v.Bound, v.Verdict)
		}
	}
	return b.String()
}

// summaryTable is the table of README.md, in Markdown: the same comparisons, by block size.
func summaryTable(r *results) string {
	of := map[string]verdict{}
	for _, g := range judge(r) {
		for _, v := range g.Verdicts {
			of[g.Title+": "+v.Label] = v
		}
	}
	var b strings.Builder
	b.WriteString("|")
	for _, n := range sizes() {
		b.WriteString(" | " + size(n))
	}
	b.WriteString(" |\n|---" + strings.Repeat("|---", len(sizes())) + "|\n")
	row := func(name, group, label string) {
		fmt.Fprintf(&b, "| %s |", name)
		for _, n := range sizes() {
			// A comparison that was not made at this size is an empty cell.
			if v := of[group+": "+fmt.Sprintf(label, size(n))].Measured; v != "" {
				b.WriteString(" " + v)
			}
			b.WriteString(" |")
		}
		b.WriteString("\n")
	}
	row("seal a block, **time** in times of the floor's", floorTitle, "seal %s")
	for _, peer := range []string{"tink", "go-kms-wrapping", "sio"} {
		row("seal a block, **rate** in times of "+label(peer)+"'s", peerTitle, "seal and wrap %s, beside "+label(peer))
	}
	for _, op := range []struct{ name, label string }{
		{"Put, synced", "Put %s, synced, batch of 1"}, {"Put, not synced", "Put %s, not synced"},
		{"Get, hot", "Get %s, hot, 1 goroutine"}, {"scan", "scan, %s"},
	} {
		row(op.name+", rate in times of plain Pebble's", pebbleTitle, op.label)
		row(op.name+", rate in times of encrypted Badger's", badgerTitle, op.label)
	}
	return b.String()
}
