package main

import (
	"fmt"

	"gonum.org/v1/plot"
)

// scaling draws what a second goroutine gives.
func scaling(s *source) (panel, bool) {
	impls := []string{ours, "pebble", "badger"}
	b := bars{style: textStyle(9.5, ink, false)}
	for _, impl := range impls {
		b.sets = append(b.sets, set{label: label(impl), color: colour(impl)})
	}
	var names []string
	ok := false
	for _, op := range []struct {
		name, label string
		stores      bool // whether there is a store to compare with
	}{{"SealScaling/size=4096", "seal\n4 KiB", false}, {"SealScaling/size=65536", "seal\n64 KiB", false},
		{"Get/size=4096/cache=hot", "Get 4 KiB\nhot", true}, {"Get/size=4096/cache=norecords", "Get 4 KiB\nrecords not cached", true}} {
		names = append(names, op.label)
		for i, impl := range impls {
			var v spread
			if impl == ours || op.stores {
				v = over(ratios(s.need(op.name+"/goroutines=1", impl, seconds), s.need(op.name+"/goroutines=2", impl, seconds)))
			}
			b.sets[i].values = append(b.sets[i].values, v)
			ok = ok || impl == ours && v.n > 0
		}
	}
	return barPanel("Two goroutines against one", "rate in times of one goroutine's, higher is better", b, names,
		&level{2, gray(150)}, "twice"), ok
}

// callsByBlocks draws calls to the vault as bars: lines that are the same would hide each
// other.
func callsByBlocks(s *source) (panel, bool) {
	b := bars{style: textStyle(10, ink, false), sets: []set{{label: "cold open", color: colour(ours)}, {label: "RotateKEK", color: second()}}}
	counts := s.bothCounts()
	var names []string
	ok := false
	for _, n := range counts {
		names = append(names, thousands(n))
		for i, bench := range []string{"ColdOpen", "RotateKEK"} {
			v := over(values(s.need(fmt.Sprintf("%s/blocks=%d", bench, n), ours, vaultCalls)))
			b.sets[i].values = append(b.sets[i].values, v)
			ok = ok || v.n > 0
		}
	}
	if !ok {
		return panel{}, false
	}
	p := barPanel("Vault calls, by number of blocks", "calls for one operation, lower is better", b, names, nil, "")
	p.plot.X.Label.Text = "blocks in the store"
	return p, true
}

// bothCounts are the numbers of blocks that either benchmark was run with.
func (s *source) bothCounts() []int {
	counts := s.counts("ColdOpen")
	if more := s.counts("RotateKEK"); len(more) > len(counts) {
		counts = more
	}
	return counts
}

func timeByBlocks(s *source) (panel, bool) {
	l := lines{style: textStyle(10.5, ink, false)}
	var ticks plot.ConstantTicks
	for _, n := range s.bothCounts() {
		ticks = append(ticks, plot.Tick{Value: float64(n), Label: thousands(n)})
	}
	for i, bench := range []string{"ColdOpen", "RotateKEK"} {
		line := series{label: []string{"cold open", "RotateKEK"}[i], color: colour(ours), width: 2.5}
		if i > 0 {
			line.color = gray(50)
		}
		for _, n := range s.bothCounts() {
			if v := over(values(s.need(fmt.Sprintf("%s/blocks=%d", bench, n), ours, seconds))); v.n > 0 && v.low > 0 {
				line.points = append(line.points, point{float64(n), v.each(func(sec float64) float64 { return sec * 1e3 })})
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
	p.X.Scale, p.X.Tick.Marker = plot.LogScale{}, ticks
	p.X.Label.Text = "blocks in the store"
	p.Add(l)
	sub := "milliseconds, lower is better"
	if _, _, lo, hi := l.DataRange(); hi > 20*lo {
		p.Y.Scale, p.Y.Tick.Marker = plot.LogScale{}, decades{func(v float64) string { return duration(v / 1e3) }}
		p.Y.Min, p.Y.Max = lo/1.5, hi*1.5
		sub = "time on a logarithmic scale, lower is better"
	} else {
		p.Y.Min = 0
	}
	first, last := ticks[0].Value, ticks[len(ticks)-1].Value
	p.X.Min, p.X.Max = first*0.8, max(last*1.15, first*2)
	return panel{title: "Time to open a store and to rotate its KEK", sub: sub, plot: p, right: l.room()}, true
}

func callsByOperation(s *source) (panel, bool) {
	modes := []string{"ByKeyring", "ByKEK"}
	b := bars{style: textStyle(10, ink, false)}
	ok := false
	var names []string
	for i, mode := range modes {
		c := set{label: mode, color: colour(ours)}
		if i > 0 {
			c.color = second()
		}
		names = nil
		for _, op := range []struct{ name, label string }{{"put", "Put"}, {"get", "Get"}, {"check", "check"}, {"open", "open"}, {"rotate", "RotateKEK"}} {
			v := over(values(s.need(fmt.Sprintf("VaultCalls/mode=%s/op=%s", mode, op.name), ours, vaultCalls)))
			c.values = append(c.values, v)
			names = append(names, op.label)
			ok = ok || v.n > 0
		}
		b.sets = append(b.sets, c)
	}
	if !ok {
		return panel{}, false
	}
	return barPanel("Vault calls for one operation", "calls, lower is better", b, names, nil, ""), true
}
