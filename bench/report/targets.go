package main

import (
	"fmt"
	"math"
	"slices"
	"strconv"
	"strings"
)

const (
	seconds    = "sec/op"
	vaultCalls = "vaultcalls/op"
	ours       = "blockseal"
)

// target is what a ratio should be, and how it is measured.
type target struct {
	label   string
	atMost  bool // or at least
	limit   float64
	measure func(*results) ([]float64, string) // by round, and a remark
	least   string                             // the implementation that does the least work, or ""

	name, other, unit string // of a comparison: the benchmark, blockseal's rival, the metric
}

// group is some targets under a heading.
type group struct {
	title   string
	targets []target
}

// verdict is a target beside what was measured.
type verdict struct {
	Label, Want, Measured, Range, Note, Verdict string
	Least                                       string // what the least work reaches, if that was measured
}

// verdicts are those of a group.
type verdicts struct {
	Title    string
	Verdicts []verdict
}

const (
	met    = "met"
	notMet = "not met"
	noData = "no data"
)

// atMost is a target for time, or for another metric, in times of the other's.
func atMost(limit float64, label, name, other, unit string) target {
	return comparison(target{label: label, atMost: true, limit: limit, name: name, other: other, unit: unit})
}

// atLeast is a target for the rate in times of the other's: the inverse of the times.
func atLeast(limit float64, label, name, other string) target {
	return comparison(target{label: label, limit: limit, name: name, other: other, unit: seconds})
}

func comparison(t target) target {
	t.measure = func(r *results) ([]float64, string) { return t.ratios(r, ours), t.noise(r) }
	return t
}

// pair returns a metric of an implementation and of the one that it is compared with. What the
// other took in turns with it is better than what it took by itself. Tables and charts take
// each comparison from here, so that they say the same.
func (r *results) pair(name, impl, other, unit string) (its, others []sample) {
	its, others = r.get(name, impl, unit), r.get(name, impl, other+"-"+unit)
	if len(others) == 0 {
		others = r.get(name, other, unit)
	}
	return its, others
}

// ratios are what an implementation reaches of a comparison's target.
func (t target) ratios(r *results, impl string) []float64 {
	its, others := r.pair(t.name, impl, t.other, t.unit)
	if t.atMost {
		return ratios(its, others)
	}
	return ratios(others, its)
}

// noise says what the other reaches in turns with itself, if that was measured.
func (t target) noise(r *results) string {
	if len(r.get(t.name, t.other, t.other+"-"+t.unit)) == 0 {
		return ""
	}
	s := over(t.ratios(r, t.other))
	return fmt.Sprintf("%s beside itself: %.2f to %.2f", label(t.other), s.low, s.high)
}

// flat is a target for vault calls that do not grow with the number of blocks. The remark
// says over which numbers that was measured.
func flat(label, bench string) target {
	return target{label: label, atMost: true, limit: 1, measure: func(r *results) ([]float64, string) {
		counts := r.counts(bench)
		series := make([][]sample, len(counts))
		for i, n := range counts {
			series[i] = r.get(fmt.Sprintf("%s/blocks=%d", bench, n), ours, vaultCalls)
		}
		if len(counts) < 2 {
			return nil, ""
		}
		return growth(series...), fmt.Sprintf("%s to %s blocks", thousands(counts[0]), thousands(counts[len(counts)-1]))
	}}
}

// counts returns the numbers of blocks that a benchmark was run with, the smallest first.
func (r *results) counts(bench string) (out []int) {
	for _, w := range r.rows {
		s, ok := strings.CutPrefix(w.name, bench+"/blocks=")
		n, err := strconv.Atoi(s)
		if ok && err == nil && w.impl == ours && !slices.Contains(out, n) {
			out = append(out, n)
		}
	}
	slices.Sort(out)
	return out
}

// The headings of the groups of targets.
const (
	floorTitle  = "Beside the floor: time, in times of the standard library's with a fresh key"
	pebbleTitle = "Beside plain Pebble: rate, in times of Pebble's"
	bulkTitle   = "Batches, loads, walks and tails"
	growthTitle = "With cores and blocks"
	peerTitle   = "Beside other envelope encryption: rate, in times of theirs"
	badgerTitle = "Beside Badger with its encryption: rate, in times of Badger's"
)

// allTargets are the project's own. Each comparison that is measured is here, those that
// blockseal loses too.
func allTargets() []group {
	return []group{
		{floorTitle, floorTargets()},
		{pebbleTitle, pebbleTargets()},
		{bulkTitle, bulkTargets()},
		{growthTitle, growthTargets()},
		{peerTitle, peerTargets()},
		{badgerTitle, badgerTargets()},
	}
}

