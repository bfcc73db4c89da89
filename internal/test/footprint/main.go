// Command footprint measures what a program pays for importing blockseal: it builds the
// least program on block and vault/local, and the least on Pebble alone, and prints size,
// number of packages and build time of both, in seconds of processor time, as docs/dependencies.md has them.
//
//	go run ./internal/test/footprint [-cold] [-v]
//
// With -cold each program is also built with an empty build cache, which takes a minute or
// two. With -v it lists the packages that the one has and the other has not.
package main

import (
	"bytes"
	"errors"
	"flag"
	"fmt"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"time"
)

const (
	parent = "github.com/blockseal/blockseal/internal/test/footprint/"
	own    = "github.com/blockseal/blockseal/"
)

func main() {
	cold := flag.Bool("cold", false, "build with an empty build cache, too")
	verbose := flag.Bool("v", false, "list the packages that the sealed program has beyond the plain one")
	flag.Parse()
	if err := run(os.Stdout, *cold, *verbose); err != nil {
		fmt.Fprintln(os.Stderr, "footprint:", err)
		os.Exit(1)
	}
}

// footprint is what a program costs.
type footprint struct {
	packages []string
	size     int64         // of the binary
	stripped int64         // of the binary without symbols and debugging information
	link     time.Duration // to link it, all packages being in the build cache
	cold     time.Duration // to build it with an empty build cache; 0: not measured
}

func run(out io.Writer, cold, verbose bool) (err error) {
	dir, err := os.MkdirTemp("", "footprint-")
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, os.RemoveAll(dir)) }()
	var of [2]footprint
	for i, name := range []string{"plain", "sealed"} {
		if of[i], err = measure(parent+name, filepath.Join(dir, name), cold); err != nil {
			return err
		}
	}
	plain, sealed := of[0], of[1]
	fmt.Fprintln(out, "| | on Pebble alone | on blockseal | more |")
	fmt.Fprintln(out, "|---|---|---|---|")
	sizes := func(what string, a, b int64) {
		fmt.Fprintf(out, "| %s | %.1f MB | %.1f MB | %.1f MB |\n", what, mega(a), mega(b), mega(b-a))
	}
	sizes("binary", plain.size, sealed.size)
	sizes("the same with `-ldflags='-s -w'`", plain.stripped, sealed.stripped)
	numbers := func(what string, a, b int) { fmt.Fprintf(out, "| %s | %d | %d | %d |\n", what, a, b, b-a) }
	numbers("packages", len(plain.packages), len(sealed.packages))
	numbers("of them not the standard library's", others(plain.packages), others(sealed.packages))
	times := func(what string, a, b time.Duration) {
		fmt.Fprintf(out, "| %s | %.1f s | %.1f s | %.1f s |\n", what, a.Seconds(), b.Seconds(), (b - a).Seconds())
	}
	times("processor time to link it", plain.link, sealed.link)
	if cold {
		times("processor time to build it with an empty cache", plain.cold, sealed.cold)
	}
	if verbose {
		for _, p := range beyond(sealed.packages, plain.packages) {
			fmt.Fprintln(out, p)
		}
	}
	return nil
}

func mega(n int64) float64 { return float64(n) / 1e6 }

// measure builds the program of a package to file, and counts what it is made of.
func measure(pkg, file string, cold bool) (f footprint, err error) {
	list, _, err := goTool(nil, "list", "-deps", pkg)
	if err != nil {
		return f, err
	}
	f.packages = strings.Fields(list)
	build := func(env []string, flags ...string) (size int64, took time.Duration, err error) {
		_, took, err = goTool(env, append(append([]string{"build", "-trimpath", "-o", file}, flags...), pkg)...)
		if err != nil {
			return 0, 0, err
		}
		st, err := os.Stat(file)
		if err != nil {
			return 0, 0, err
		}
		return st.Size(), took, os.Remove(file)
	}
	// The first build fills the cache, so that the second, with other flags of the linker,
	// only links: what somebody waits for who works on the program.
	if f.size, _, err = build(nil); err != nil {
		return f, err
	}
	if _, f.link, err = build(nil, "-ldflags=-X main.built=again"); err != nil {
		return f, err
	}
	if f.stripped, _, err = build(nil, "-ldflags=-s -w"); err != nil {
		return f, err
	}
	if cold {
		cache := file + "-cache"
		defer os.RemoveAll(cache)
		_, f.cold, err = build([]string{"GOCACHE=" + cache})
	}
	return f, err
}

// others is how many packages are not the standard library's, whose paths have no dot in
// their first element.
func others(packages []string) (n int) {
	for _, p := range packages {
		if first, _, _ := strings.Cut(p, "/"); strings.Contains(first, ".") {
			n++
		}
	}
	return n
}

// beyond returns the packages of a that b does not have, this module's first.
func beyond(a, b []string) (out []string) {
	for _, p := range a {
		if !slices.Contains(b, p) {
			out = append(out, p)
		}
	}
	slices.SortFunc(out, func(a, b string) int {
		if x, y := strings.HasPrefix(a, own), strings.HasPrefix(b, own); x != y {
			if x {
				return -1
			}
			return 1
		}
		return strings.Compare(a, b)
	})
	return out
}

// goTool runs the go command without cgo, which is how programs are built that are to run
// elsewhere. It returns what the command printed, and the processor time of all that it ran:
// that does not depend on what else the machine is doing.
func goTool(env []string, args ...string) (out string, took time.Duration, err error) {
	cmd := exec.Command("go", args...)
	cmd.Env = append(append(os.Environ(), "CGO_ENABLED=0", "GOFLAGS="), env...)
	var stdout, stderr bytes.Buffer
	cmd.Stdout, cmd.Stderr = &stdout, &stderr
	if err := cmd.Run(); err != nil {
		return "", 0, fmt.Errorf("go %s: %w: %s", args[0], err, strings.TrimSpace(stderr.String()))
	}
	return stdout.String(), cmd.ProcessState.UserTime() + cmd.ProcessState.SystemTime(), nil
}
