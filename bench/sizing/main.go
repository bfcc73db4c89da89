// Sizing measures how a store grows with the number of its blocks, and computes from that
// what large ones need:
//
//	go -C bench run ./sizing             # 10 million blocks, some minutes, 4 GB of disk
//	go -C bench run ./sizing -quick      # 100,000 blocks, to see that all is there
//	go -C bench run ./sizing -in results/sizing.json -out results/sizing.json -load 100000000
//
// The last loads stores of up to 100 million blocks, some 20 GB of disk, and keeps the rest of the
// file. It prints tables in Markdown: what was measured, the slopes, and memory, disk and vault
// calls for 16 TB. What lies beyond the largest store that was measured is an
// extrapolation, and labelled so.
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
		fmt.Fprintln(os.Stderr, "sizing:", err)
		os.Exit(2)
	}
	fmt.Fprintln(os.Stderr, "sizing:", err)
	os.Exit(1)
}

var errUsage = errors.New("run with -h for the flags")

type options struct {
	blocks, size int
	load         int
	payload      int64
	dir, out, in string
}

func parse(args []string, out io.Writer) (o options, err error) {
	flags := flag.NewFlagSet("sizing", flag.ContinueOnError)
	flags.SetOutput(io.Discard)
	flags.IntVar(&o.blocks, "blocks", 10_000_000, "the largest `number` of blocks")
	flags.IntVar(&o.size, "size", 64, "the `bytes` of each of them")
	flags.IntVar(&o.load, "load", 10_000_000, "the largest `number` of blocks to load into a store and to look up; with -in they are loaded if it is given")
	flags.Int64Var(&o.payload, "payload", 256<<20, "the `bytes` to write in blocks of 4, 16 and 64 KiB each")
	flags.StringVar(&o.dir, "dir", "", "the `directory` to work in (default: a temporary one)")
	flags.StringVar(&o.out, "out", "", "keep the measurements in this `file`, as JSON")
	flags.StringVar(&o.in, "in", "", "take the measurements from this `file`, and measure nothing but what -load says")
	quick := flags.Bool("quick", false, "100,000 blocks, and 16 MiB of each size")
	switch err := flags.Parse(args); {
	case errors.Is(err, flag.ErrHelp):
		fmt.Fprintln(out, "Sizing measures how a store grows, and computes what large ones need.")
		flags.SetOutput(out)
		flags.PrintDefaults()
		return o, err
	case err != nil:
		return o, fmt.Errorf("%w; %w", err, errUsage)
	case flags.NArg() > 0:
		return o, fmt.Errorf("unexpected argument %q; %w", flags.Arg(0), errUsage)
	}
	if *quick {
		o.blocks, o.load, o.payload = 100_000, 100_000, 16<<20
	}
	if o.in != "" && !given(flags, "load") {
		o.load = 0
	}
	if o.load < 0 || o.in == "" && o.load < 1 || o.blocks < 1000 || o.size < 0 || o.payload < 1<<20 {
		return o, fmt.Errorf("-blocks must be at least 1000, -load at least 1 and -payload at least 1 MiB; %w", errUsage)
	}
	return o, nil
}

func given(flags *flag.FlagSet, name string) (yes bool) {
	flags.Visit(func(f *flag.Flag) { yes = yes || f.Name == name })
	return yes
}

func run(ctx context.Context, args []string, out, progress io.Writer) error {
	o, err := parse(args, out)
	if err != nil {
		return err
	}
	var m measurements
	if o.in != "" {
		b, err := os.ReadFile(o.in)
		if err != nil {
			return err
		}
		if err := json.Unmarshal(b, &m); err != nil {
			return fmt.Errorf("read %s: %w", o.in, err)
		}
	} else if m, err = measure(ctx, o, progress); err != nil {
		return err
	}
	if o.load > 0 {
		if m.Loaded, err = measureLoaded(ctx, o.dir, o.load, o.size, progress); err != nil {
			return err
		}
	}
	if o.out != "" {
		b, err := json.MarshalIndent(m, "", "\t")
		if err != nil {
			return err
		}
		if err := os.WriteFile(o.out, append(b, '\n'), 0o644); err != nil {
			return err
		}
	}
	return m.write(out)
}
