// Package cli is what the examples share as commands: signals, exit statuses,
// flags, and a line that shows progress on a terminal.
package cli

import (
	"context"
	"errors"
	"flag"
	"fmt"
	"io"
	"os"
	"os/signal"
	"syscall"
)

// ErrUsage says that the command line cannot be right.
var ErrUsage = errors.New("run with -h for the flags")

// Main runs a command and ends the process: with status 0, 1 after an error, 2
// after [ErrUsage], or 128 plus the signal's number. An error is one line on
// standard error.
//
// The first signal to stop ends ctx, so that run can clean up; a second one ends
// the process at once.
func Main(name string, run func(ctx context.Context, args []string, out io.Writer) error) {
	ctx := untilSignal()
	err := run(ctx, os.Args[1:], os.Stdout)
	os.Exit(finish(ctx, name, err, os.Stderr))
}

// stopped is the cause of a context that a signal has ended.
type stopped struct{ signal os.Signal }

func (s stopped) Error() string { return "stopped by a signal: " + s.signal.String() }

func untilSignal() context.Context {
	var stops []os.Signal
	for _, s := range []os.Signal{os.Interrupt, syscall.SIGTERM, syscall.SIGHUP} {
		// What whoever started the process has it ignore stays ignored: nohup.
		if !signal.Ignored(s) {
			stops = append(stops, s)
		}
	}
	signals := make(chan os.Signal, 1)
	// A reader that closes its end of standard output is a reason to stop as well,
	// and must not end the process before it has cleaned up.
	signal.Notify(signals, append(stops, syscall.SIGPIPE)...)
	ctx, cancel := context.WithCancelCause(context.Background())
	go func() {
		cancel(stopped{<-signals})
		if len(stops) > 0 { // none would mean all
			signal.Reset(stops...)
		}
	}()
	return ctx
}

// finish reports how run ended and returns the process's exit status.
func finish(ctx context.Context, name string, err error, stderr io.Writer) int {
	var s stopped
	switch {
	case err == nil, errors.Is(err, flag.ErrHelp):
		return 0
	case errors.As(context.Cause(ctx), &s):
		fmt.Fprintf(stderr, "%s: %v\n", name, s)
		if n, ok := s.signal.(syscall.Signal); ok {
			return 128 + int(n)
		}
		return 1
	case errors.Is(err, ErrUsage):
		fmt.Fprintf(stderr, "%s: %v\n", name, err)
		return 2
	}
	fmt.Fprintf(stderr, "%s: %v\n", name, err)
	return 1
}

// Parse parses a command line that has flags and nothing else. With -h it writes
// about, then the flags, to out, and returns [flag.ErrHelp].
func Parse(flags *flag.FlagSet, about string, args []string, out io.Writer) error {
	flags.SetOutput(io.Discard) // the error says it, in one line
	err := flags.Parse(args)
	switch {
	case errors.Is(err, flag.ErrHelp):
		fmt.Fprintf(out, "%s\n", about)
		flags.SetOutput(out)
		flags.PrintDefaults()
		return err
	case err != nil:
		return fmt.Errorf("%w; %w", err, ErrUsage)
	case flags.NArg() > 0:
		return fmt.Errorf("unexpected argument %q; %w", flags.Arg(0), ErrUsage)
	}
	return nil
}