func floorTargets() (t []target) {
	for _, s := range []struct {
		size  int
		limit float64
	}{{512, 1.25}, {4096, 1.10}, {16384, 1.04}, {65536, 1.01}} {
		t = append(t, besideFloor(s.limit, "seal "+size(s.size), fmt.Sprintf("Seal/size=%d", s.size)))
	}
	return append(t,
		besideFloor(1.10, "open 4 KiB", "Open/size=4096"),
		besideFloor(1.02, "open 64 KiB", "Open/size=65536"))
}

func besideFloor(limit float64, label, name string) target {
	return atMost(limit, label, name, "floor", seconds).limitedBy("promised")
}

// stored are the operations that all three stores do.
type stored struct {
	label, name string
	limit       float64 // of plain Pebble's rate
}

func storedOps() (ops []stored) {
	for _, n := range []int{4096, 65536} {
		for _, batch := range []int{1, 16} {
			ops = append(ops, stored{fmt.Sprintf("Put %s, synced, batch of %d", size(n), batch), fmt.Sprintf("PutSync/size=%d/batch=%d", n, batch), 0.95})
		}
	}
	ops = append(ops,
		stored{"Put 4 KiB, not synced", "PutNoSync/size=4096", 0.80},
		stored{"Put 64 KiB, not synced", "PutNoSync/size=65536", 0.92})
	for g, who := range []string{"1 goroutine", "2 goroutines"} {
		ops = append(ops,
			stored{"Get 4 KiB, hot, " + who, fmt.Sprintf("Get/size=4096/cache=hot/goroutines=%d", g+1), 0.70},
			stored{"Get 4 KiB, records not cached, " + who, fmt.Sprintf("Get/size=4096/cache=norecords/goroutines=%d", g+1), 0.50})
	}
	return append(ops, stored{"scan, 4 KiB", "Scan/size=4096", 0.75})
}

func pebbleTargets() (t []target) {
	for _, op := range storedOps() {
		t = append(t, atLeast(op.limit, op.label, op.name, "pebble").limitedBy("promised"))
	}
	return append(t, atMost(1.05, "write amplification, in times of Pebble's", "WriteAmplification/size=4096", "pebble", "writeamp").limitedBy("promised"))
}

// bulkTargets are all measured in turns with what they are compared with.
func bulkTargets() (t []target) {
	for _, n := range []struct {
		size, batch int
		limit       float64
	}{{4096, 16, 0.90}, {4096, 64, 0.95}, {65536, 16, 0.95}} {
		t = append(t, atLeast(n.limit, fmt.Sprintf("lent batch of %d blocks of %s, synced, rate in times of plain Pebble's", n.batch, size(n.size)),
			fmt.Sprintf("PutLent/size=%d/batch=%d", n.size, n.batch), "pebble").limitedBy("promised"))
	}
	for _, n := range []int{4096, 65536} {
		t = append(t, atLeast(0.80, fmt.Sprintf("load of blocks of %s, rate in times of plain Pebble's", size(n)), fmt.Sprintf("Load/size=%d", n), "pebble"))
	}
	for _, order := range []string{"forward", "reverse"} {
		t = append(t, atLeast(0.95, "scan, 4 KiB, "+order+", rate in times of as many goroutines' that only open", "ScanBound/size=4096/order="+order, "bound"))
	}
	for _, order := range []string{"forward", "reverse"} {
		t = append(t, atMost(1, "scan that stops after 10 blocks, "+order+", time in times of 10 Gets'", "ScanStart/order="+order, "gets", seconds))
	}
	for _, op := range []struct{ label, unit string }{{"Get", "get"}, {"Put", "put"}} {
		for _, q := range []string{"p99", "p99.9"} {
			t = append(t, target{label: fmt.Sprintf("%s 4 KiB among 8 goroutines' beside 1 GiB of heap, %s in times of plain Pebble's", op.label, q), atMost: true, limit: 1.3,
				measure: func(r *results) ([]float64, string) {
					return values(r.get("Mixed/size=4096", ours, op.unit+"-"+q+"-times")), ""
				}})
		}
	}
	return t
}

// limitedBy names a third implementation, which has a part of blockseal's work to do: what it
// reaches stands beside the target, and in the remark.
func (t target) limitedBy(impl string) target {
	measure := t.measure
	t.least = impl
	t.measure = func(r *results) ([]float64, string) {
		got, note := measure(r)
		if s := over(t.ratios(r, impl)); s.n > 0 {
			note = strings.TrimSuffix(fmt.Sprintf("%s: %.2f; %s", label(impl), s.median, note), "; ")
		}
		return got, note
	}
	return t
}

