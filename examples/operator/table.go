package main

import (
	"regexp"
	"strconv"
	"strings"
	"unicode/utf8"

	"github.com/blockseal/blockseal/internal/storename"
	"github.com/blockseal/blockseal/vault/audit"
)

// A table has a line for each row. On a terminal that is too narrow, what is last in a row goes
// on in the lines beneath; elsewhere a row is one line, whatever its length, so that it can be
// searched. Ids are cut in tables, with or without a terminal: --whole and --json have all of
// them.
type table struct {
	width int // 0: any
	whole bool
	rows  [][]string
}

// tableWidth is how wide a table may be: $COLUMNS or the terminal; 0 if there is neither.
func (a *app) tableWidth() int {
	n, err := strconv.Atoi(a.getenv("COLUMNS"))
	if err != nil && a.width != nil {
		n = a.width()
	}
	return max(0, n)
}

// row writes cells side by side.
func (t *table) row(cells ...any) {
	var row []string
	for _, c := range cells {
		row = append(row, t.keys(visible(shown(c))))
	}
	t.rows = append(t.rows, row)
}

// visible is a text without what a terminal obeys, or what makes two lines of one: a path or an
// error may hold what somebody else has written, as in a store's register of copies.
func visible(text string) string {
	if utf8.ValidString(text) && strings.IndexFunc(text, func(r rune) bool { return !strconv.IsPrint(r) }) < 0 {
		return text
	}
	var b strings.Builder
	for _, r := range text {
		switch {
		case strconv.IsPrint(r):
			b.WriteRune(r)
		case r == '\n': // of errors that are joined
			b.WriteString("; ")
		default:
			b.WriteString(strings.Trim(strconv.QuoteRune(r), "'"))
		}
	}
	return b.String()
}

// idDigits is how many digits of an id a table has: enough to tell a few apart, and not to show that
// two are the same.
const idDigits = 8

// nameWidth is how much of a store's name a table has.
const nameWidth = 30

// name is a store's name, which is any UTF-8: what is not seen in it is escaped, and a long one is cut.
func (t *table) name(name string) string {
	shown := []rune(storename.Shown(name))
	if t.whole || len(shown) <= nameWidth {
		return string(shown)
	}
	return string(shown[:nameWidth-1]) + "…"
}

// id is a store, an instance or a version beside others.
func (t *table) id(id string) string {
	if t.whole || len(id) < 4*idDigits || strings.Trim(id, "0123456789abcdef") != "" {
		return id
	}
	return id[:idDigits] + "…"
}

// head is the head of an audit log.
func (t *table) head(h audit.Head) string {
	if t.whole {
		return h.String()
	}
	log, rest, _ := strings.Cut(h.String(), ":")
	seq, hash, _ := strings.Cut(rest, ":")
	return t.id(log) + ":" + seq + ":" + t.id(hash)
}

// vaultInKey finds the vault of an id of a key, versionInKey its version.
var (
	vaultInKey   = regexp.MustCompile(`local:[0-9a-f]{32}/keys/`)
	versionInKey = regexp.MustCompile(`(/keys/[A-Za-z0-9-]+/)([0-9a-f]{32})\b`)
)

// keys is a text with the ids of keys in it cut.
func (t *table) keys(text string) string {
	if t.whole || !strings.Contains(text, "/keys/") {
		return text
	}
	text = vaultInKey.ReplaceAllStringFunc(text, func(s string) string {
		return s[:len("local:")+idDigits] + "…/keys/"
	})
	return versionInKey.ReplaceAllStringFunc(text, func(s string) string {
		return s[:len(s)-32+idDigits] + "…"
	})
}

const (
	between = 2  // spaces between columns
	beneath = 4  // spaces before what goes beneath its row
	narrow  = 30 // what is last in a row is beneath it if less than this is left beside it
)

// String is the table as text. Columns go over rows that follow one another; a row of one cell,
// or none, is beside none.
func (t *table) String() string {
	var b strings.Builder
	for rows := t.rows; len(rows) > 0; {
		n := 1
		if len(rows[0]) > 1 {
			for n < len(rows) && len(rows[n]) > 1 {
				n++
			}
		}
		t.block(&b, rows[:n])
		rows = rows[n:]
	}
	return b.String()
}

// block writes rows that share their columns.
func (t *table) block(b *strings.Builder, rows [][]string) {
	widths := map[int]int{}
	for _, row := range rows {
		for i := range len(row) - 1 {
			widths[i] = max(widths[i], utf8.RuneCountInString(row[i]))
		}
	}
	// Of many columns, all rows look alike.
	under := false
	for _, row := range rows {
		under = under || len(row) > 2 && !t.fits(row, widths)
	}
	for _, row := range rows {
		last := ""
		if len(row) > 0 {
			last = row[len(row)-1]
		}
		var line strings.Builder
		for i := range len(row) - 1 {
			line.WriteString(row[i] + strings.Repeat(" ", widths[i]-utf8.RuneCountInString(row[i])+between))
		}
		switch {
		case under || !t.fits(row, widths):
			b.WriteString(strings.TrimRight(line.String(), " ") + "\n")
			if last != "-" { // there is nothing
				b.WriteString(strings.Repeat(" ", beneath) + wrapped(last, t.width, beneath) + "\n")
			}
		default:
			b.WriteString(line.String() + wrapped(last, t.width, before(row, widths)) + "\n")
		}
	}
}

// before is how many columns come before the last cell of a row.
func before(row []string, widths map[int]int) (n int) {
	for i := range len(row) - 1 {
		n += widths[i] + between
	}
	return n
}

// fits reports whether the last cell of a row has its place beside the others.
func (t *table) fits(row []string, widths map[int]int) bool {
	if t.width == 0 || len(row) < 2 {
		return true
	}
	at := before(row, widths)
	last := row[len(row)-1]
	if at+utf8.RuneCountInString(last) <= t.width {
		return true
	}
	word := 0
	for w := range strings.FieldsSeq(last) {
		word = max(word, utf8.RuneCountInString(w))
	}
	return t.width-at >= narrow && at+word <= t.width
}

// wrapped breaks a text at spaces so that it fits beside what is at its left, if there is a
// width. A word that is wider stays whole: it is a path, or something else that is copied.
func wrapped(text string, width, at int) string {
	if width == 0 || at+utf8.RuneCountInString(text) <= width {
		return text
	}
	var b strings.Builder
	n := at
	for i, w := range strings.Fields(text) {
		size := utf8.RuneCountInString(w)
		switch {
		case i == 0:
		case n+1+size > width:
			b.WriteString("\n" + strings.Repeat(" ", at))
			n = at
		default:
			b.WriteByte(' ')
			n++
		}
		b.WriteString(w)
		n += size
	}
	return b.String()
}
