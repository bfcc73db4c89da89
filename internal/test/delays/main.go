// Command delays runs tests on a scheduler that delays at random, to find those that depend on
// who runs first or on how long anything takes:
//
//	go run ./internal/test/delays                    every package, once
//	go run ./internal/test/delays -runs 20 ./block   one of them, twenty times
//	go run ./internal/test/delays -run TestErase -race ./block
//
// It builds the tests with a Go runtime in which channel operations, go statements and locks
// sleep now and then (see overlay.go); the installed Go is not touched. A run has one
// of a few settings, from many short sleeps to few long ones, and one of 1, 2 and 8 processors;
// they take turns. A test that runs itself again as a process is delayed there too.
//
// It ends with a status other than zero if a run failed, having printed the end of what that
// printed and the command that makes such a run again. The same order of events cannot
// be had again: the delays are drawn anew.
package main

import (
	"context"
	"errors"
	"flag"
	"fmt"
	"io"
	"os"
	"os/exec"
	"os/signal"
	"path/filepath"
	"strings"
	"sync"
	"time"
)

// settings are what runs are made under, in turns: one operation in so many sleeps, for as
// long as this at the most.
var settings = []struct {
	oneIn int
	most  time.Duration
	procs int
}{
	{20_000, 60 * time.Millisecond, 2},
	{2_000, 5 * time.Millisecond, 8},
	{5_000, 20 * time.Millisecond, 1},
	{500, 500 * time.Microsecond, 2},
}

func main() {
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt)
	err := run(ctx, os.Args[1:], os.Stdout)
	stop()
	if errors.Is(err, flag.ErrHelp) {
		os.Exit(2)
	}
	if err != nil {
		fmt.Fprintln(os.Stderr, "delays:", err)
		os.Exit(1)
	}
}

type options struct {
	runs, parallel int
	test, skip     string
	race           bool
	keep           string
	timeout        time.Duration
}

func run(ctx context.Context, args []string, out io.Writer) error {
	var o options
	fs := flag.NewFlagSet("delays", flag.ContinueOnError)
	fs.IntVar(&o.runs, "runs", 1, "runs of each package")
	fs.IntVar(&o.parallel, "p", 4, "runs at a time: most of their time they sleep")
	fs.StringVar(&o.test, "run", "", "only tests that match, as go test -run")
	fs.StringVar(&o.skip, "skip", "", "no tests that match, as go test -skip")
	fs.BoolVar(&o.race, "race", false, "with the race detector")
	fs.DurationVar(&o.timeout, "timeout", time.Hour, "the longest that one run may take")
	fs.StringVar(&o.keep, "o", "", "the directory that the outputs of failed runs are kept in (default a temporary one)")
	if err := fs.Parse(args); err != nil {
		return err
	}
	patterns := fs.Args()
	if len(patterns) == 0 {
		patterns = []string{"./..."}
	}
	work, err := os.MkdirTemp("", "delays")
	if err != nil {
		return err
	}
	defer os.RemoveAll(work)
	if o.keep == "" {
		o.keep, err = os.MkdirTemp("", "delays-failed")
	} else {
		err = os.MkdirAll(o.keep, 0o700)
	}
	if err != nil {
		return err
	}
	overlay, err := writeOverlay(ctx, work)
	if err != nil {
		return err
	}
	tests, err := build(ctx, work, overlay, patterns, o.race)
	if err != nil {
		return err
	}
	failed := o.runAll(ctx, tests, out)
	if err := ctx.Err(); err != nil {
		return err
	}
	if failed > 0 {
		return fmt.Errorf("%d of %d runs failed; their outputs are in %s", failed, o.runs*len(tests), o.keep)
	}
	fmt.Fprintf(out, "%d runs of %d packages: none failed\n", o.runs*len(tests), len(tests))
	os.Remove(o.keep) // it is empty
	return nil
}

// binary is the test program of a package.
type binary struct{ pkg, dir, path string }

