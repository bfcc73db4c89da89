package main

import (
	"fmt"
	"os"
	"path/filepath"

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
		s.missing = append(s.missing, name+" "+impl)
	}
	return v
}

func charts() []chart {
	return []chart{
		{"seal.png", "Sealing a block under a fresh key. The floor is what the standard library takes for 32 random bytes, their set-up and one Seal. Raw AES-GCM seals under one key that is set up already: what the processor does, and no scheme. The peers wrap a fresh key under one in memory, as blockseal does.", sealing},
		{"open.png", "Opening a sealed block with its wrapped key at hand. The floor sets up the key and opens; it unwraps nothing.", opening},
		{"put.png", "Rate of Put. Plain Pebble runs with the engine options that a store gives it; Badger with its own encryption, which authenticates nothing. Thin lines go from the lowest round to the highest.", puts},
		{"get.png", "Rate of reading blocks of 4 KiB that are all in caches. Records not cached: blockseal without its caches for DEK records and sealed blocks, so that each Get looks up both.", gets},
		{"scaling.png", "What a second goroutine gives. Twice the rate is what a second core gives if nothing is shared that they wait for, and nobody else uses the machine.", scaling},
		{"blocks-calls.png", "Calls to the vault to open a closed store and read one block, and to rotate its KEK, by how many blocks it has.", callsByBlocks},
		{"blocks-time.png", "The time of the same, with a vault in memory: what a real one takes for its calls comes on top.", timeByBlocks},
		{"latency.png", "Single operations on blocks of 4 KiB, not synced: half of them take no longer than the first mark, all but one in a hundred no longer than the second, all but one in a thousand no longer than the third. Reading the clock is in each, about 20 ns.", latencies},
		{"vaultcalls.png", "Calls to the vault for one operation, by how DEKs are wrapped: under the keyring, as they are by default, or each by the KEK. A check is the regular one of the lease.", callsByOperation},
	}
}

// drawAll draws what there is data for, and names the charts that there is none for.
func drawAll(r *results, dir string) (out []drawn, missing []string, err error) {
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
	for _, c := range charts() {
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

// curve names the rows of a line in a chart by block size.
type curve struct{ bench, impl string }

func sealing(s *source) (panel, bool) {
	return throughput(s, "Sealing a block, by its size", []curve{{"Seal", "cipher"}, {"Seal", "floor"},
		{"SealWrapped", "tink"}, {"SealWrapped", "go-kms-wrapping"}, {"SealWrapped", "sio"}, {"Seal", ours}})
}

func opening(s *source) (panel, bool) {
	return throughput(s, "Opening a block, by its size", []curve{{"Open", "cipher"}, {"Open", "floor"},
		{"UnwrapOpen", "tink"}, {"UnwrapOpen", "go-kms-wrapping"}, {"UnwrapOpen", "sio"}, {"Open", ours}})
}

func throughput(s *source, title string, curves []curve) (panel, bool) {
	p := newPlot()
	l := lines{style: textStyle(10.5, ink, false)}
	ok := false
	for _, c := range curves {
		line := series{label: label(c.impl), color: colour(c.impl), width: 1.5, dashed: c.impl == "cipher"}
		if c.impl == ours {
			line.width = 3
		}
		for _, n := range sizes() {
			v := over(values(s.need(fmt.Sprintf("%s/size=%d", c.bench, n), c.impl, seconds)))
			if v.n > 0 && v.low > 0 {
				line.points = append(line.points, point{float64(n), v.each(func(sec float64) float64 { return float64(n) / sec / 1e9 })})
			}
		}
		if len(line.points) > 0 {
			l.series = append(l.series, line)
			ok = ok || c.impl == ours
		}
	}
	if !ok {
		return panel{}, false
	}
	p.X.Scale = plot.LogScale{}
	var ticks plot.ConstantTicks
	for _, n := range sizes() {
		ticks = append(ticks, plot.Tick{Value: float64(n), Label: size(n)})
	}
	p.X.Tick.Marker = ticks
	p.X.Label.Text = "block size"
	p.Add(l)
	p.X.Min, p.X.Max, p.Y.Min = 420, 65536*1.08, 0
	return panel{title: title, sub: "GB/s of one goroutine, higher is better", plot: p, right: l.room()}, true
}

// bar is a group of bars: a benchmark, by store.
type bar struct{ name, label string }

func puts(s *source) (panel, bool) {
	return besidePebble(s, "Put, beside plain Pebble", []bar{{"PutNoSync/size=4096", "4 KiB\nnot synced"}, {"PutNoSync/size=65536", "64 KiB\nnot synced"},
		{"PutSync/size=4096/batch=1", "4 KiB\nsynced"}, {"PutSync/size=4096/batch=16", "16 × 4 KiB\nsynced"},
		{"PutSync/size=65536/batch=1", "64 KiB\nsynced"}, {"PutSync/size=65536/batch=16", "16 × 64 KiB\nsynced"}})
}

func gets(s *source) (panel, bool) {
	return besidePebble(s, "Get and scan, beside plain Pebble", []bar{
		{"Get/size=4096/cache=hot/goroutines=1", "Get\nhot"}, {"Get/size=4096/cache=hot/goroutines=2", "Get, hot\n2 goroutines"},
		{"Get/size=4096/cache=norecords/goroutines=1", "Get, records\nnot cached"}, {"Get/size=4096/cache=norecords/goroutines=2", "not cached\n2 goroutines"},
		{"Scan/size=4096", "scan\nin order"}})
}

func summary(s *source) (panel, bool) {
	return besidePebble(s, "Put, Get and scan of 4 KiB", []bar{{"PutNoSync/size=4096", "Put\nnot synced"}, {"PutSync/size=4096/batch=1", "Put\nsynced"},
		{"Get/size=4096/cache=hot/goroutines=1", "Get\nhot"}, {"Get/size=4096/cache=norecords/goroutines=1", "Get, records\nnot cached"}, {"Scan/size=4096", "scan\nin order"}})
}

// besidePebble draws rates in times of plain Pebble's, which is the line at 1.
func besidePebble(s *source, title string, groups []bar) (panel, bool) {
	b := bars{style: textStyle(9.5, ink, false)}
	var names []string
	for _, impl := range []string{ours, "badger"} {
		b.sets = append(b.sets, set{label: label(impl), color: colour(impl)})
	}
	ok := false
	for _, g := range groups {
		base := s.need(g.name, "pebble", seconds)
		names = append(names, g.label)
		for i, impl := range []string{ours, "badger"} {
			v := over(ratios(base, s.need(g.name, impl, seconds)))
			b.sets[i].values = append(b.sets[i].values, v)
			ok = ok || impl == ours && v.n > 0
		}
	}
	return barPanel(title, "rate in times of plain Pebble's, higher is better", b, names,
		&level{1, colour("pebble")}, label("pebble")), ok
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
