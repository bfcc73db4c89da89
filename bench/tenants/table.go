package main

import (
	"errors"
	"fmt"
	"io"
	"math"
	"slices"
	"strings"
	"time"
)

// vaultLimit is how many operations with RSA-2048 software keys a vault of Azure Key Vault serves in
// 10 seconds ("Key Vault service limits").
const vaultLimit = 4000

// write writes the tables in Markdown.
func (m measurements) write(w io.Writer) error {
	if len(m.Create.Create) == 0 || len(m.OpenDB.One) == 0 || len(m.Use) == 0 || m.Restart.Asked == 0 || len(m.Drop) == 0 {
		return errors.New("there are too few measurements for a table")
	}
	var b strings.Builder
	c, r := m.Create, m.Restart
	fmt.Fprintf(&b, "| %s stores in one DB | target | measured | range | |\n|---|---|---|---|---|\n", count(m.Stores))
	row := func(what string, atMost bool, limit float64, s spread, unit string) {
		sign, verdict := "≥", "not met"
		if atMost {
			sign = "≤"
		}
		if atMost && s.median <= limit || !atMost && s.median >= limit {
			verdict = "met"
		}
		fmt.Fprintf(&b, "| %s | %s %s%s | %s | %s | %s |\n", what, sign, number(limit), unit, number(s.median), between(s), verdict)
	}
	rates := over(len(c.Create), func(i int) float64 { return 1e9 / c.Create[i] })
	row("created, one after the other, each durably", false, 200, rates, " a second")
	row("the same, and closed", false, 200, over(len(c.Create), func(i int) float64 { return 1e9 / (c.Create[i] + c.Close[i]) }), " a second")
	o := m.OpenDB
	row("`OpenDB`, in times of that of a DB with one store, by processor time", true, 1.2, over(len(o.One), func(i int) float64 { return o.Many[i].CPU / o.One[i].CPU }), "")
	row("the same, by the time that passes", true, 1.2, over(len(o.One), func(i int) float64 { return o.Many[i].Wall / o.One[i].Wall }), "")
	row("bytes of memory of a store that is not open", true, 256, exactly(m.Memory.Closed), "")
	row("the same, where this process has created it", true, 256, exactly(c.Held), "")
	row("KiB of memory of an open store", true, 64, exactly(m.Memory.Open/1024), "")
	for _, u := range m.Use {
		target := 0.95
		if len(u.Bound.One) > 0 {
			bound := over(len(u.Bound.One), func(i int) float64 { return u.Bound.One[i].CPU / u.Bound.Many[i].CPU })
			target = min(target, math.Round(100*shareOfBound*bound.median)/100)
			fmt.Fprintf(&b, "| the bound of %s: the same of a map or a plain Pebble with a key for each store | | %s | %s | |\n", u.Op, number(bound.median), between(bound))
		}
		row(fmt.Sprintf("%s, over %s stores: rate, in times of one store's, by processor time", u.Op, count(m.Open)), false, target,
			over(len(u.One), func(i int) float64 { return u.One[i].CPU / u.Many[i].CPU }), "")
		row("the same, by the time that passes", false, target, over(len(u.One), func(i int) float64 { return u.One[i].Wall / u.Many[i].Wall }), "")
	}
	stores, beyond := m.beyond()
	row(fmt.Sprintf("KiB that `Drop` of one of %s stores writes beyond what that one had", count(stores)), true, dropBeyond/1024,
		over(len(beyond), func(i int) float64 { return beyond[i] / 1024 }), "")
	row("restart: most calls to the vault in 10 seconds", true, vaultLimit, exactly(float64(r.Most)), "")
	row("restart: Gets that were refused", true, 0, exactly(float64(r.Refused)), "")

	fmt.Fprintf(&b, "\nWhat is noise: by round, one such store in another DB has")
	for i, u := range m.Use {
		s := over(len(u.One), func(i int) float64 { return u.One[i].CPU / u.Again[i].CPU })
		fmt.Fprintf(&b, "%s %s to %s for %s", []string{"", " and"}[min(i, 1)], number(s.low), number(s.high), u.Op)
	}
	fmt.Fprintf(&b, ", by processor time.")
	fmt.Fprintf(&b, " `OpenDB` was called %d times on each side; the first one after all those stores were made is none of them and takes %s, with the engine's log to replay.\n", len(o.One), seconds(o.Replay))

	inPuts := func(of []float64) string {
		return number(over(len(of), func(i int) float64 { return of[i] / c.Put[i] }).median)
	}
	fmt.Fprintf(&b, "\nA creation makes %s calls to the vault and takes as long as %s synced Puts in turns with it; a Close takes as long as %s.\n",
		number(c.Calls), inPuts(c.Create), inPuts(c.Close))

	fmt.Fprintf(&b, "\nA restart: %s of %s stores are asked for in the first second, by one Get each, and their vault takes %v for a call.\n\n", count(r.Asked), count(m.Stores), r.Delay)
	fmt.Fprint(&b, "| calls to the vault | at once | the median Get | the slowest | refused |\n|---|---|---|---|---|\n")
	fmt.Fprintf(&b, "| %s | %d | %s | %s | %d |\n", count(r.Calls), r.AtOnce, seconds(r.Median), seconds(r.Slowest), r.Refused)

	fmt.Fprintf(&b, "\n`Drop` of a store among others that have %d blocks of %s each; medians of %d:\n\n", dropBlocks, amount(dropSize), dropEach)
	fmt.Fprint(&b, "| stores in the DB | the dropped one has | time | bytes written |\n|---|---|---|---|\n")
	for _, d := range m.Drop {
		fmt.Fprintf(&b, "| %s | %s | %s | %s |\n", count(d.Stores), amount(float64(d.Blocks)*dropSize),
			seconds(middle(d.Took)), amount(float64(middle(d.Written))))
	}
	_, err := io.WriteString(w, b.String())
	return err
}

