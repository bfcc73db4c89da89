package main

import (
	"fmt"
	"io"
	"os"
	"strings"
	"text/tabwriter"
	"time"

	"golang.org/x/term"

	"github.com/blockseal/blockseal/keyring"
)

// bar is a progress bar, on a terminal; elsewhere it prints nothing.
type bar struct {
	out         io.Writer
	what        string
	done, total int64
	last        time.Time
	live        bool
}

func newBar(out io.Writer, what string, total int64) *bar {
	f, ok := out.(*os.File)
	return &bar{out: out, what: what, total: total, live: ok && term.IsTerminal(int(f.Fd()))}
}

func (b *bar) add(n int64) {
	b.done += n
	if !b.live || time.Since(b.last) < 50*time.Millisecond {
		return
	}
	b.last = time.Now()
	const width = 40
	part := 1.0
	if b.total > 0 {
		part = min(float64(b.done)/float64(b.total), 1)
	}
	full := int(part * width)
	fmt.Fprintf(b.out, "\r%-8s [%s%s] %3.0f%%", b.what, strings.Repeat("#", full), strings.Repeat(".", width-full), part*100)
}

// end takes the bar off the screen.
func (b *bar) end() {
	if b.live && !b.last.IsZero() {
		fmt.Fprint(b.out, "\r\x1b[K")
		b.last = time.Time{}
	}
	b.live = false
}

// summary is the table at the end.
type summary struct {
	blocks           int
	bytes            int64
	sealing, reading time.Duration
	calls            keyring.Calls
}

func (s summary) print(out io.Writer) {
	rate := func(d time.Duration) string { return size(int64(float64(s.bytes)/d.Seconds())) + "/s" }
	w := tabwriter.NewWriter(out, 0, 0, 2, ' ', 0)
	fmt.Fprintln(w)
	fmt.Fprintf(w, "blocks\t%d\t\n", s.blocks)
	fmt.Fprintf(w, "bytes\t%s\t\n", size(s.bytes))
	fmt.Fprintf(w, "sealed and durable\t%s\t%v\n", rate(s.sealing), s.sealing.Round(time.Millisecond))
	fmt.Fprintf(w, "read and compared\t%s\t%v\n", rate(s.reading), s.reading.Round(time.Millisecond))
	fmt.Fprintf(w, "vault calls\t%d get, %d wrapKey, %d unwrapKey\t%d of them refused\n",
		s.calls.Get, s.calls.Wrap, s.calls.Unwrap, s.calls.Failed)
	w.Flush()
}

// size writes a number of bytes for people.
func size(n int64) string {
	switch {
	case n >= 1<<30:
		return fmt.Sprintf("%.2f GiB", float64(n)/(1<<30))
	case n >= 1<<20:
		return fmt.Sprintf("%.1f MiB", float64(n)/(1<<20))
	case n >= 1<<10:
		return fmt.Sprintf("%.1f KiB", float64(n)/(1<<10))
	}
	return fmt.Sprintf("%d B", n)
}
