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
	bound   bound
	tick    string // under its bar in a chart, if it has one

	name, other, unit string // of a comparison: the benchmark, blockseal's rival, the metric
}

// bound is what a ratio cannot be better than, as the same run measured it, and the share of it that a
// target may ask for. A target that asks for more is replaced by that share.
type bound struct {
	label   string
	share   float64                  // below 1, which leaves room for what the bound leaves out
	measure func(*results) []float64 // by round; nil if there is no bound
}

// group is some targets under a heading.
type group struct {
	title   string
	targets []target
}

// verdict is a target beside what was measured.
type verdict struct {
	Label, Want, Measured, Range, Note, Verdict string
	Bound                                       string // what it cannot be better than, if that was measured
	First                                       string // the target that Want has replaced, because the bound does not give it
}

// verdicts are those of a group.
type verdicts struct {
	Title    string
	Verdicts []verdict
}

const (
	met     = "met"
	notMet  = "not met"
	inNoise = "within the noise" // not met, by no more than a side in turns with itself differs
	noData  = "no data"
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
	t.measure = func(r *results) ([]float64, string) { return t.ratios(r, ours), t.noiseNote(r) }
	return t
}

// pair returns a metric of an implementation and of the one that it is compared with. What one of them
// took in turns with the other is better than what it took by itself. Tables and charts take each
// comparison from here, so that they say the same.
func (r *results) pair(name, impl, other, unit string) (its, others []sample) {
	if its, others = r.inTurns(name, impl, other, unit); len(others) > 0 {
		return its, others
	}
	if others, its = r.inTurns(name, other, impl, unit); len(its) > 0 {
		return its, others
	}
	return r.get(name, impl, unit), r.get(name, other, unit)
}

// inTurns returns what an implementation took, and what another one did in turns with it. The median over
// the pairs of turns is better than their sum, on which a few that met something else on the machine, or
// its disk, weigh as much as all the others: where it is known, its time is 1, and the other's is the
// rate in times of that.
func (r *results) inTurns(name, impl, other, unit string) (its, others []sample) {
	if rates := r.get(name, impl, other+"-rate"); unit == seconds && len(rates) > 0 {
		return ones(rates), rates
	}
	return r.get(name, impl, unit), r.get(name, impl, other+"-"+unit)
}

// ratios are what an implementation reaches of a comparison's target.
func (t target) ratios(r *results, impl string) []float64 {
	its, others := r.pair(t.name, impl, t.other, t.unit)
	if t.atMost {
		return ratios(its, others)
	}
	return ratios(others, its)
}

// noise is what a side reaches in turns with itself, by round, if that was measured.
func (t target) noise(r *results) (side string, s spread) {
	for _, side := range []string{t.other, ours} {
		its, again := r.inTurns(t.name, side, side, t.unit)
		if s := over(ratios(again, its)); side != "" && s.n > 0 {
			return side, s
		}
	}
	return "", spread{}
}

func (t target) noiseNote(r *results) string {
	side, s := t.noise(r)
	if s.n == 0 {
		return ""
	}
	return fmt.Sprintf("%s beside itself: %.2f to %.2f", label(side), s.low, s.high)
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
	floorTitle   = "Beside the floor: time, in times of the standard library's with a fresh key"
	pebbleTitle  = "Beside plain Pebble: rate, in times of Pebble's"
	bulkTitle    = "Batches, loads, walks and tails"
	growthTitle  = "With cores and blocks"
	peerTitle    = "Beside other envelope encryption: rate, in times of theirs"
	badgerTitle  = "Beside Badger with its encryption: rate, in times of Badger's"
	libraryTitle = "A watch on the standard library: AES-256-GCM under one key, in times of openssl's rate"
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
		{libraryTitle, libraryTargets()},
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
	return atMost(limit, label, name, "floor", seconds).boundBy("promised", 0.98)
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
	return append(ops, stored{"scan, 4 KiB", "Scan/size=4096", 0.60})
}

func pebbleTargets() (t []target) {
	for _, op := range storedOps() {
		row := atLeast(op.limit, op.label, op.name, "pebble").besideLeast("promised")
		// Gets and scans of the least work have none of blockseal's caches and one goroutine: no bound.
		if strings.HasPrefix(op.name, "Put") {
			row = row.boundBy("promised", 0.95)
		}
		t = append(t, row)
	}
	return append(t, atMost(1.05, "write amplification, in times of Pebble's", "WriteAmplification/size=4096", "pebble", "writeamp").besideLeast("promised"))
}

// besideLeast names a third implementation, which has a part of blockseal's work to do: the remark says
// what it reaches.
func (t target) besideLeast(impl string) target {
	measure := t.measure
	t.measure = func(r *results) ([]float64, string) {
		got, note := measure(r)
		if s := over(t.ratios(r, impl)); s.n > 0 {
			note = strings.TrimSuffix(fmt.Sprintf("%s: %.2f; %s", label(impl), s.median, note), "; ")
		}
		return got, note
	}
	return t
}

