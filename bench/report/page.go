package main

import (
	"bytes"
	_ "embed"
	"encoding/base64"
	"fmt"
	"html/template"
	"os"
	"slices"
	"strings"
)

//go:embed page.html
var pageHTML string

// page is what the page shows.
type page struct {
	Machine     string
	Quick       bool
	Interrupted bool
	Rounds      int
	Unreadable  int
	Failed      []string
	Tally       string
	Groups      []verdicts
	Charts      []drawn
	Missing     []string // charts without data
	Rows        []figure
}

// figure is a row of the table with all figures.
type figure struct {
	Name, Impl, Time, Range, Rate, Bytes, Allocs, Other string
	Rounds                                              int
}

// newPage makes the page of a run, with what was measured by itself behind its targets.
func newPage(r *results, machine string, more ...verdicts) page {
	p := page{Machine: machine, Quick: r.quick, Interrupted: r.interrupted, Rounds: len(r.rounds),
		Unreadable: r.unreadable, Failed: r.failed, Groups: append(judge(r), more...), Rows: r.table()}
	count := map[string]int{}
	for _, g := range p.Groups {
		for _, v := range g.Verdicts {
			count[v.Verdict]++
		}
	}
	p.Tally = fmt.Sprintf("%d targets met, %d within the noise, %d not met, %d without data", count[met], count[inNoise], count[notMet], count[noData])
	return p
}

func (p page) write(file string) error {
	t, err := template.New("page").Funcs(template.FuncMap{
		// Bytes of an image that this program drew: safe in a URL of this form alone.
		"image": func(png []byte) template.URL {
			return template.URL("data:image/png;base64," + base64.StdEncoding.EncodeToString(png))
		},
		"class": func(verdict string) string { return strings.ReplaceAll(verdict, " ", "-") },
	}).Parse(pageHTML)
	if err != nil {
		return err
	}
	var b bytes.Buffer
	if err := t.Execute(&b, p); err != nil {
		return err
	}
	return os.WriteFile(file, b.Bytes(), 0o644)
}

// table returns all rows with their medians, also those that no chart or target asks for.
func (r *results) table() []figure {
	procs := map[string]bool{}
	for _, w := range r.rows {
		procs[w.procs] = true
	}
	var out []figure
	for _, w := range r.rows {
		l := figure{Name: w.name, Impl: w.impl}
		if len(procs) > 1 {
			l.Name += w.procs
		}
		var other []string
		units := make([]string, 0, len(w.values))
		for u := range w.values {
			units = append(units, u)
		}
		slices.Sort(units)
		for _, u := range units {
			s := over(values(w.values[u]))
			l.Rounds = max(l.Rounds, s.n)
			switch u {
			case seconds:
				l.Time = duration(s.median)
				if s.n > 1 {
					l.Range = duration(s.low) + " to " + duration(s.high)
				}
			case "B/s":
				l.Rate = fmt.Sprintf("%.0f MB/s", s.median/1e6)
			case "B/op":
				l.Bytes = fmt.Sprintf("%.0f", s.median)
			case "allocs/op":
				l.Allocs = fmt.Sprintf("%.0f", s.median)
			default:
				if q, ok := strings.CutSuffix(u, "-sec"); ok {
					other = append(other, q+" "+duration(s.median))
				} else if base, ok := strings.CutSuffix(u, "-"+seconds); ok {
					other = append(other, base+" in turns with it "+duration(s.median))
				} else {
					other = append(other, number(s.median)+" "+u)
				}
			}
		}
		l.Other = strings.Join(other, ", ")
		out = append(out, l)
	}
	return out
}
