package main

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"time"

	"github.com/schollz/progressbar/v3"
)

// runAll runs the benchmarks of the package in dir and writes their output to a file as
// it comes. That a benchmark fails, or that ctx ends, is noted there and is no error.
func runAll(ctx context.Context, o options, dir, file string, progress io.Writer) (err error) {
	scratch, err := os.MkdirTemp("", "blockseal-report-")
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, os.RemoveAll(scratch)) }()
	r := &runner{options: o, dir: dir, scratch: scratch, binary: filepath.Join(scratch, "bench.test"), progress: progress}
	names, err := r.build(ctx)
	if err != nil {
		return err
	}
	f, err := os.Create(file)
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, f.Close()) }()
	r.raw = f
	return r.rounds(ctx, names)
}

type runner struct {
	options
	dir, scratch, binary string
	progress, raw        io.Writer
	stopped              bool
}

// build compiles the benchmarks and returns their names.
func (r *runner) build(ctx context.Context) ([]string, error) {
	fmt.Fprintln(r.progress, "building the benchmarks")
	cmd := exec.CommandContext(ctx, "go", "test", "-c", "-o", r.binary, ".")
	cmd.Dir = r.dir
	if out, err := cmd.CombinedOutput(); err != nil {
		return nil, fmt.Errorf("build the benchmarks: %w\n%s", err, out)
	}
	top, _, _ := strings.Cut(r.bench, "/") // -test.list knows functions only
	cmd = exec.CommandContext(ctx, r.binary, "-test.list", top)
	cmd.Dir = r.dir
	list, err := cmd.Output()
	if err != nil {
		return nil, fmt.Errorf("list the benchmarks: %w", err)
	}
	var names []string
	for name := range strings.FieldsSeq(string(list)) {
		if strings.HasPrefix(name, "Benchmark") {
			names = append(names, name)
		}
	}
	if len(names) == 0 {
		return nil, fmt.Errorf("no benchmark matches %q", r.bench)
	}
	return names, nil
}

func (r *runner) rounds(ctx context.Context, names []string) error {
	terminal := isTerminal(r.progress)
	total := r.options.rounds * len(names)
	bar := progressbar.NewOptions(total, progressbar.OptionSetWriter(r.progress), progressbar.OptionShowCount(),
		progressbar.OptionSetPredictTime(true), progressbar.OptionSetVisibility(terminal), progressbar.OptionFullWidth())
	if r.quick {
		if _, err := fmt.Fprintln(r.raw, markQuick); err != nil {
			return err
		}
	}
	done := 0
	for round := range r.options.rounds {
		if _, err := fmt.Fprintf(r.raw, "%s%d\n", markRound, round+1); err != nil {
			return err
		}
		for _, name := range names {
			if !terminal {
				fmt.Fprintf(r.progress, "%d of %d, round %d: %s\n", done+1, total, round+1, name)
			}
			bar.Describe(fmt.Sprintf("round %d of %d %s", round+1, r.options.rounds, strings.TrimPrefix(name, "Benchmark")))
			if err := r.one(ctx, name); err != nil {
				return err
			}
			if ctx.Err() != nil || r.stopped {
				_, err := fmt.Fprintf(r.raw, "%s after %d of %d\n", markInterrupted, done, total)
				return err
			}
			done++
			_ = bar.Add(1) // its only error is one of drawing it
		}
	}
	if terminal {
		fmt.Fprintln(r.progress)
	}
	return nil
}

// one runs a benchmark in a process of its own and notes if it fails. Its temporary files
// go where they are removed even if it is killed.
func (r *runner) one(ctx context.Context, name string) error {
	pattern := "^" + name + "$"
	if _, sub, ok := strings.Cut(r.bench, "/"); ok {
		pattern += "/" + sub
	}
	args := []string{"-test.run", "^$", "-test.bench", pattern, "-test.benchtime", r.timeFor(name), "-test.timeout", "30m"}
	if r.quick {
		args = append(args, "-test.short")
	}
	var out bytes.Buffer
	cmd := exec.CommandContext(ctx, r.binary, args...)
	cmd.Dir, cmd.Stdout, cmd.Stderr, cmd.WaitDelay = r.dir, &out, &out, 5*time.Second
	cmd.Env = append(os.Environ(), "TMPDIR="+r.scratch)
	failure := cmd.Run()
	if b := out.Bytes(); len(b) > 0 && b[len(b)-1] != '\n' {
		out.WriteByte('\n') // what follows is a line of its own
	}
	// An interrupt at the terminal reaches the benchmark too, perhaps before it does ctx.
	if failure != nil && failure.Error() == "signal: interrupt" {
		r.stopped = true
	}
	if failure != nil && ctx.Err() == nil && !r.stopped {
		fmt.Fprintf(&out, "%s%s: %v\n", markFailed, name, failure)
	}
	_, err := r.raw.Write(out.Bytes())
	return err
}

// timeFor is how long a benchmark runs: one that waits for the disk at each operation has
// few of them, and takes five times as long; so does one that is to see tails and collections.
func (r *runner) timeFor(name string) string {
	if d, err := time.ParseDuration(r.benchtime); err == nil && (name == "BenchmarkPutSync" || name == "BenchmarkMixed") && !r.quick {
		return (5 * d).String()
	}
	return r.benchtime
}

func isTerminal(w io.Writer) bool {
	f, ok := w.(*os.File)
	if !ok {
		return false
	}
	info, err := f.Stat()
	return err == nil && info.Mode()&os.ModeCharDevice != 0
}