// shareOfBound is what a target asks for where its bound does not give more.
const shareOfBound = 0.95

// dropBeyond is how many bytes a Drop may write beyond what the store had: what others have in the
// same tables.
const dropBeyond = 1 << 20

// beyond returns, of each Drop in the largest DB, how many bytes it wrote beyond those of the store's
// blocks.
func (m measurements) beyond() (stores int, bytes []float64) {
	for _, d := range m.Drop {
		if d.Stores > stores {
			stores, bytes = d.Stores, nil
		}
		for _, written := range d.Written {
			if d.Stores == stores {
				bytes = append(bytes, float64(max(0, written-int64(d.Blocks)*dropSize)))
			}
		}
	}
	return stores, bytes
}

// spread is what was measured in some rounds.
type spread struct{ low, median, high float64 }

func between(s spread) string {
	if s.low == s.high {
		return ""
	}
	return fmt.Sprintf("%s to %s", number(s.low), number(s.high))
}

func over(n int, f func(i int) float64) spread {
	v := make([]float64, n)
	for i := range v {
		v[i] = f(i)
	}
	slices.Sort(v)
	return spread{v[0], middle(v), v[n-1]}
}

func exactly(v float64) spread { return spread{v, v, v} }

// middle returns the median, the higher one of two.
func middle[N float64 | int64 | time.Duration](all []N) N {
	return slices.Sorted(slices.Values(all))[len(all)/2]
}

// number writes a number as exactly as it is worth.
func number(v float64) string {
	switch {
	case v == float64(int64(v)):
		return count(int(v))
	case v >= 100:
		return count(int(v + 0.5))
	case v >= 10:
		return fmt.Sprintf("%.1f", v)
	}
	return fmt.Sprintf("%.2f", v)
}

// count writes an integer with its thousands apart.
func count(n int) string {
	s := fmt.Sprint(n)
	for i := len(s) - 3; i > 0; i -= 3 {
		s = s[:i] + "," + s[i:]
	}
	return s
}

func seconds(d time.Duration) string {
	if d < time.Second {
		return fmt.Sprintf("%d ms", d.Milliseconds())
	}
	return fmt.Sprintf("%.1f s", d.Seconds())
}

// amount writes a number of bytes.
func amount(n float64) string {
	units := []string{"B", "KiB", "MiB", "GiB"}
	i := 0
	for ; n >= 1024 && i < len(units)-1; i++ {
		n /= 1024
	}
	return strings.TrimSuffix(fmt.Sprintf("%.1f", n), ".0") + " " + units[i]
}