// boundBy makes what a third implementation reaches of the same comparison the bound.
func (t target) boundBy(impl string, share float64) target {
	t.bound = bound{label(impl), share, func(r *results) []float64 { return t.ratios(r, impl) }}
	return t
}

func badgerTargets() (t []target) {
	for _, op := range storedOps() {
		t = append(t, atLeast(1, op.label, op.name, "badger"))
	}
	return t
}

// libraryTargets tell when a release of Go has caught up with the processor: from then on the floor is
// faster, and with it everything that is judged by it.
func libraryTargets() (t []target) {
	for _, n := range []int{4096, 65536} {
		name := fmt.Sprintf("Library/size=%d", n)
		t = append(t, target{label: "AES-256-GCM of Go, " + size(n), limit: 0.95, measure: func(r *results) ([]float64, string) {
			gcm, openssl := r.get(name, "gcm", seconds), r.get(name, "openssl", seconds)
			rate := func(impl string) string {
				return fmt.Sprintf("%.2f", float64(n)/over(values(r.get(name, impl, seconds))).median/1e9)
			}
			return ratios(openssl, gcm), fmt.Sprintf("GB/s: Go %s, openssl %s, AES-CTR of Go %s", rate("gcm"), rate("openssl"), rate("ctr"))
		}})
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
			measure: func(r *results) ([]float64, string) { return scaled(r, name, ours), "" },
			bound:   bound{"the floor's goroutines, which share nothing", 0.95, func(r *results) []float64 { return scaled(r, name, "floor") }}})
	}
	return append(t,
		flat("vault calls of a cold open, the most over the least", "ColdOpen"),
		flat("vault calls of RotateKEK, the most over the least", "RotateKEK"))
}

// scaled is the rate of two goroutines in times of one's.
func scaled(r *results, name, impl string) []float64 {
	return ratios(r.get(name+"1", impl, seconds), r.get(name+"2", impl, seconds))
}

func peerTargets() (t []target) {
	for _, p := range []struct {
		impl  string
		limit float64
	}{{"tink", 3}, {"go-kms-wrapping", 2}, {"sio", 1}} {
		for _, op := range []struct{ label, name string }{{"seal and wrap", "SealWrapped"}, {"unwrap and open", "UnwrapOpen"}} {
			for _, n := range sizes() {
				row := atLeast(p.limit, fmt.Sprintf("%s %s, beside %s", op.label, size(n), label(p.impl)), fmt.Sprintf("%s/size=%d", op.name, n), p.impl)
				// What wraps a key and seals with the standard library cannot be faster than the least work.
				row.bound = bound{label("promised"), 0.95, func(r *results) []float64 {
					return values(r.get(row.name+"/beside="+p.impl, "promised", p.impl+"-rate"))
				}}
				t = append(t, row)
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
	v := verdict{Label: t.label, Want: t.want(t.limit), Measured: "–", Verdict: noData}
	got, note := t.measure(r)
	s := over(got)
	if s.n == 0 {
		return v
	}
	limit := t.limit
	if t.bound.measure != nil {
		if most := over(t.bound.measure(r)); most.n > 0 {
			v.Bound = short(most.median)
			// To two decimals, as it is shown: what is judged can be read. A target that is met stays.
			reached := t.atMost && s.median <= limit || !t.atMost && s.median >= limit
			if share := math.Round(100*t.shareOf(most.median)) / 100; !reached && (t.atMost && share > limit || !t.atMost && share < limit) {
				v.First, limit = v.Want, share
				v.Want = t.want(limit)
			}
		}
	}
	v.Note, v.Verdict, v.Measured = note, notMet, beside(s.median, limit)
	if s.n > 1 {
		v.Range = fmt.Sprintf("%.2f to %.2f", s.low, s.high)
	}
	// What counts is the value and not its rounding: 1.054 is over 1.05.
	reaches := func(factor float64) bool {
		return t.atMost && s.median <= limit*factor || !t.atMost && s.median*factor >= limit
	}
	_, noise := t.noise(r)
	switch {
	case reaches(1):
		v.Verdict = met
	case noise.n > 1 && reaches(noise.width()):
		v.Verdict = inNoise
	}
	return v
}

// width is by how much a side may differ from itself, as a factor above 1: half of the rounds, those
// between the lowest and the highest quarter, differ by less.
func (s spread) width() float64 { return max(1, s.upper, 1/s.lower) }

// shareOf is the part of a bound that a target may ask for.
func (t target) shareOf(most float64) float64 {
	if t.atMost {
		return most / t.bound.share
	}
	return most * t.bound.share
}

func (t target) want(limit float64) string {
	if t.atMost {
		return "≤ " + short(limit)
	}
	return "≥ " + short(limit)
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
	case "kept":
		return "the same with all rows in memory"
	case "cipher":
		return "raw AES-GCM"
	}
	return impl
}
