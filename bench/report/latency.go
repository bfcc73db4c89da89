package main

import (
	"image/color"
	"math"

	"gonum.org/v1/plot"
	"gonum.org/v1/plot/text"
	"gonum.org/v1/plot/vg"
	"gonum.org/v1/plot/vg/draw"
)

// quantile is a column of the latency chart.
type quantile struct {
	unit, label string
	glyph       draw.GlyphDrawer
}

func quantiles() []quantile {
	return []quantile{{"p50-sec", "median", draw.CircleGlyph{}}, {"p99-sec", "99th percentile", draw.BoxGlyph{}}, {"p99.9-sec", "99.9th percentile", draw.PyramidGlyph{}}}
}

// latencies draws a line from the median to the tails for each operation and store. Where
// a mark stands is the value, so that the axis may be logarithmic, which bars may not.
func latencies(s *source) (panel, bool) {
	var d dots
	var ticks plot.ConstantTicks
	ok := false
	for _, op := range []struct {
		name, label string
		impls       []string
	}{{"put", "Put", []string{ours, "pebble", "badger"}}, {"get", "Get", []string{ours, "pebble", "badger"}}, {"seal", "seal", []string{ours}}} {
		for _, impl := range op.impls {
			r := dotRow{color: colour(impl)}
			for _, q := range quantiles() {
				v := over(values(s.need("Latency/op="+op.name+"/size=4096", impl, q.unit)))
				if v.n > 0 && v.median > 0 {
					r.marks = append(r.marks, mark{v.median, q.glyph})
				}
			}
			if len(r.marks) == 0 {
				continue
			}
			ok = ok || impl == ours
			r.at = -float64(len(d.rows)) // the first at the top
			d.rows = append(d.rows, r)
			ticks = append(ticks, plot.Tick{Value: r.at, Label: op.label + "  " + label(impl)})
		}
	}
	if !ok {
		return panel{}, false
	}
	d.style = textStyle(9.5, ink, false)
	p := newPlot()
	p.X.Scale, p.X.Tick.Marker = plot.LogScale{}, decades{duration}
	p.Y.Tick.Marker = ticks
	p.Add(d)
	p.Y.Min, p.Y.Max = -float64(len(d.rows))+0.4, 0.6
	out := panel{title: "Latency of one operation on 4 KiB", sub: "logarithmic scale, further left is better", plot: p, right: 12}
	for _, q := range quantiles() {
		out.keys = append(out.keys, key{label: q.label, color: soft, glyph: q.glyph})
	}
	return out, true
}

type mark struct {
	value float64
	glyph draw.GlyphDrawer
}

type dotRow struct {
	at    float64
	color color.Color
	marks []mark
}

// dots draws rows of marks, joined by a line, with their values above them.
type dots struct {
	rows  []dotRow
	style text.Style
}

func (d dots) Plot(c draw.Canvas, p *plot.Plot) {
	x, y := p.Transforms(&c)
	for _, r := range d.rows {
		at := y(r.at)
		first, last := r.marks[0].value, r.marks[len(r.marks)-1].value
		c.StrokeLine2(draw.LineStyle{Color: r.color, Width: 1.5}, x(first), at, x(last), at)
		taken := vg.Length(math.Inf(-1))
		for _, m := range r.marks {
			c.DrawGlyphNoClip(draw.GlyphStyle{Color: r.color, Radius: 4, Shape: m.glyph}, vg.Point{X: x(m.value), Y: at})
			style := d.style
			style.XAlign = text.XCenter
			txt := duration(m.value)
			// A value that would stand in another's is left to the table.
			if half := style.Width(txt) / 2; x(m.value)-half > taken {
				c.FillText(style, vg.Point{X: x(m.value), Y: at + 6}, txt)
				taken = x(m.value) + half + 2
			}
		}
	}
}

func (d dots) DataRange() (xmin, xmax, ymin, ymax float64) {
	xmin, xmax = math.Inf(1), math.Inf(-1)
	for _, r := range d.rows {
		for _, m := range r.marks {
			xmin, xmax = min(xmin, m.value), max(xmax, m.value)
		}
	}
	return xmin / 1.6, xmax * 1.6, -float64(len(d.rows)), 0
}

// decades puts ticks at the powers of ten of a logarithmic axis.
type decades struct{ label func(float64) string }

func (d decades) Ticks(lo, hi float64) (ticks []plot.Tick) {
	for e := math.Ceil(math.Log10(lo)); e <= math.Log10(hi); e++ {
		ticks = append(ticks, plot.Tick{Value: math.Pow(10, e), Label: d.label(math.Pow(10, e))})
	}
	return ticks
}
