package main

import (
	"fmt"
	"io"
	"text/tabwriter"
	"time"

	"github.com/blockseal/blockseal/examples/internal/cli"
)

// table is what was done and how fast, one row a step.
type table struct {
	out  io.Writer
	rows []row
}

type row struct {
	name             string
	customers, notes int
	took             time.Duration
}

func newTable(out io.Writer) *table { return &table{out: out} }

// step does something for each of some customers, with so many notes of each.
func (t *table) step(name string, customers []string, notes int, f func(customer string) error) error {
	start := time.Now()
	if err := each(customers, f); err != nil {
		return err
	}
	t.add(name, len(customers), len(customers)*notes, start)
	return nil
}

// meanwhile does one thing while f is done for each of some customers, again and again: that goes on
// until it has been done once more for all of them after the one thing.
func (t *table) meanwhile(name string, customers []string, f func(customer string) error, one func() error) error {
	start := time.Now()
	done, others := make(chan struct{}), make(chan error, 1)
	go func() {
		for last := false; !last; {
			select {
			case <-done:
				last = true
			default:
			}
			if err := each(customers, f); err != nil {
				others <- err
				return
			}
		}
		others <- nil
	}()
	err := one()
	close(done)
	if whole := <-others; err == nil && whole != nil {
		err = fmt.Errorf("%s, and another one: %w", name, whole)
	}
	if err != nil {
		return err
	}
	t.add(name, 1, 0, start)
	fmt.Fprintf(t.out, "              the other %d went on\n", len(customers))
	return nil
}

func (t *table) add(name string, customers, notes int, start time.Time) {
	t.rows = append(t.rows, row{name, customers, notes, time.Since(start)})
}

// write writes the table and what all of it has shown.
func (t *table) write(customers int) error {
	w := tabwriter.NewWriter(t.out, 0, 0, 3, ' ', tabwriter.AlignRight)
	fmt.Fprint(w, "\n\tcustomers\tnotes\tseconds\ta second\t\n")
	for _, r := range t.rows {
		n, of := r.notes, "notes"
		if n == 0 {
			n, of = r.customers, "customers"
		}
		count := cli.Count(r.notes)
		if r.notes == 0 {
			count = ""
		}
		fmt.Fprintf(w, "%s\t%s\t%s\t%.2f\t%.0f %s\t\n", r.name, cli.Count(r.customers), count, r.took.Seconds(), float64(n)/max(r.took.Seconds(), 1e-9), of)
	}
	if err := w.Flush(); err != nil {
		return err
	}
	_, err := fmt.Fprintf(t.out, `
shown
  apart       %d customers in one database, each under a key of their own
  revoked     one took their key away: their notes could not be had, and all
              others went on reading
  rotated     one has a new key version; no note was touched
  moved       one is in another database, sealed all the way
  dropped     one is gone, with a receipt
`, customers)
	return err
}