func badgerTargets() (t []target) {
	for _, op := range storedOps() {
		t = append(t, atLeast(1, op.label, op.name, "badger"))
	}
	return t
}

func growthTargets() (t []target) {
	for _, s := range []struct {
		size  int
		limit float64
	}{{4096, 1.5}, {65536, 1.9}} {
		name := fmt.Sprintf("SealScaling/size=%d/goroutines=", s.size)
		t = append(t, target{label: fmt.Sprintf("seal %s, rate of 2 goroutines in times of 1", size(s.size)), limit: s.limit,
			measure: func(r *results) ([]float64, string) {
				return ratios(r.get(name+"1", ours, seconds), r.get(name+"2", ours, seconds)), ""
			}})
	}
	return append(t,
		flat("vault calls of a cold open, the most over the least", "ColdOpen"),
		flat("vault calls of RotateKEK, the most over the least", "RotateKEK"))
}

func peerTargets() (t []target) {
	for _, p := range []struct {
		impl  string
		limit float64
	}{{"tink", 3}, {"go-kms-wrapping", 2}, {"sio", 1}} {
		for _, op := range []struct{ label, name string }{{"seal and wrap", "SealWrapped"}, {"unwrap and open", "UnwrapOpen"}} {
			for _, n := range sizes() {
				t = append(t, atLeast(p.limit, fmt.Sprintf("%s %s, beside %s", op.label, size(n), label(p.impl)), fmt.Sprintf("%s/size=%d", op.name, n), p.impl))
			}
		}
	}
	return t
}

// judge puts each target beside what was measured.
func judge(r *results) []verdicts {
	var out []verdicts
	for _, g := range allTargets() {
		vs := verdicts{Title: g.title}
		for _, t := range g.targets {
			vs.Verdicts = append(vs.Verdicts, t.judge(r))
		}
		out = append(out, vs)
	}
	return out
}

func (t target) judge(r *results) verdict {
	v := verdict{Label: t.label, Want: "≥ " + short(t.limit), Measured: "–", Verdict: noData}
	if t.atMost {
		v.Want = "≤ " + short(t.limit)
	}
	got, note := t.measure(r)
	s := over(got)
	if s.n == 0 {
		return v
	}
	v.Note, v.Verdict, v.Measured = note, notMet, beside(s.median, t.limit)
	if least := over(t.ratios(r, t.least)); t.least != "" && least.n > 0 {
		v.Least = fmt.Sprintf("%.2f", least.median)
	}
	if s.n > 1 {
		v.Range = fmt.Sprintf("%.2f to %.2f", s.low, s.high)
	}
	// What counts is the value and not its rounding: 1.054 is over 1.05.
	if t.atMost && s.median <= t.limit || !t.atMost && s.median >= t.limit {
		v.Verdict = met
	}
	return v
}

func short(limit float64) string { return fmt.Sprintf("%.2f", limit) }

// beside writes a value with two decimals, or with as many as it takes to see that it is
// not the limit.
func beside(v, limit float64) string {
	for digits := 2; digits < 6; digits++ {
		s := strconv.FormatFloat(v, 'f', digits, 64)
		if shown, err := strconv.ParseFloat(s, 64); err != nil || shown != limit || v == limit || math.IsInf(v, 0) {
			return s
		}
	}
	return strconv.FormatFloat(v, 'g', -1, 64)
}

func sizes() []int { return []int{512, 4 << 10, 16 << 10, 64 << 10} }

// size writes a number of bytes as people do.
func size(n int) string {
	if n < 1024 {
		return fmt.Sprintf("%d B", n)
	}
	return fmt.Sprintf("%d KiB", n/1024)
}

// thousands writes a number of blocks in short.
func thousands(n int) string {
	switch {
	case n >= 1e6 && n%1e6 == 0:
		return fmt.Sprintf("%dM", n/1e6)
	case n >= 1e3 && n%1e3 == 0:
		return fmt.Sprintf("%dk", n/1e3)
	}
	return strconv.Itoa(n)
}

// label is how an implementation is called in charts and tables.
func label(impl string) string {
	switch impl {
	case "pebble":
		return "plain Pebble"
	case "badger":
		return "Badger"
	case "tink":
		return "Tink"
	case "sio":
		return "MinIO sio"
	case "promised":
		return "what the promises take"
	case "cipher":
		return "raw AES-GCM"
	}
	return impl
}
