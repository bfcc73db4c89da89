package cli

import (
	"bytes"
	"io"
	"os"
	"strconv"
	"strings"
	"sync"
	"unicode/utf8"

	"golang.org/x/term"
)

const (
	usualWidth = 80
	leastWidth = 40
)

// Width is how many columns w has: a terminal's own, else what COLUMNS says, else 80; 40 at
// the least.
func Width(w io.Writer) int {
	width := 0
	switch w := w.(type) {
	case *fit:
		return w.width
	case *os.File:
		if n, _, err := term.GetSize(int(w.Fd())); err == nil {
			width = n
		}
	}
	if width <= 0 {
		width, _ = strconv.Atoi(os.Getenv("COLUMNS")) // 0 for what is no number
	}
	if width <= 0 {
		width = usualWidth
	}
	return max(width, leastWidth)
}

// Fit returns a writer of lines that are no wider than w. What is too long goes on beneath
// the text behind its label, which is what two spaces or more end. It uses no colour.
// It is safe for concurrent use.
func Fit(w io.Writer) io.Writer { return &fit{w: w, width: Width(w)} }

type fit struct {
	mu    sync.Mutex
	w     io.Writer
	width int
	line  bytes.Buffer // what has no end yet
}

func (f *fit) Write(p []byte) (int, error) {
	f.mu.Lock()
	defer f.mu.Unlock()
	if f.line.Len() == 0 && bytes.HasPrefix(p, []byte("\r")) && !bytes.Contains(p, []byte("\n")) {
		return f.w.Write(p) // a line that shows progress, which has its own measure
	}
	f.line.Write(p)
	var out strings.Builder
	for {
		end := bytes.IndexByte(f.line.Bytes(), '\n')
		if end < 0 {
			break
		}
		out.WriteString(fold(string(f.line.Next(end + 1)[:end]), f.width))
	}
	if out.Len() == 0 {
		return len(p), nil
	}
	_, err := io.WriteString(f.w, out.String())
	return len(p), err
}

// fold breaks a line into lines of at most width columns, each with its end.
func fold(line string, width int) string {
	if utf8.RuneCountInString(line) <= width {
		return line + "\n"
	}
	indent := textAt(line)
	if indent > width*2/3 {
		indent = 4
	}
	var out strings.Builder
	rest := []rune(strings.TrimRight(line, " "))
	for first := true; ; first = false {
		room := width
		if !first {
			out.WriteString(strings.Repeat(" ", indent))
			room -= indent
		}
		if len(rest) <= room {
			out.WriteString(string(rest) + "\n")
			return out.String()
		}
		end := breakAt(rest[:room+1], first, indent)
		out.WriteString(strings.TrimRight(string(rest[:end]), " ") + "\n")
		rest = []rune(strings.TrimLeft(string(rest[end:]), " "))
	}
}

// textAt is the column at which the text behind a line's label begins; without a label, the
// text itself.
func textAt(line string) int {
	runes := []rune(line)
	start := 0
	for start < len(runes) && runes[start] == ' ' {
		start++
	}
	for i := start; i+1 < len(runes); i++ {
		if runes[i] == ' ' && runes[i+1] == ' ' {
			for i < len(runes) && runes[i] == ' ' {
				i++
			}
			return i
		}
	}
	return start
}

// breakAt is where to break runes, which are one too many: at a space, else behind a slash, as
// in a path or a key's identifier, else at the end. What is before the text of a first line is
// not broken.
func breakAt(runes []rune, first bool, indent int) int {
	least := 0
	if first {
		least = min(indent, len(runes)-2)
	}
	last := len(runes) - 1
	for i := last; i > least; i-- {
		if runes[i] == ' ' {
			return i
		}
	}
	for i := last - 1; i > least; i-- {
		if runes[i] == '/' {
			return i + 1
		}
	}
	return last
}
