package cli

import (
	"fmt"
	"io"
	"os"
	"strings"
	"time"
)

// Line is a line of output that is shown while it changes: in place on a terminal;
// elsewhere, as in a file or a pipe, only as it is in the end. It belongs to one
// goroutine.
type Line struct {
	w     io.Writer
	live  bool
	width int // a line that wraps could not be taken back
	shown bool
	last  time.Time
}

// NewLine returns a line at the end of what was written to w.
func NewLine(w io.Writer) *Line { return &Line{w: w, live: isTerminal(w), width: Width(w) - 1} }

// isTerminal takes other character devices, such as /dev/null, for terminals too,
// which does them no harm.
func isTerminal(w io.Writer) bool {
	if fitted, ok := w.(*fit); ok {
		w = fitted.w
	}
	f, ok := w.(*os.File)
	if !ok || os.Getenv("TERM") == "dumb" {
		return false
	}
	info, err := f.Stat()
	return err == nil && info.Mode()&os.ModeCharDevice != 0
}

const (
	redrawEvery = 100 * time.Millisecond
	takeBack    = "\r\x1b[K"
)

// Show shows the line as text returns it, at most ten times a second.
func (l *Line) Show(text func() string) {
	if !l.live || time.Since(l.last) < redrawEvery {
		return
	}
	l.last, l.shown = time.Now(), true
	s := []rune(text())
	fmt.Fprint(l.w, takeBack+string(s[:min(len(s), l.width)]))
}

// Clear takes back what is shown.
func (l *Line) Clear() {
	if l.shown {
		l.shown = false
		fmt.Fprint(l.w, takeBack)
	}
}

// End writes the line as it is in the end.
func (l *Line) End(format string, args ...any) {
	l.Clear()
	fmt.Fprintf(l.w, format+"\n", args...)
}

// Bar draws how much of total is done, in 30 characters.
func Bar(done, total int64) string {
	const width = 30
	full := width
	if total > 0 {
		full = int(min(max(float64(done)/float64(total), 0), 1) * width)
	}
	return "[" + strings.Repeat("#", full) + strings.Repeat(".", width-full) + "]"
}

// Count writes a number with its thousands apart: 12,641.
func Count[N ~int | ~int64 | ~uint64](n N) string {
	s := fmt.Sprint(n)
	for i := len(s) - 3; i > 0 && s[i-1] != '-'; i -= 3 {
		s = s[:i] + "," + s[i:]
	}
	return s
}

// MB writes a number of bytes in units of 10^6 bytes.
func MB(bytes int64) string { return fmt.Sprintf("%.1f MB", float64(bytes)/1e6) }
