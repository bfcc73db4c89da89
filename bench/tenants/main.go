// Tenants measures many stores in one block.DB:
//
//	go -C bench run ./tenants            # 10,000 stores, some minutes, 1 GB of disk
//	go -C bench run ./tenants -quick     # 300 stores, to see that all is there
//
// It prints tables in Markdown: how fast stores are created, what a DB with many takes to open
// beside one with a single store, what a store takes in memory, what Put and Get cost when they are
// spread over many stores, how a restart goes in which many are asked for at once, and what
// dropping one costs. What is compared is measured in turns, in one process.
package main

import (
	"context"
	"encoding/json"
	"errors"
	"flag"
	"fmt"
	"io"
	"os"
	"os/signal"
)

func main() {
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt)
	defer stop()
	err := run(ctx, os.Args[1:], os.Stdout, os.Stderr)
	switch {
	case err == nil, errors.Is(err, flag.ErrHelp):
		return
	case errors.Is(err, errUsage):
		fmt.Fprintln(os.Stderr, "tenants:", err)
		os.Exit(2)
	}
	fmt.Fprintln(os.Stderr, "tenants:", err)
	os.Exit(1)
}

var errUsage = errors.New("run with -h for the flags")

type options struct {
	stores, open   int
	rounds, turn   int
	only           string
	dir, out, from string
}

func parse(args []string, out io.Writer) (o options, err error) {
	flags := flag.NewFlagSet("tenants", flag.ContinueOnError)
	flags.SetOutput(io.Discard)
	flags.IntVar(&o.stores, "stores", 10_000, "the `number` of stores in the DB")
	flags.IntVar(&o.open, "open", 1000, "the `number` of them that are open at once")
	flags.IntVar(&o.rounds, "rounds", 5, "the `number` of rounds of what is measured in turns")
	flags.IntVar(&o.turn, "turn", 10_000, "the `number` of Gets, or of Puts that are not synced, in a turn")
	flags.StringVar(&o.only, "only", "", "measure this `part` alone, and print it as JSON: create, opendb, memory, use, restart, drop")
	flags.StringVar(&o.dir, "dir", "", "the `directory` to work in (default: a temporary one)")
	flags.StringVar(&o.out, "out", "", "keep the measurements in this `file`, as JSON")
	flags.StringVar(&o.from, "in", "", "take the measurements from this `file`, and measure nothing")
	quick := flags.Bool("quick", false, "300 stores, 50 of them open, 2 rounds")
	switch err := flags.Parse(args); {
	case errors.Is(err, flag.ErrHelp):
		fmt.Fprintln(out, "Tenants measures many stores in one DB.")
		flags.SetOutput(out)
		flags.PrintDefaults()
		return o, err
	case err != nil:
		return o, fmt.Errorf("%w; %w", err, errUsage)
	case flags.NArg() > 0:
		return o, fmt.Errorf("unexpected argument %q; %w", flags.Arg(0), errUsage)
	}
	if *quick {
		o.stores, o.open, o.rounds, o.turn = 300, 50, 2, 200
	}
	if o.open < 10 || o.stores < 3*o.open || o.rounds < 1 || o.turn < 1 {
		return o, fmt.Errorf("-open must be at least 10, -stores three times that, -rounds and -turn at least 1; %w", errUsage)
	}
	if o.only != "" && o.part(o.only) == nil {
		return o, fmt.Errorf("there is no part %q to measure; %w", o.only, errUsage)
	}
	return o, nil
}

func run(ctx context.Context, args []string, out, progress io.Writer) error {
	o, err := parse(args, out)
	if err != nil {
		return err
	}
	var m measurements
	if o.from != "" {
		b, err := os.ReadFile(o.from)
		if err != nil {
			return err
		}
		if err := json.Unmarshal(b, &m); err != nil {
			return fmt.Errorf("read %s: %w", o.from, err)
		}
	} else if m, err = measure(ctx, o, progress); err != nil {
		return err
	}
	b, err := json.MarshalIndent(m, "", "\t")
	if err != nil {
		return err
	}
	if o.out != "" {
		if err := os.WriteFile(o.out, append(b, '\n'), 0o644); err != nil {
			return err
		}
	}
	if o.only != "" {
		_, err := fmt.Fprintf(out, "%s\n", b)
		return err
	}
	return m.write(out)
}
