package main

import (
	"image/color"
	"math"
	"slices"

	"gonum.org/v1/plot"
	"gonum.org/v1/plot/text"
	"gonum.org/v1/plot/vg"
	"gonum.org/v1/plot/vg/draw"
)

// point is a value over its place, with its spread.
type point struct {
	x float64
	y spread
}

// series is one line of a chart.
type series struct {
	label  string
	color  color.Color
	points []point
	width  vg.Length
	dashed bool
}

// lines draws several series, each with its label at the right end, where it cannot be
// taken for another's.
type lines struct {
	series []series
	style  text.Style
}

func (l lines) Plot(c draw.Canvas, p *plot.Plot) {
	x, y := p.Transforms(&c)
	for _, s := range l.series {
		style := draw.LineStyle{Color: s.color, Width: s.width}
		if s.dashed {
			style.Dashes = []vg.Length{4, 3}
		}
		var path []vg.Point
		for _, q := range s.points {
			at := vg.Point{X: x(q.x), Y: y(q.y.median)}
			path = append(path, at)
			if q.y.n > 1 {
				c.StrokeLine2(draw.LineStyle{Color: s.color, Width: 1}, at.X, y(q.y.low), at.X, y(q.y.high))
			}
			c.DrawGlyphNoClip(draw.GlyphStyle{Color: s.color, Radius: s.width + 1, Shape: draw.CircleGlyph{}}, at)
		}
		c.StrokeLines(style, path)
	}
	l.labels(c, y)
}

// labels writes the labels beside the last points, moved apart where they would overlap.
func (l lines) labels(c draw.Canvas, y func(float64) vg.Length) {
	byEnd := slices.SortedFunc(slices.Values(l.series), func(a, b series) int { return compare(a.last(), b.last()) })
	at := make([]vg.Length, len(byEnd))
	for i, s := range byEnd {
		at[i] = y(s.last())
		gap := l.style.Font.Size * 1.2
		if i > 0 {
			at[i] = max(at[i], at[i-1]+gap)
		}
	}
	limit := c.Max.Y
	for i := len(at) - 1; i >= 0; i-- {
		at[i] = min(at[i], limit)
		limit = at[i] - l.style.Font.Size*1.2
	}
	for i, s := range byEnd {
		style := l.style
		style.Color, style.YAlign = darker(s.color), text.YCenter
		c.FillText(style, vg.Point{X: c.Max.X + 8, Y: at[i] + 1}, s.label)
	}
}

func (s series) last() float64 { return s.points[len(s.points)-1].y.median }

func compare(a, b float64) int {
	switch {
	case a < b:
		return -1
	case a > b:
		return 1
	}
	return 0
}

// darker is a colour for text, which is thinner than a line and needs more contrast.
func darker(c color.Color) color.Color {
	r, g, b, _ := c.RGBA()
	scale := func(v uint32) uint8 { return uint8(v >> 8 * 7 / 10) }
	return color.RGBA{scale(r), scale(g), scale(b), 255}
}

// room is what the labels need beside the plot.
func (l lines) room() vg.Length {
	var w vg.Length
	for _, s := range l.series {
		w = max(w, l.style.Width(s.label))
	}
	return w + 10
}

func (l lines) DataRange() (xmin, xmax, ymin, ymax float64) {
	xmin, xmax, ymin, ymax = math.Inf(1), math.Inf(-1), math.Inf(1), math.Inf(-1)
	for _, s := range l.series {
		for _, q := range s.points {
			xmin, xmax = min(xmin, q.x), max(xmax, q.x)
			ymin, ymax = min(ymin, q.y.low), max(ymax, q.y.high)
		}
	}
	return xmin, xmax, ymin, ymax
}
