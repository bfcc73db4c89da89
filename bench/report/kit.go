package main

import (
	"bytes"
	"fmt"
	"image/color"
	"math"

	"gonum.org/v1/plot"
	"gonum.org/v1/plot/font"
	"gonum.org/v1/plot/plotter"
	"gonum.org/v1/plot/text"
	"gonum.org/v1/plot/vg"
	"gonum.org/v1/plot/vg/draw"
	"gonum.org/v1/plot/vg/vgimg"
)

// panel is a plot with its title, a line that says how to read it, and a legend in a
// strip above it, where it covers no data.
type panel struct {
	title, sub string
	keys       []key
	plot       *plot.Plot
	right      vg.Length // left free beside the plot, for labels at the ends of lines
}

// key is an entry of the legend.
type key struct {
	label string
	color color.Color
	glyph draw.GlyphDrawer // a filled square if nil
	line  bool
}

// gray is a shade from black, 0, to white, 255.
type gray uint8

func (g gray) RGBA() (r, gr, b, a uint32) { return color.Gray{Y: uint8(g)}.RGBA() }

// Ink is the colour of text, faint that of what should not be seen first.
const (
	ink   gray = 34
	soft  gray = 95
	faint gray = 226
)

// colour is the same for an implementation in every chart. The palette is Okabe and Ito's,
// which people tell apart who do not see all colours; vermilion is blockseal's alone.
func colour(impl string) color.Color {
	switch impl {
	case ours:
		return color.RGBA{213, 94, 0, 255}
	case "pebble":
		return color.RGBA{0, 114, 178, 255}
	case "badger":
		return color.RGBA{0, 158, 115, 255}
	case "tink":
		return color.RGBA{204, 121, 167, 255}
	case "go-kms-wrapping":
		return color.RGBA{120, 94, 160, 255}
	case "sio":
		return color.RGBA{86, 180, 233, 255}
	case "floor":
		return gray(50)
	}
	return gray(150)
}

// second is blockseal's own colour for the second of two things that it does.
func second() color.Color { return color.RGBA{244, 178, 125, 255} }

func textStyle(points float64, c color.Color, bold bool) text.Style {
	f := font.Font{Typeface: "Liberation", Variant: "Sans"}
	if bold {
		f.Weight = 3 // bold, in the numbers of golang.org/x/image/font
	}
	return text.Style{Color: c, Font: font.From(f, vg.Length(points)), Handler: plot.DefaultTextHandler}
}

func newPlot() *plot.Plot {
	p := plot.New()
	p.BackgroundColor = nil
	p.X.Padding, p.Y.Padding = 0, 4
	for _, a := range []*plot.Axis{&p.X, &p.Y} {
		rotation, xa, ya := a.Tick.Label.Rotation, a.Tick.Label.XAlign, a.Tick.Label.YAlign
		a.Tick.Label = textStyle(10.5, ink, false)
		a.Tick.Label.Rotation, a.Tick.Label.XAlign, a.Tick.Label.YAlign = rotation, xa, ya
		rotation, xa, ya = a.Label.TextStyle.Rotation, a.Label.TextStyle.XAlign, a.Label.TextStyle.YAlign
		a.Label.TextStyle = textStyle(10.5, soft, false)
		a.Label.TextStyle.Rotation, a.Label.TextStyle.XAlign, a.Label.TextStyle.YAlign = rotation, xa, ya
		a.Tick.Length, a.Tick.LineStyle.Width, a.LineStyle.Width = 0, 0, 0
	}
	p.X.LineStyle.Width, p.X.LineStyle.Color = 0.75, soft
	p.X.Tick.Length = 4 // drawn without width: room above the labels
	grid := plotter.NewGrid()
	grid.Vertical.Color = nil
	grid.Horizontal.Color, grid.Horizontal.Width = faint, 0.75
	p.Add(grid)
	return p
}

// render draws panels side by side, so many points wide and high.
func render(width, height vg.Length, dpi int, panels ...panel) ([]byte, error) {
	img := vgimg.NewWith(vgimg.UseWH(width, height), vgimg.UseDPI(dpi), vgimg.UseBackgroundColor(color.White))
	whole := draw.New(img)
	part := (whole.Max.X - whole.Min.X) / vg.Length(len(panels))
	for i, p := range panels {
		c := whole
		c.Min.X = whole.Min.X + part*vg.Length(i)
		c.Max.X = c.Min.X + part
		p.draw(draw.Crop(c, 12, -12, 8, -10))
	}
	var b bytes.Buffer
	if _, err := (vgimg.PngCanvas{Canvas: img}).WriteTo(&b); err != nil {
		return nil, fmt.Errorf("draw a chart: %w", err)
	}
	return b.Bytes(), nil
}

func (p panel) draw(c draw.Canvas) {
	at := c.Max.Y
	for _, t := range []struct {
		style text.Style
		text  string
	}{{textStyle(14, ink, true), p.title}, {textStyle(10.5, soft, false), p.sub}} {
		t.style.YAlign = text.YTop
		c.FillText(t.style, vg.Point{X: c.Min.X, Y: at}, t.text)
		at -= t.style.Height(t.text) + 3
	}
	if len(p.keys) > 0 {
		at = p.legend(c, at-2)
	}
	p.plot.Draw(draw.Crop(c, 0, -p.right, 0, at-6-c.Max.Y))
}

// legend draws the strip and returns where it ends.
func (p panel) legend(c draw.Canvas, top vg.Length) vg.Length {
	const size, gap = 9, 14
	style := textStyle(10.5, ink, false)
	style.YAlign = text.YCenter
	x, y := c.Min.X, top-7
	for _, k := range p.keys {
		w := size + 5 + style.Width(k.label)
		if x > c.Min.X && x+w > c.Max.X {
			x, y = c.Min.X, y-15
		}
		switch {
		case k.line:
			c.StrokeLine2(draw.LineStyle{Color: k.color, Width: 1.75}, x, y, x+size, y)
		case k.glyph != nil:
			c.DrawGlyphNoClip(draw.GlyphStyle{Color: k.color, Radius: 4, Shape: k.glyph}, vg.Point{X: x + size/2, Y: y})
		default:
			square(c, k.color, x, x+size, y-size/2, y+size/2)
		}
		c.FillText(style, vg.Point{X: x + size + 5, Y: y + 1}, k.label)
		x += w + gap
	}
	return y - 7
}

func square(c draw.Canvas, fill color.Color, x0, x1, y0, y1 vg.Length) {
	c.FillPolygon(fill, []vg.Point{{X: x0, Y: y0}, {X: x1, Y: y0}, {X: x1, Y: y1}, {X: x0, Y: y1}})
}

// number writes a value with three digits that count, and no more decimals than two.
func number(v float64) string {
	switch {
	case v == math.Trunc(v):
		return fmt.Sprintf("%.0f", v)
	case v < 10:
		return fmt.Sprintf("%.2f", v)
	case v < 100:
		return fmt.Sprintf("%.1f", v)
	}
	return fmt.Sprintf("%.0f", v)
}

// duration writes a number of seconds.
func duration(s float64) string {
	switch {
	case s < 1e-6:
		return fmt.Sprintf("%.3g ns", s*1e9)
	case s < 1e-3:
		return number(s*1e6) + " µs"
	case s < 1:
		return number(s*1e3) + " ms"
	}
	return number(s) + " s"
}