// build compiles the tests of the packages that have any.
func build(ctx context.Context, work, overlay string, patterns []string, race bool) ([]binary, error) {
	list, err := output(ctx, append([]string{"go", "list", "-f",
		"{{if or .TestGoFiles .XTestGoFiles}}{{.ImportPath}}\t{{.Dir}}{{end}}"}, patterns...)...)
	if err != nil {
		return nil, err
	}
	var all []binary
	for line := range strings.Lines(list) {
		pkg, dir, ok := strings.Cut(strings.TrimSpace(line), "\t")
		if !ok {
			continue
		}
		b := binary{pkg, dir, filepath.Join(work, fmt.Sprintf("%d.test", len(all)))}
		args := []string{"go", "test", "-c", "-vet=off", "-overlay", overlay, "-o", b.path}
		if race {
			args = append(args, "-race")
		}
		if _, err := output(ctx, append(args, pkg)...); err != nil {
			return nil, err
		}
		all = append(all, b)
	}
	if len(all) == 0 {
		return nil, fmt.Errorf("no package of %q has tests", patterns)
	}
	return all, nil
}

func output(ctx context.Context, args ...string) (string, error) {
	c := exec.CommandContext(ctx, args[0], args[1:]...)
	var stderr strings.Builder
	c.Stderr = &stderr
	b, err := c.Output()
	if err != nil {
		return "", fmt.Errorf("%s: %w\n%s", strings.Join(args, " "), err, stderr.String())
	}
	return string(b), nil
}

// runAll runs each package's tests as often as asked, a few at a time, the packages in turns,
// and returns how many runs failed.
func (o *options) runAll(ctx context.Context, tests []binary, out io.Writer) (failed int) {
	var (
		mu    sync.Mutex
		group sync.WaitGroup
		turns = make(chan struct{}, max(1, o.parallel))
	)
	for n := range o.runs {
		for _, b := range tests {
			turns <- struct{}{}
			if ctx.Err() != nil {
				break
			}
			group.Go(func() {
				defer func() { <-turns }()
				c, shown := o.command(ctx, b, n)
				start := time.Now()
				said, err := c.CombinedOutput()
				mu.Lock()
				defer mu.Unlock()
				took := time.Since(start).Round(time.Second)
				if err == nil {
					fmt.Fprintf(out, "ok    %s, run %d, %v\n", b.pkg, n+1, took)
					return
				}
				if ctx.Err() != nil {
					return // it was stopped
				}
				failed++
				name := filepath.Join(o.keep, fmt.Sprintf("%s-%d.txt", strings.ReplaceAll(b.pkg, "/", "_"), n+1))
				if err := os.WriteFile(name, said, 0o600); err != nil {
					name = err.Error()
				}
				fmt.Fprintf(out, "FAILED %s, run %d, %v: %v\n%s\n  whole: %s\n  again: %s\n", b.pkg, n+1, took, err, tail(said, 40), name, shown)
			})
		}
	}
	group.Wait()
	return failed
}

// command is the n-th run of a package, and what a person types to have such a run again.
func (o *options) command(ctx context.Context, b binary, n int) (c *exec.Cmd, shown string) {
	s := settings[n%len(settings)]
	setting := fmt.Sprintf("%s=%d:%d", variable, s.oneIn, s.most.Microseconds())
	args := []string{"-test.timeout", o.timeout.String(), "-test.cpu", fmt.Sprint(s.procs)}
	again := fmt.Sprintf("go run ./internal/test/delays -runs %d", n+1)
	if o.test != "" {
		args = append(args, "-test.run", o.test)
		again += fmt.Sprintf(" -run '%s'", o.test)
	}
	if o.skip != "" {
		args = append(args, "-test.skip", o.skip)
		again += fmt.Sprintf(" -skip '%s'", o.skip)
	}
	if o.race {
		again += " -race"
	}
	c = exec.CommandContext(ctx, b.path, args...)
	c.Dir = b.dir // where go test runs them
	c.Env = append(os.Environ(), setting)
	return c, fmt.Sprintf("%s %s   (this one: %s, %d processors)", again, b.pkg, setting, s.procs)
}

// tail returns the last n lines.
func tail(b []byte, n int) string {
	lines := strings.Split(strings.TrimRight(string(b), "\n"), "\n")
	return strings.Join(lines[max(0, len(lines)-n):], "\n")
}
