package main

import (
	"errors"
	"fmt"
	"io"
	"strings"
	"time"
)

// slope returns by how much y grows for each x, by least squares, and its value at 0.
func slope(x, y []float64) (each, fixed float64) {
	n := float64(len(x))
	var sx, sy, sxx, sxy float64
	for i := range x {
		sx, sy, sxx, sxy = sx+x[i], sy+y[i], sxx+x[i]*x[i], sxy+x[i]*y[i]
	}
	if d := n*sxx - sx*sx; d != 0 {
		each = (n*sxy - sx*sy) / d
	}
	return each, (sy - each*sx) / n
}

// growth is what a block adds, from the measurements.
type growth struct {
	disk, heap float64 // bytes a block, disk beyond its plaintext
	largest    int
	openCalls  int
}

func (m measurements) growth() growth {
	var blocks, disk, heap []float64
	g := growth{}
	for _, p := range m.Growth {
		blocks = append(blocks, float64(p.Blocks))
		disk = append(disk, float64(p.Disk)-float64(p.Blocks*p.Size))
		heap = append(heap, float64(p.Heap))
		g.largest, g.openCalls = max(g.largest, p.Blocks), p.OpenCalls
	}
	g.disk, _ = slope(blocks, disk)
	g.heap, _ = slope(blocks, heap)
	return g
}

// What the tables take from elsewhere.
const (
	volume      = 16e12 // bytes: 16 TB
	cacheRecord = 73    // bytes of the record cache for a block (block.Options.RecordCache)
	checkCalls  = 3     // of a check, one each minute
	rateRecords = 130e3 // DEK records that RotateEpoch rewraps in a second; docs/performance.md
	vaultLimit  = 2000  // operations in 10 s with a key in an HSM ("Key Vault service limits")
)

// write writes the tables in Markdown.
func (m measurements) write(w io.Writer) error {
	if len(m.Growth) < 2 || len(m.Payloads) == 0 {
		return errors.New("there are too few measurements for a table")
	}
	var b strings.Builder
	g := m.growth()
	fmt.Fprintf(&b, "Measured, with blocks of %d bytes:\n\n", m.Growth[0].Size)
	fmt.Fprint(&b, "| blocks | disk | beyond the plaintext, a block | live heap, more than empty | open, with a log to replay | cold open | vault calls to fill | to open | keyring document | epochs |\n|---|---|---|---|---|---|---|---|---|---|\n")
	for _, p := range m.Growth {
		fmt.Fprintf(&b, "| %s | %s | %.0f B | %s | %v | %v | %d | %d | %s | %d |\n", count(float64(p.Blocks)), amount(float64(p.Disk)),
			float64(p.Disk)/float64(p.Blocks)-float64(p.Size), amount(float64(p.Heap)), p.Replay.Round(time.Millisecond), p.Open.Round(time.Millisecond),
			p.FillCalls, p.OpenCalls, amount(float64(p.Keyring)), p.Epochs)
	}
	fmt.Fprintf(&b, "\nBy least squares, a block adds %.0f bytes of disk beyond its plaintext and %.2f bytes of live heap.\n\n", g.disk, g.heap)
	writeLoaded(&b, m.Loaded)
	fmt.Fprint(&b, "Blocks of a usual size, the least of four fillings; what Pebble has yet to remove is besides that, at times 64 MiB:\n\n| block | blocks | disk beyond the plaintext, a block | |\n|---|---|---|---|\n")
	for _, p := range m.Payloads {
		fmt.Fprintf(&b, "| %s | %s | %.0f B | %.2f%% |\n", amount(float64(p.Size)), count(float64(p.Blocks)), p.each(), 100*p.each()/float64(p.Size))
	}
	fmt.Fprintf(&b, "\nFor 16 TB of data. Disk and heap are **extrapolated** from at most %s blocks, linearly.\n\n", count(float64(g.largest)))
	fmt.Fprint(&b, "|")
	for _, p := range m.Payloads {
		fmt.Fprintf(&b, " | %s", amount(float64(p.Size)))
	}
	fmt.Fprint(&b, " |\n|---"+strings.Repeat("|---", len(m.Payloads))+"|\n")
	row := func(name string, f func(p payload, n float64) string) {
		fmt.Fprintf(&b, "| %s", name)
		for _, p := range m.Payloads {
			fmt.Fprintf(&b, " | %s", f(p, volume/float64(p.Size)))
		}
		fmt.Fprint(&b, " |\n")
	}
	row("blocks", func(_ payload, n float64) string { return count(n) })
	row("disk beyond the 16 TB, with ids of 8 bytes", func(p payload, n float64) string { return amount(n * p.each()) })
	row("memory that grows by itself (Pebble's tables)", func(_ payload, n float64) string { return amount(n * max(g.heap, 0)) })
	row("record cache that holds all DEK records", func(_ payload, n float64) string { return amount(n * cacheRecord) })
	for _, cache := range []struct{ name, size string }{
		{"record cache by default", "32 MiB"}, {"row cache by default, at the most", "64 MiB"},
		{"block cache by default, at the most", "64 MiB"}, {"memtables by default, at the most", "256 MiB"},
	} {
		row(cache.name, func(payload, float64) string { return cache.size })
	}
	row("vault calls to open", func(payload, float64) string { return fmt.Sprint(g.openCalls) })
	row("vault calls a day, of checks", func(payload, float64) string { return fmt.Sprint(checkCalls * 24 * 60) })
	row("vault calls to rotate the KEK, `ByKeyring`", func(payload, float64) string { return "3" })
	row("time to rewrap all records, `RotateEpoch`", func(_ payload, n float64) string { return hours(n / rateRecords) })
	row("vault calls to write all, `ByKEK`", func(_ payload, n float64) string { return count(n) })
	row("the least time for them, at the limit of one vault with an HSM key", func(_ payload, n float64) string { return hours(n / vaultLimit * 10) })
	_, err := io.WriteString(w, b.String())
	return err
}

// each is what a block takes on disk beyond its plaintext, in bytes.
func (p payload) each() float64 { return float64(p.Disk)/float64(p.Blocks) - float64(p.Size) }

func count(n float64) string {
	for _, u := range []struct {
		unit float64
		name string
	}{{1e9, " billion"}, {1e6, " million"}, {1e3, ",000"}} {
		if n >= u.unit {
			if u.unit == 1e3 {
				return fmt.Sprintf("%.0f%s", n/u.unit, u.name)
			}
			return strings.TrimSuffix(fmt.Sprintf("%.1f", n/u.unit), ".0") + u.name
		}
	}
	return fmt.Sprintf("%.0f", n)
}

func amount(n float64) string {
	units := []string{"B", "KiB", "MiB", "GiB", "TiB"}
	i := 0
	for ; n >= 1024 && i < len(units)-1; i++ {
		n /= 1024
	}
	return strings.TrimSuffix(fmt.Sprintf("%.1f", n), ".0") + " " + units[i]
}

func hours(seconds float64) string {
	d := time.Duration(seconds * float64(time.Second))
	switch {
	case d < time.Hour:
		return fmt.Sprintf("%.0f minutes", d.Minutes())
	case d < 72*time.Hour:
		return fmt.Sprintf("%.1f hours", d.Hours())
	}
	return fmt.Sprintf("%.0f days", d.Hours()/24)
}
