// Command covered reads a coverage profile and prints how much of each package's
// statements were run, whichever tests ran them. It ends with status 1 if a package has
// less than -least percent.
//
//	go test -coverpkg=./dek,./kek,./keyring,./block,./vault -coverprofile=cover.out \
//		./dek ./kek ./keyring ./block ./vault ./internal/test/adversary
//	go run ./internal/test/covered -least 90 cover.out
//
// With -missing it prints the places that were not run.
package main

import (
	"bufio"
	"flag"
	"fmt"
	"io"
	"maps"
	"os"
	"path"
	"slices"
	"strconv"
	"strings"
)

func main() {
	least := flag.Float64("least", 0, "the least percentage that is accepted")
	missing := flag.Bool("missing", false, "print the places that were not run")
	flag.Parse()
	if err := run(os.Stdout, flag.Args(), *least, *missing); err != nil {
		fmt.Fprintln(os.Stderr, "covered:", err)
		os.Exit(1)
	}
}

func run(out io.Writer, profiles []string, least float64, missing bool) error {
	if len(profiles) == 0 {
		return fmt.Errorf("give it a coverage profile")
	}
	blocks := map[string]block{}
	for _, name := range profiles {
		f, err := os.Open(name)
		if err != nil {
			return err
		}
		err = read(f, blocks)
		f.Close()
		if err != nil {
			return fmt.Errorf("%s: %w", name, err)
		}
	}
	type sum struct{ run, all int }
	packages := map[string]sum{}
	for _, place := range slices.Sorted(maps.Keys(blocks)) {
		b := blocks[place]
		file, _, _ := strings.Cut(place, ":")
		s := packages[path.Dir(file)]
		s.all += b.statements
		if b.run {
			s.run += b.statements
		} else if missing {
			fmt.Fprintln(out, place)
		}
		packages[path.Dir(file)] = s
	}
	var short []string
	for _, name := range slices.Sorted(maps.Keys(packages)) {
		s := packages[name]
		percent := 100 * float64(s.run) / float64(max(s.all, 1))
		fmt.Fprintf(out, "%6.1f%%  %5d of %5d statements  %s\n", percent, s.run, s.all, name)
		if percent < least {
			short = append(short, name)
		}
	}
	if len(short) > 0 {
		return fmt.Errorf("less than %g%% of %s", least, strings.Join(short, ", "))
	}
	return nil
}

// block is a stretch of code in a profile.
type block struct {
	statements int
	run        bool
}

// read adds a profile to blocks. A place may come up more than once, for each package
// whose tests were run.
func read(r io.Reader, blocks map[string]block) error {
	lines := bufio.NewScanner(r)
	for lines.Scan() {
		line := lines.Text()
		if strings.HasPrefix(line, "mode:") {
			continue
		}
		f := strings.Fields(line) // file.go:1.2,3.4 statements count
		if len(f) != 3 {
			return fmt.Errorf("not a coverage profile: %q", line)
		}
		n, err := strconv.Atoi(f[1])
		if err != nil {
			return fmt.Errorf("not a coverage profile: %q", line)
		}
		b := blocks[f[0]]
		blocks[f[0]] = block{n, b.run || f[2] != "0"}
	}
	return lines.Err()
}
