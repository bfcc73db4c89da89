// Report runs the benchmarks and makes a page and charts of them:
//
//	go -C bench run ./report           # results/latest
//	go -C bench run ./report -quick    # one short round, to see that all is there
//
// Each benchmark runs in a process of its own, all of them once a round, so that what is
// compared is never far apart in time. A ratio is taken within a round, and within a
// benchmark if it was measured in turns with its baseline, where it is the median over the
// pairs of turns; what is reported is the median over the rounds, with the lowest and the highest.
//
// It writes raw.txt, which benchstat reads, machine.txt, the charts as PNG, and
// index.html, which is complete in itself. With -in it runs nothing and makes the page
// from raw output.
package main

import (
	"context"
	"errors"
	"flag"
	"fmt"
	"io"
	"os"
	"os/signal"
	"path/filepath"
	"regexp"
	"strings"
	"time"
)

func main() {
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt)
	// A second interrupt ends the program at once.
	context.AfterFunc(ctx, stop)
	err := run(ctx, os.Args[1:], ".", os.Stdout, os.Stderr)
	stop()
	switch {
	case err == nil, errors.Is(err, flag.ErrHelp):
		return
	case errors.Is(err, errUsage):
		fmt.Fprintln(os.Stderr, "report:", err)
		os.Exit(2)
	}
	fmt.Fprintln(os.Stderr, "report:", err)
	os.Exit(1)
}

var errUsage = errors.New("run with -h for the flags")

type options struct {
	quick     bool
	rounds    int
	benchtime string
	bench     string
	out       string
	in        []string
	args      []string // as given, for the record
}

func parseFlags(args []string, out io.Writer) (o options, err error) {
	o.args = args
	flags := flag.NewFlagSet("report", flag.ContinueOnError)
	flags.SetOutput(io.Discard)
	flags.BoolVar(&o.quick, "quick", false, "one round, -benchtime 50ms and -short: to see that all is there, not for figures to quote")
	flags.IntVar(&o.rounds, "rounds", 5, "how many `times` everything runs")
	flags.StringVar(&o.benchtime, "benchtime", "300ms", "the `time` for each benchmark in each round, or a count as in 100x")
	flags.StringVar(&o.bench, "bench", ".", "the benchmarks whose names match this `expression`")
	flags.StringVar(&o.out, "out", filepath.Join("results", "latest"), "the `directory` for the results")
	flags.Func("in", "make the page from this `file` of raw output, and run nothing; may be repeated", func(s string) error {
		o.in = append(o.in, s)
		return nil
	})
	switch err := flags.Parse(args); {
	case errors.Is(err, flag.ErrHelp):
		fmt.Fprintln(out, "Report runs the benchmarks and makes a page and charts of them.")
		flags.SetOutput(out)
		flags.PrintDefaults()
		return o, err
	case err != nil:
		return o, fmt.Errorf("%w; %w", err, errUsage)
	case flags.NArg() > 0:
		return o, fmt.Errorf("unexpected argument %q; %w", flags.Arg(0), errUsage)
	}
	if o.quick {
		given := map[string]bool{}
		flags.Visit(func(f *flag.Flag) { given[f.Name] = true })
		if !given["rounds"] {
			o.rounds = 1
		}
		if !given["benchtime"] {
			o.benchtime = "50ms"
		}
	}
	if d, err := time.ParseDuration(o.benchtime); (err != nil || d <= 0) && !regexp.MustCompile(`^[1-9][0-9]*x$`).MatchString(o.benchtime) {
		return o, fmt.Errorf("-benchtime %q is neither a time nor a count; %w", o.benchtime, errUsage)
	}
	if o.rounds < 1 {
		return o, fmt.Errorf("-rounds must be more than 0; %w", errUsage)
	}
	if _, err := regexp.Compile(o.bench); err != nil {
		return o, fmt.Errorf("-bench: %w; %w", err, errUsage)
	}
	return o, nil
}

// run is the program. The benchmarks are those of the package in dir.
func run(ctx context.Context, args []string, dir string, out, progress io.Writer) error {
	o, err := parseFlags(args, out)
	if err != nil {
		return err
	}
	if err := os.MkdirAll(o.out, 0o755); err != nil {
		return err
	}
	in, machine := o.in, ""
	if len(in) > 0 {
		machine = machinesBeside(in)
	} else {
		machine = describeMachine(ctx, o)
		if err := os.WriteFile(filepath.Join(o.out, "machine.txt"), []byte(machine), 0o644); err != nil {
			return err
		}
		raw := filepath.Join(o.out, "raw.txt")
		if err := runAll(ctx, o, dir, raw, progress); err != nil {
			return err
		}
		in = []string{raw}
	}
	data := newResults()
	for _, name := range in {
		if err := data.readFile(name); err != nil {
			return err
		}
	}
	var extra []verdicts
	var drawnBeside []chart
	for _, c := range aparts() {
		r, err := c.read(filepath.Join(dir, "results"))
		if err != nil {
			return err
		}
		if len(r.rows) > 0 {
			extra = append(extra, c.judge(r))
		}
		drawnBeside = append(drawnBeside, chart{c.chart, c.caption, func(*source) (panel, bool) { return c.draw(&source{results: r}) }})
	}
	p := newPage(data, machine, extra...)
	if p.Charts, p.Missing, err = drawAll(data, o.out, drawnBeside...); err != nil {
		return err
	}
	index := filepath.Join(o.out, "index.html")
	if err := p.write(index); err != nil {
		return err
	}
	for _, g := range p.Groups {
		fmt.Fprintf(out, "%s\n", g.Title)
		for _, v := range g.Verdicts {
			fmt.Fprintf(out, "  %-8s %-58s %8s  (target %s)\n", v.Verdict, v.Label, v.Measured, v.Want)
		}
	}
	fmt.Fprintf(out, "%s\n%s\n", p.Tally, index)
	switch {
	case len(data.failed) > 0:
		return fmt.Errorf("these benchmarks failed: %s; their output is in the raw results", strings.Join(data.failed, ", "))
	case data.interrupted:
		return errors.New("interrupted: the page is made from what there was")
	case len(data.rows) == 0:
		return fmt.Errorf("no results in %s", strings.Join(in, ", "))
	}
	return nil
}
