// Command fuzzall runs every fuzz target of the module, one after the other, and prints
// what each did: executions, inputs that reached new code, and findings.
//
//	go run ./internal/test/fuzzall -time 1m
//	go run ./internal/test/fuzzall -time 10s -run 'Document|Record' -keep 20
//
// A finding is written by go test to testdata/fuzz of the package, where it is a test
// case from then on; fuzzall then ends with status 1. With -keep the corpus that is
// kept beside the code grows by inputs that reached new code.
package main

import (
	"bytes"
	"context"
	"flag"
	"fmt"
	"io"
	"os"
	"os/exec"
	"os/signal"
	"path/filepath"
	"regexp"
	"strconv"
	"strings"
	"time"
)

func main() {
	each := flag.String("time", "1m", "how long each target runs, or how many inputs it is given (1000x)")
	run := flag.String("run", "", "run the targets that this regular expression matches (empty: all)")
	keep := flag.Int("keep", 0, "keep at most this many inputs a target, the shortest, in testdata/fuzz")
	pkgs := flag.String("packages", "./...", "the packages to look for targets in")
	flag.Parse()
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt)
	defer stop()
	if err := campaign(ctx, os.Stdout, *pkgs, *run, *each, *keep); err != nil {
		fmt.Fprintln(os.Stderr, "fuzzall:", err)
		os.Exit(1)
	}
}

// target is a fuzz target and what became of it.
type target struct {
	pkg, dir, name string
	execs, new     uint64
	inputs         int // in the corpus: seeds and what was found by now
	took           time.Duration
	failed         bool
	output         string
}

// campaign runs all targets and prints a line for each and a sum.
func campaign(ctx context.Context, out io.Writer, pkgs, run, each string, keep int) error {
	match, err := regexp.Compile(run)
	if err != nil {
		return err
	}
	targets, err := list(ctx, pkgs, match)
	if err != nil {
		return err
	}
	if len(targets) == 0 {
		return fmt.Errorf("no fuzz target matches %q", run)
	}
	fmt.Fprintf(out, "%-28s %-22s %12s %9s %8s  %s\n", "package", "target", "executions", "a second", "inputs", "findings")
	var total uint64
	var failed []string
	for i := range targets {
		t := &targets[i]
		if !t.failed {
			t.fuzz(ctx, each)
		}
		if ctx.Err() != nil {
			return ctx.Err()
		}
		findings := "none"
		if t.failed {
			findings = "FAILED"
			failed = append(failed, t.name)
		}
		rate := float64(t.execs) / max(t.took.Seconds(), 0.001)
		fmt.Fprintf(out, "%-28s %-22s %12d %9.0f %8d  %s\n", t.pkg, t.name, t.execs, rate, t.inputs, findings)
		if t.failed {
			fmt.Fprintln(out, t.output)
		}
		total += t.execs
		if keep > 0 && t.dir != "" {
			if err := t.keep(keep); err != nil {
				return err
			}
		}
	}
	fmt.Fprintf(out, "%d targets, %d executions, %d with findings\n", len(targets), total, len(failed))
	if len(failed) > 0 {
		return fmt.Errorf("findings in %s", strings.Join(failed, ", "))
	}
	return nil
}

// list returns the module's fuzz targets.
func list(ctx context.Context, pkgs string, match *regexp.Regexp) (out []target, err error) {
	b, err := goTool(ctx, "list", "-f", "{{.ImportPath}}\t{{.Dir}}\t{{len .TestGoFiles}}\t{{len .XTestGoFiles}}", pkgs)
	if err != nil {
		return nil, err
	}
	root, err := goTool(ctx, "list", "-m")
	if err != nil {
		return nil, err
	}
	for line := range strings.Lines(string(b)) {
		f := strings.Split(strings.TrimSpace(line), "\t")
		if len(f) != 4 || f[2] == "0" && f[3] == "0" {
			continue
		}
		names, err := goTool(ctx, "test", "-list", "^Fuzz", f[0])
		if err != nil {
			// Others are fuzzed all the same; the campaign fails in the end.
			out = append(out, target{pkg: f[0], name: "(tests)", failed: true, output: err.Error()})
			continue
		}
		for name := range strings.Lines(string(names)) {
			if name = strings.TrimSpace(name); strings.HasPrefix(name, "Fuzz") && match.MatchString(name) {
				pkg := strings.TrimPrefix(f[0], strings.TrimSpace(string(root))+"/")
				out = append(out, target{pkg: pkg, dir: f[1], name: name})
			}
		}
	}
	return out, nil
}

// progress is a line such as
// "fuzz: elapsed: 10s, execs: 325017 (32501/sec), new interesting: 11 (total: 202)".
var progress = regexp.MustCompile(`execs: (\d+) \(.*new interesting: (\d+) \(total: (\d+)\)`)

// fuzz runs a target. Its inputs go to the build cache, as go test has it.
//
// A target that is stopped in the middle of an input by the end of its time may say
// "context deadline exceeded" and nothing else (https://go.dev/issue/75804, until Go
// 1.27); it gets another try.
func (t *target) fuzz(ctx context.Context, each string) {
	for range 3 {
		t.once(ctx, each)
		if !t.failed || !strings.Contains(t.output, "context deadline exceeded") || strings.Contains(t.output, "Failing input") {
			return
		}
	}
}

func (t *target) once(ctx context.Context, each string) {
	start := time.Now()
	// Go spends up to a minute on making each new input shorter, which is better spent
	// on finding more of them.
	cmd := exec.CommandContext(ctx, "go", "test", "-run", "^$", "-fuzz", "^"+t.name+"$", "-fuzztime", each,
		"-fuzzminimizetime", "100x", ".")
	cmd.Dir = t.dir
	b, err := cmd.CombinedOutput()
	t.took, t.failed, t.output = time.Since(start), err != nil, string(b)
	for _, m := range progress.FindAllStringSubmatch(t.output, -1) {
		t.execs, _ = strconv.ParseUint(m[1], 10, 64)
		t.new, _ = strconv.ParseUint(m[2], 10, 64)
		t.inputs, _ = strconv.Atoi(m[3])
	}
}

// keep copies the shortest inputs that the cache has, and that are not kept yet, to
// testdata/fuzz, up to n in all.
func (t *target) keep(n int) error {
	cache, err := goTool(context.Background(), "env", "GOCACHE")
	if err != nil {
		return err
	}
	pkg, err := goIn(t.dir, "list", ".")
	if err != nil {
		return err
	}
	from := filepath.Join(strings.TrimSpace(string(cache)), "fuzz", strings.TrimSpace(string(pkg)), t.name)
	to := filepath.Join(t.dir, "testdata", "fuzz", t.name)
	return keepShortest(from, to, n)
}

func goTool(ctx context.Context, args ...string) ([]byte, error) {
	return output(exec.CommandContext(ctx, "go", args...))
}

func goIn(dir string, args ...string) ([]byte, error) {
	cmd := exec.Command("go", args...)
	cmd.Dir = dir
	return output(cmd)
}

func output(cmd *exec.Cmd) ([]byte, error) {
	var stderr bytes.Buffer
	cmd.Stderr = &stderr
	b, err := cmd.Output()
	if err != nil {
		return nil, fmt.Errorf("%s: %w: %s", strings.Join(cmd.Args, " "), err, stderr.String())
	}
	return b, nil
}
