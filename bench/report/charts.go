package main

import (
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strconv"

	"gonum.org/v1/plot"
)

// The size of a chart and of the summary, in points. At the resolutions below that is
// 1300 by 917 and 1200 by 630 pixels.
const (
	chartWidth, chartHeight, chartDPI       = 468, 330, 200
	summaryWidth, summaryHeight, summaryDPI = 800, 420, 108
)

// chart is a picture of some results.
type chart struct {
	file, caption string
	draw          func(*source) (panel, bool) // false if there is nothing of blockseal's
}

// drawn is a chart as a PNG.
type drawn struct {
	File, Caption string
	PNG           []byte
	Missing       []string // rows that belong here and were not found
}

// source gives results to a chart and keeps account of what it asked for in vain.
type source struct {
	*results
	missing []string
}

// need returns samples that belong in the chart.
func (s *source) need(name, impl, unit string) []sample {
	v := s.get(name, impl, unit)
	if len(v) == 0 {
		s.lacks(name, impl)
	}
	return v
}

func (s *source) lacks(name, impl string) {
	if row := name + " " + impl; !slices.Contains(s.missing, row) {
		s.missing = append(s.missing, row)
	}
}

// rate returns blockseal's rate in times of another's, as the targets have it.
func (s *source) rate(name, other string) spread {
	its, others := s.pair(name, ours, other, seconds)
	if len(its) == 0 {
		s.lacks(name, ours)
	}
	if len(others) == 0 {
		s.lacks(name, other)
	}
	return over(ratios(others, its))
}

func charts() []chart {
	return []chart{
		{"seal.png", "Sealing a block under a fresh key. Above the line at 1 blockseal is faster. The floor is what the standard library takes for 32 random bytes, their set-up and one Seal. Raw AES-GCM seals under one key that is set up already: what the processor does, and no scheme. The peers wrap a fresh key under one in memory, as blockseal does.", sealing},
		{"open.png", "Opening a sealed block with its wrapped key at hand. Above the line at 1 blockseal is faster. The floor sets up the key and opens; it unwraps nothing.", opening},
		{"put.png", "Put. Above the line at 1 blockseal is faster. Plain Pebble runs with the engine options that a store gives it; Badger with its own encryption, which authenticates nothing. Thin lines go from the lowest round to the highest.", puts},
		{"get.png", "Reading blocks of 4 KiB that are all in caches. Above the line at 1 blockseal is faster. Records not cached: blockseal without its caches for DEK records and sealed blocks, so that each Get looks up both.", gets},
		{"scaling.png", "What a second goroutine gives. Twice the rate is what a second core gives if nothing is shared that they wait for, and nobody else uses the machine.", scaling},
		{"blocks-calls.png", "Calls to the vault to open a closed store and read one block, and to rotate its KEK, by how many blocks it has.", callsByBlocks},
		{"blocks-time.png", "The time of the same, with a vault in memory: what a real one takes for its calls comes on top.", timeByBlocks},
		{"latency.png", "Single operations on blocks of 4 KiB, not synced: half of them take no longer than the first mark, all but one in a hundred no longer than the second, all but one in a thousand no longer than the third. Reading the clock is in each, about 20 ns.", latencies},
		{"vaultcalls.png", "Calls to the vault for one operation, by how DEKs are wrapped: under the keyring, as they are by default, or each by the KEK. A check is the regular one of the lease.", callsByOperation},
	}
}

// drawAll draws what there is data for, and names the charts that there is none for.
func drawAll(r *results, dir string, more ...chart) (out []drawn, missing []string, err error) {
	save := func(file string, png []byte) error { return os.WriteFile(filepath.Join(dir, file), png, 0o644) }
	// One picture for those who look at one.
	left, right := &source{results: r}, &source{results: r}
	a, ok := sealing(left)
	b, also := summary(right)
	if ok && also {
		png, err := render(summaryWidth, summaryHeight, summaryDPI, a, b)
		if err != nil {
			return nil, nil, err
		}
		if err := save("summary.png", png); err != nil {
			return nil, nil, err
		}
	} else {
		missing = append(missing, "summary.png")
		if err := discard(dir, "summary.png"); err != nil {
			return nil, nil, err
		}
	}
	for _, c := range append(charts(), more...) {
		s := &source{results: r}
		p, ok := c.draw(s)
		if !ok {
			missing = append(missing, c.file)
			if err := discard(dir, c.file); err != nil {
				return nil, nil, err
			}
			continue
		}
		png, err := render(chartWidth, chartHeight, chartDPI, p)
		if err != nil {
			return nil, nil, err
		}
		if err := save(c.file, png); err != nil {
			return nil, nil, err
		}
		out = append(out, drawn{c.file, c.caption, png, s.missing})
	}
	return out, missing, nil
}

// discard removes the chart of an earlier run, which would be taken for this one's.
func discard(dir, file string) error {
	if err := os.Remove(filepath.Join(dir, file)); err != nil && !os.IsNotExist(err) {
		return err
	}
	return nil
}

// rival is what a line compares blockseal with, by block size, and in which benchmark.
type rival struct{ bench, impl string }

func sealing(s *source) (panel, bool) {
	return bySize(s, "Sealing a block, by its size", []rival{{"Seal", "cipher"}, {"Seal", "floor"},
		{"SealWrapped", "tink"}, {"SealWrapped", "go-kms-wrapping"}, {"SealWrapped", "sio"}})
}

func opening(s *source) (panel, bool) {
	return bySize(s, "Opening a block, by its size", []rival{{"Open", "cipher"}, {"Open", "floor"},
		{"UnwrapOpen", "tink"}, {"UnwrapOpen", "go-kms-wrapping"}, {"UnwrapOpen", "sio"}})
}

