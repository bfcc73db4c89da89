package main

import (
	"bufio"
	"bytes"
	"fmt"
	"os"
	"slices"
	"strings"

	"golang.org/x/perf/benchfmt"
)

// Lines that the report adds to the raw output. Benchstat reads over them, as over all
// lines that are neither "key: value" nor a result.
const (
	markRound       = "# report: round "
	markFailed      = "# report: failed "
	markQuick       = "# report: quick"
	markInterrupted = "# report: interrupted"
)

// sample is one value, with the round it was measured in. Only values of one round are
// compared.
type sample struct {
	round int
	value float64
}

// row is one benchmark with its parameters and one implementation.
type row struct {
	name   string // as in Seal/size=4096: without the implementation
	impl   string
	procs  string              // GOMAXPROCS, as in -2, or ""
	values map[string][]sample // by unit, in base units: sec/op, B/op, ...
}

// results are all rows, in the order in which they were first seen, and what the raw
// output says about the run.
type results struct {
	rows        []*row
	failed      []string // benchmarks, each once
	quick       bool
	interrupted bool
	unreadable  int // result lines that could not be read

	rounds map[roundKey]int
}

// roundKey is what makes a round: the file, the report's mark in it, and for output
// without marks, as of go test -count, the how-manieth result of a row this is.
type roundKey struct {
	file       string
	mark       int
	occurrence int
}

func newResults() *results { return &results{rounds: map[roundKey]int{}} }

func (r *results) readFile(name string) error {
	raw, err := os.ReadFile(name)
	if err != nil {
		return err
	}
	return r.parse(name, raw)
}

// parse adds the results of one file. It may be called for several, whose rounds are
// then different ones even if the numbers are the same.
func (r *results) parse(file string, raw []byte) error {
	mark, failures, broken := 0, len(r.failed), false
	seen := map[*row]int{}
	var segment bytes.Buffer
	flush := func() error {
		defer segment.Reset()
		return r.read(file, mark, seen, &segment)
	}
	lines := bufio.NewScanner(bytes.NewReader(raw))
	lines.Buffer(nil, 1<<24)
	for lines.Scan() {
		line := lines.Text()
		switch {
		case strings.HasPrefix(line, markRound):
			if err := flush(); err != nil {
				return err
			}
			mark++
			clear(seen)
		case strings.HasPrefix(line, markFailed):
			name, _, _ := strings.Cut(strings.TrimPrefix(line, markFailed), ":")
			r.fail(name)
		case strings.HasPrefix(line, markQuick):
			r.quick = true
		case strings.HasPrefix(line, markInterrupted):
			r.interrupted = true
		default:
			// What testing prints for a failure, at the line's start or behind the name
			// of the benchmark that it belongs to.
			if _, name, ok := strings.Cut(line, "--- FAIL: "); ok {
				r.fail(name)
				continue
			}
			broken = broken || line == "FAIL" || strings.HasPrefix(line, "FAIL\t") || strings.HasPrefix(line, "panic: ")
			segment.WriteString(line)
			segment.WriteByte('\n')
		}
	}
	if err := lines.Err(); err != nil {
		return fmt.Errorf("read %s: %w", file, err)
	}
	if broken && len(r.failed) == failures {
		r.failed = append(r.failed, "one that the output does not name")
	}
	return flush()
}

// fail notes a failed benchmark under the name of its function.
func (r *results) fail(name string) {
	name, _, _ = strings.Cut(strings.TrimSpace(name), "/")
	name, _, _ = strings.Cut(name, " ")
	base, _ := benchfmt.Name(name).Parts()
	name = strings.TrimPrefix(string(base), "Benchmark")
	if name != "" && !slices.Contains(r.failed, name) {
		r.failed = append(r.failed, name)
	}
}

func (r *results) read(file string, mark int, seen map[*row]int, segment *bytes.Buffer) error {
	reader := benchfmt.NewReader(segment, file)
	for reader.Scan() {
		switch rec := reader.Result().(type) {
		case *benchfmt.SyntaxError:
			r.unreadable++
		case *benchfmt.Result:
			w := r.row(split(rec.Name))
			key := roundKey{file, mark, seen[w]}
			seen[w]++
			round, ok := r.rounds[key]
			if !ok {
				round = len(r.rounds)
				r.rounds[key] = round
			}
			for _, v := range rec.Values {
				w.values[v.Unit] = append(w.values[v.Unit], sample{round, v.Value})
			}
		}
	}
	if err := reader.Err(); err != nil {
		return fmt.Errorf("read %s: %w", file, err)
	}
	return nil
}

// split takes the implementation, and the number of processors at the end, out of a name.
func split(n benchfmt.Name) (name, impl, procs string) {
	base, parts := n.Parts()
	kept := []string{string(base)}
	for _, p := range parts {
		part := string(p)
		switch {
		case strings.HasPrefix(part, "-"):
			procs = part
		case strings.HasPrefix(part, "/impl="):
			impl = strings.TrimPrefix(part, "/impl=")
		default:
			kept = append(kept, strings.TrimPrefix(part, "/"))
		}
	}
	return strings.Join(kept, "/"), impl, procs
}

// row finds or adds a row.
func (r *results) row(name, impl, procs string) *row {
	i := slices.IndexFunc(r.rows, func(w *row) bool { return w.name == name && w.impl == impl && w.procs == procs })
	if i >= 0 {
		return r.rows[i]
	}
	w := &row{name: name, impl: impl, procs: procs, values: map[string][]sample{}}
	r.rows = append(r.rows, w)
	return w
}

// get returns the samples of a unit, or nil. Of rows that differ in GOMAXPROCS alone it
// takes the first.
func (r *results) get(name, impl, unit string) []sample {
	for _, w := range r.rows {
		if w.name == name && w.impl == impl {
			return w.values[unit]
		}
	}
	return nil
}
