package main

import (
	"fmt"
	"io"
	"text/tabwriter"
	"time"

	"github.com/blockseal/blockseal/examples/internal/cli"
)

// round makes a duration readable.
func round(d time.Duration) time.Duration {
	if d.Abs() < 10*time.Second {
		return d.Round(10 * time.Millisecond)
	}
	return d.Round(time.Second)
}

// after is how long the store stayed accessible.
func (r result) after() string {
	if r.reason == nil {
		return "never"
	}
	return round(r.inaccessible).String()
}

// write writes what one rehearsal has shown.
func (r result) write(out io.Writer) {
	fmt.Fprintf(out, "\n%s\n", r.name)
	line := func(what, format string, args ...any) {
		fmt.Fprintf(out, "  %-20s%s\n", what, fmt.Sprintf(format, args...))
	}
	line("Inaccessible after", "%s", r.after())
	if r.reason != nil {
		line("reason", "%v", r.reason)
	}
	line("refused", "%s reads, %s writes", cli.Count(r.refused[read]), cli.Count(r.refused[write]))
	if r.degraded > 0 {
		line("served", "%s operations while Degraded", cli.Count(r.degraded))
	}
	line("recovered after", "%v", round(r.recovered))
	line("read back", "%s acknowledged blocks", cli.Count(r.readBack))
}

// writeTable writes all rehearsals, one a row: after which time the store was Inaccessible,
// the time that it may take, what was refused, and after which time it was back.
func writeTable(out io.Writer, results []result) {
	w := tabwriter.NewWriter(out, 0, 0, 3, ' ', tabwriter.AlignRight)
	fmt.Fprint(w, "\n\tlocked\tat most\trefused\tback\t\n")
	for _, r := range results {
		fmt.Fprintf(w, "%s\t%s\t%v\t%s\t%v\t\n", r.name, r.after(), round(r.within),
			cli.Count(r.refused[read]+r.refused[write]), round(r.recovered))
	}
	w.Flush()
}

// verdict writes the violations, if any, and returns an error that counts them.
func (l *load) verdict(out io.Writer) error {
	l.mu.Lock()
	defer l.mu.Unlock()
	n := len(l.violations) + l.more
	if n == 0 {
		fmt.Fprintln(out, "nothing was read or acknowledged while the store was Inaccessible, and nothing acknowledged was lost")
		return nil
	}
	fmt.Fprintln(out)
	for _, v := range l.violations {
		fmt.Fprintf(out, "VIOLATION  %s\n", v)
	}
	return fmt.Errorf("%d violations of what the store promises", n)
}