const inTimesOfTheirs = "blockseal's rate in times of theirs, higher is better"

// bySize draws blockseal's rate in times of others', which are equal at 1.
func bySize(s *source, title string, rivals []rival) (panel, bool) {
	l := lines{style: textStyle(10.5, ink, false)}
	for _, c := range rivals {
		line := series{label: label(c.impl), color: colour(c.impl), width: 2, dashed: c.impl == "cipher"}
		for _, n := range sizes() {
			if v := s.rate(fmt.Sprintf("%s/size=%d", c.bench, n), c.impl); v.n > 0 && v.low > 0 {
				line.points = append(line.points, point{float64(n), v})
			}
		}
		if len(line.points) > 0 {
			l.series = append(l.series, line)
		}
	}
	if len(l.series) == 0 {
		return panel{}, false
	}
	p := newPlot()
	p.X.Scale = plot.LogScale{}
	var ticks plot.ConstantTicks
	for _, n := range sizes() {
		ticks = append(ticks, plot.Tick{Value: float64(n), Label: size(n)})
	}
	p.X.Tick.Marker = ticks
	p.X.Label.Text = "block size"
	p.Add(level{1, colour(ours)}, l)
	p.X.Min, p.X.Max = 420, 65536*1.08
	doubling(p, l)
	return panel{title: title, sub: inTimesOfTheirs, keys: equal(), plot: p, right: l.room()}, true
}

// equal is the legend of the line at 1.
func equal() []key { return []key{{label: "equally fast", color: colour(ours), line: true}} }

// doubling makes an axis of ratios, on which twice as much is as far from 1 as half as much.
func doubling(p *plot.Plot, d plot.DataRanger) {
	_, _, low, high := d.DataRange()
	var ticks plot.ConstantTicks
	p.Y.Min, p.Y.Max = 0.5, 2
	for ; p.Y.Min > low; p.Y.Min /= 2 {
	}
	for ; p.Y.Max < high; p.Y.Max *= 2 {
	}
	for v := p.Y.Min; v <= p.Y.Max; v *= 2 {
		ticks = append(ticks, plot.Tick{Value: v, Label: strconv.FormatFloat(v, 'g', -1, 64)})
	}
	p.Y.Scale, p.Y.Tick.Marker = plot.LogScale{}, ticks
}

// bar is a group of bars: a benchmark, by store.
type bar struct{ name, label string }

func puts(s *source) (panel, bool) {
	return besideStores(s, "Put, beside other stores", []bar{{"PutNoSync/size=4096", "4 KiB\nnot synced"}, {"PutNoSync/size=65536", "64 KiB\nnot synced"},
		{"PutSync/size=4096/batch=1", "4 KiB\nsynced"}, {"PutSync/size=4096/batch=16", "16 × 4 KiB\nsynced"},
		{"PutSync/size=65536/batch=1", "64 KiB\nsynced"}, {"PutSync/size=65536/batch=16", "16 × 64 KiB\nsynced"}})
}

func gets(s *source) (panel, bool) {
	return besideStores(s, "Get and scan, beside other stores", []bar{
		{"Get/size=4096/cache=hot/goroutines=1", "Get\nhot"}, {"Get/size=4096/cache=hot/goroutines=2", "Get, hot\n2 goroutines"},
		{"Get/size=4096/cache=norecords/goroutines=1", "Get, records\nnot cached"}, {"Get/size=4096/cache=norecords/goroutines=2", "not cached\n2 goroutines"},
		{"Scan/size=4096", "scan\nin order"}})
}

func summary(s *source) (panel, bool) {
	return besideStores(s, "Put, Get and scan of 4 KiB", []bar{{"PutNoSync/size=4096", "Put\nnot synced"}, {"PutSync/size=4096/batch=1", "Put\nsynced"},
		{"Get/size=4096/cache=hot/goroutines=1", "Get\nhot"}, {"Get/size=4096/cache=norecords/goroutines=1", "Get, records\nnot cached"}, {"Scan/size=4096", "scan\nin order"}})
}

// besideStores draws blockseal's rate in times of other stores', which are equal at 1.
func besideStores(s *source, title string, groups []bar) (panel, bool) {
	b := bars{style: textStyle(9.5, ink, false), from: 1}
	var names []string
	b.sets = []set{{label: "beside plain Pebble", color: colour("pebble")}, {label: "beside encrypted Badger", color: colour("badger")}}
	ok := false
	for _, g := range groups {
		names = append(names, g.label)
		for i, other := range []string{"pebble", "badger"} {
			v := s.rate(g.name, other)
			b.sets[i].values = append(b.sets[i].values, v)
			ok = ok || v.n > 0
		}
	}
	if !ok {
		return panel{}, false
	}
	p := barPanel(title, inTimesOfTheirs, b, names, nil, "")
	p.plot.Add(level{1, colour(ours)})
	p.keys = append(p.keys, equal()...)
	doubling(p.plot, b)
	return p, true
}

// barPanel puts bars under a legend, with a line to measure them against if there is one.
func barPanel(title, sub string, b bars, names []string, ref *level, refLabel string) panel {
	p := newPlot()
	out := panel{title: title, sub: sub, plot: p}
	for _, s := range b.sets {
		if s.label != "" {
			out.keys = append(out.keys, key{label: s.label, color: s.color})
		}
	}
	if ref != nil { // behind the bars
		p.Add(*ref)
		out.keys = append(out.keys, key{label: refLabel, color: ref.color, line: true})
	}
	p.Add(b)
	nominal(p, names)
	p.X.Min, p.X.Max = -0.5, float64(len(names))-0.5
	return out
}
