// Runbooks tries the runbooks of docs/operations.md:
//
//	go run ./internal/test/runbooks
//
// It builds examples/operator and runs the sh blocks of each section of the part
// "Runbooks", one after the other, with bash -eu in a fresh directory, after the
// blocks of "First set-up". A command that must fail is written
//
//	operator store get s greeting || [ $? = 3 ]
//
// and must end with that very status. What a text block shows must be in the output of
// the section's own commands.
// It prints a line for each runbook, the output of one that fails, and ends with
// status 1 if one does, if a section has no block, or if a runbook is missing.
package main

import (
	"context"
	"errors"
	"flag"
	"fmt"
	"io"
	"os"
	"os/signal"
	"regexp"
	"time"
)

func main() {
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt)
	err := run(ctx, os.Args[1:], os.Stdout)
	stop()
	switch {
	case errors.Is(err, flag.ErrHelp):
	case err != nil:
		fmt.Fprintln(os.Stderr, "runbooks:", err)
		os.Exit(1)
	}
}

func run(ctx context.Context, args []string, out io.Writer) (err error) {
	flags := flag.NewFlagSet("runbooks", flag.ContinueOnError)
	doc := flags.String("doc", "docs/operations.md", "the `document`")
	tool := flags.String("tool", "./examples/operator", "the `package` of the tool")
	match := flags.String("run", "", "only the runbooks whose title matches this `regexp`")
	verbose := flags.Bool("v", false, "show each command and what it writes")
	if err := flags.Parse(args); err != nil {
		return err
	}
	only, err := regexp.Compile(*match)
	if err != nil {
		return fmt.Errorf("-run: %w", err)
	}
	text, err := os.ReadFile(*doc)
	if err != nil {
		return err
	}
	books, err := parse(string(text))
	if err != nil {
		return fmt.Errorf("%s:\n%w", *doc, err)
	}
	b, err := newBench(ctx, *tool)
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, b.close()) }()
	return tryAll(ctx, b, books, only, *verbose, out)
}

// tryAll tries the books that match, and says what became of each.
func tryAll(ctx context.Context, b *bench, books []runbook, only *regexp.Regexp, verbose bool, out io.Writer) error {
	var failed, tried int
	for i, book := range books {
		if !only.MatchString(book.title) {
			continue
		}
		tried++
		scripts := [][]string{book.marked()}
		if i > 0 {
			scripts = [][]string{books[0].script, book.marked()}
		}
		start := time.Now()
		output, err := b.try(ctx, verbose, scripts...)
		if err == nil {
			err = book.missing(output)
		}
		result := "ok"
		if err != nil {
			failed++
			result = "FAILED"
		}
		fmt.Fprintf(out, "%-6s  %-26s  %5.1f s\n", result, book.title, time.Since(start).Seconds())
		if err != nil || verbose {
			fmt.Fprintf(out, "%s", output)
		}
		if err != nil {
			fmt.Fprintf(out, "%v\n", err)
		}
		if ctx.Err() != nil {
			return ctx.Err()
		}
	}
	switch {
	case tried == 0:
		return fmt.Errorf("no runbook matches %q", only)
	case failed > 0:
		return fmt.Errorf("%d of %d runbooks failed", failed, tried)
	}
	return nil
}
