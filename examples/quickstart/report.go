package main

import (
	"fmt"
	"io"
	"text/tabwriter"
	"time"

	"github.com/blockseal/blockseal/examples/internal/cli"
	"github.com/blockseal/blockseal/keyring"
)

// table is what was done and how fast, one row a step.
type table struct {
	out  io.Writer
	rows []row
}

type row struct {
	name  string
	count int // of blocks, or of files
	bytes int64
	took  time.Duration
}

func newTable(out io.Writer) *table { return &table{out: out} }

// step is one step under way.
type step struct {
	*table
	name  string
	begun time.Time
	line  *cli.Line
}

func (t *table) step(name string) *step {
	return &step{table: t, name: name, begun: time.Now(), line: cli.NewLine(t.out)}
}

// progress shows how much is done.
func (s *step) progress(done, total int64) {
	s.line.Show(func() string {
		return fmt.Sprintf("%-13s %s %s of %s, %.0f MB/s", s.name, cli.Bar(done, total),
			cli.MB(done), cli.MB(total), rate(done, time.Since(s.begun))/1e6)
	})
}

// done ends the step.
func (s *step) done(count int, bytes int64, format string, args ...any) {
	s.rows = append(s.rows, row{s.name, count, bytes, time.Since(s.begun)})
	s.line.End("%-13s %s", s.name, fmt.Sprintf(format, args...))
}

// clear takes back the progress of a step that did not end.
func (s *step) clear() { s.line.Clear() }

// thousands writes a number with its thousands apart.
func thousands(n int) string { return cli.Count(n) }

// rate is so much a second.
func rate[N int | int64](n N, took time.Duration) float64 {
	return float64(n) / max(took.Seconds(), 1e-9)
}

// write writes the table, with the calls to the vault of both times that the store
// was open, what all of it has shown, and what to try next.
func (t *table) write(blocks int, first, second keyring.Calls) error {
	w := tabwriter.NewWriter(t.out, 0, 0, 3, ' ', tabwriter.AlignRight)
	fmt.Fprint(w, "\n\tblocks\tMB\tseconds\tblocks/s\tMB/s\t\n")
	for _, r := range t.rows {
		count, each := cli.Count(r.count), cli.Count(int(rate(r.count, r.took)))
		if r.name == "search" {
			count, each = "", "" // it goes through files, on the disk and of the input
		}
		fmt.Fprintf(w, "%s\t%s\t%.1f\t%.2f\t%s\t%.0f\t\n", r.name, count, float64(r.bytes)/1e6, r.took.Seconds(), each, rate(r.bytes, r.took)/1e6)
	}
	if err := w.Flush(); err != nil {
		return err
	}
	get, wrap, unwrap := first.Get+second.Get, first.Wrap+second.Wrap, first.Unwrap+second.Unwrap
	fmt.Fprintf(t.out, "\nvault calls   get %d, wrapKey %d, unwrapKey %d; %d of them refused\n", get, wrap, unwrap, first.Failed+second.Failed)
	return t.shown(blocks, get+wrap+unwrap)
}

// shown writes what the run has shown, one claim a row, and what to try next.
func (t *table) shown(blocks int, calls uint64) error {
	_, err := fmt.Fprintf(t.out, `
shown
  sealed      %s blocks, each under its own DEK
  intact      all of them read back with the SHA-256 that they had
  unreadable  no plaintext on the disk, of the store or of the vault
  revoked     with the KEK disabled, no Get and no Put
  given back  with the KEK enabled, all of them again
  cheap       %d calls to the vault in all, however many blocks

try next
  go run ./examples/hello           the least program, to copy
  go run ./examples/quickstart -in DIR -keep
                                    your own files, and what is kept to look at
  go run ./examples/drill           every way of losing a key, under load
  go run ./examples/customdb        tables, indexes and transactions
  go run ./examples/pages           a page file of your own
  go run ./examples/tenants         many customers, each with a key of their own
  go run ./examples/azure -emulate  Azure Key Vault, without an account
  go run ./examples/monitoring      metrics, a status page, alerts
  docs/operations.md                what to do when something happens
`, cli.Count(blocks), calls)
	return err
}
