package main

import (
	"image/color"

	"gonum.org/v1/plot"
	"gonum.org/v1/plot/text"
	"gonum.org/v1/plot/vg"
	"gonum.org/v1/plot/vg/draw"
)

// bars draws groups of bars, one for each set, with the value at the end of each and a line from
// the lowest to the highest round. A bar without values is left out: it is not 0.
type bars struct {
	sets  []set
	style text.Style
	from  float64 // where bars begin: 0, or 1 for ratios on a logarithmic scale
}

// set is a bar in each group.
type set struct {
	label  string
	color  color.Color
	values []spread
}

func (b bars) groups() int { return len(b.sets[0].values) }

func (b bars) Plot(c draw.Canvas, p *plot.Plot) {
	x, y := p.Transforms(&c)
	group := x(1) - x(0)
	for g := range b.groups() {
		var present []set
		for _, s := range b.sets {
			if s.values[g].n > 0 {
				present = append(present, s)
			}
		}
		width := min(group*0.82/vg.Length(len(b.sets)), 40)
		left := x(float64(g)) - width*vg.Length(len(present))/2
		for i, s := range present {
			v := s.values[g]
			x0 := left + width*vg.Length(i)
			x1 := x0 + width
			square(c, s.color, x0+0.75, x1-0.75, y(b.from), y(v.median))
			if v.n > 1 {
				c.StrokeLine2(draw.LineStyle{Color: soft, Width: 1}, (x0+x1)/2, y(v.low), (x0+x1)/2, y(v.high))
			}
			style := b.style
			style.XAlign = text.XCenter
			at := vg.Point{X: (x0 + x1) / 2, Y: max(y(v.high), y(b.from)) + 3}
			if v.median < b.from { // the bar points down
				style.YAlign = text.YTop
				at.Y = min(y(v.low), y(b.from)) - 3
			}
			c.FillText(style, at, number(v.median))
		}
	}
}

func (b bars) DataRange() (xmin, xmax, ymin, ymax float64) {
	ymin, ymax = b.from, b.from
	for _, s := range b.sets {
		for _, v := range s.values {
			if v.n > 0 {
				ymin, ymax = min(ymin, v.low), max(ymax, v.high)
			}
		}
	}
	if b.from == 0 {
		ymin = 0
	}
	return -0.5, float64(b.groups()) - 0.5, ymin / 1.35, ymax * 1.12
}

// level is a line across the chart: what the bars are measured against.
type level struct {
	at    float64
	color color.Color
}

func (l level) Plot(c draw.Canvas, p *plot.Plot) {
	_, y := p.Transforms(&c)
	c.StrokeLine2(draw.LineStyle{Color: l.color, Width: 1.75}, c.Min.X, y(l.at), c.Max.X, y(l.at))
}

func (l level) DataRange() (xmin, xmax, ymin, ymax float64) { return 0, 0, 0, l.at * 1.1 }

// nominal puts names under the groups.
func nominal(p *plot.Plot, names []string) {
	ticks := make(plot.ConstantTicks, len(names))
	for i, n := range names {
		ticks[i] = plot.Tick{Value: float64(i), Label: n}
	}
	p.X.Tick.Marker = ticks
}
