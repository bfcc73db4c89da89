package blockhttp

import (
	"fmt"
	"html/template"
	"math"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/blockseal/blockseal/block"
	"github.com/blockseal/blockseal/keyring"
	"github.com/blockseal/blockseal/vault"
)

// eventText returns an event in words; told returns the words of its error.
func eventText(e keyring.Event, told func(error) string) string {
	var parts []string
	add := func(format string, args ...any) { parts = append(parts, fmt.Sprintf(format, args...)) }
	if e.To != 0 {
		add("%v to %v", e.From, e.To)
	}
	if e.Key != (vault.KeyID{}) && e.Kind != keyring.CheckSucceeded {
		add("%s", e.Key)
	}
	if e.Epoch != 0 {
		add("epoch %d", e.Epoch)
	}
	if e.Left != 0 {
		add("expires in %s", span(e.Left.Seconds()))
	}
	if e.Detail != "" {
		add("%s", e.Detail)
	}
	switch {
	case e.Err == nil:
	case e.Kind == keyring.Progressed:
		add("%s", block.FailureKind(e.Err)) // the text may name a block
	default:
		add("%s", told(e.Err))
	}
	return strings.Join(parts, ": ")
}

// pageFuncs returns the functions of the page's template.
func pageFuncs() template.FuncMap {
	return template.FuncMap{
		"span": func(s float64) string { return together(span(s)) },
		"size": func(n uint64) string { return together(size(n)) }, "number": number,
		"count": func(n int) string { return number(uint64(max(0, n))) }, "lower": strings.ToLower,
		"at":      func(t time.Time) string { return t.Format("2006-01-02 15:04:05") },
		"clock":   func(t time.Time) string { return t.Format("15:04:05") },
		"iso":     func(t time.Time) string { return t.Format(time.RFC3339) },
		"day":     func(t time.Time) string { return t.Format("2006-01-02") },
		"ago":     func(now, t time.Time) string { return together(span(now.Sub(t).Seconds())) },
		"percent": func(f *float64) string { return strconv.FormatFloat(math.Floor(*f*1000)/10, 'f', 1, 64) },
		"ms":      func(s float64) string { return strconv.FormatFloat(s*1000, 'f', 1, 64) },
		"label":   func(s string) string { return strings.ReplaceAll(s, "_", " ") },
		"cut":     cut,
		"short":   func(s string) string { return shortened(s, "") },
		"until": func(now, t time.Time) string {
			if !t.After(now) {
				return ""
			}
			return together(span(t.Sub(now).Seconds()))
		},
		"pairs": pairs,
		"soon":  func(left *float64) bool { return left != nil && *left < nearExpiry.Seconds() },
	}
}

// together keeps a quantity on one line.
func together(s string) string { return strings.ReplaceAll(s, " ", "\u00a0") }

// span returns a duration in its two largest units.
func span(seconds float64) string {
	if seconds < 0 {
		return "-" + span(-seconds)
	}
	s := int64(seconds)
	const minute, hour, day = 60, 3600, 86400
	switch {
	case s < minute:
		return fmt.Sprintf("%d s", s)
	case s < hour:
		return fmt.Sprintf("%d min %02d s", s/minute, s%minute)
	case s < day:
		return fmt.Sprintf("%d h %02d min", s/hour, s%hour/minute)
	}
	return fmt.Sprintf("%s d %d h", number(uint64(s/day)), s%day/hour)
}

// size returns a number of bytes in three digits.
func size(n uint64) string {
	if n < 1000 {
		return fmt.Sprintf("%d B", n)
	}
	f, unit := float64(n), ""
	for _, unit = range []string{"kB", "MB", "GB", "TB", "PB"} {
		if f /= 1000; f < 999.5 {
			break
		}
	}
	digits := 2
	if f >= 9.995 {
		digits = 1
	}
	if f >= 99.95 {
		digits = 0
	}
	return strconv.FormatFloat(f, 'f', digits, 64) + " " + unit
}

// number returns n with its thousands apart.
func number(n uint64) string {
	s := strconv.FormatUint(n, 10)
	for i := len(s) - 3; i > 0; i -= 3 {
		s = s[:i] + "," + s[i:]
	}
	return s
}

// idDigits is the number of digits of an id that the page shows where it does not show all.
const idDigits = 8

// cut returns the beginning of a hexadecimal id, enough to tell a few apart.
func cut(id string) string { return id[:min(idDigits, len(id))] }

// shortened returns a text with its ids cut, and without the name of vaultName's vault in its keys:
// the page has both in full elsewhere.
func shortened(text, vaultName string) string {
	if vaultName != "" {
		text = strings.ReplaceAll(text, vaultName+"/keys/", "")
	}
	var out strings.Builder
	for len(text) > 0 {
		n := strings.IndexFunc(text, func(r rune) bool { return !hexadecimal(r) })
		if n < 0 {
			n = len(text)
		}
		if n >= 4*idDigits {
			out.WriteString(cut(text) + "\u2026")
		} else {
			out.WriteString(text[:n])
		}
		text = text[n:]
		rest := strings.IndexFunc(text, hexadecimal)
		if rest < 0 {
			rest = len(text)
		}
		out.WriteString(text[:rest])
		text = text[rest:]
	}
	return out.String()
}

func hexadecimal(r rune) bool { return r >= '0' && r <= '9' || r >= 'a' && r <= 'f' }

// pairs lists counts, the largest first.
func pairs(m map[string]uint64) string {
	var out []string
	for k, n := range m {
		out = append(out, fmt.Sprintf("%s %s", number(n), strings.ReplaceAll(k, "_", " ")))
	}
	slices.SortFunc(out, func(a, b string) int {
		if len(a) != len(b) && strings.IndexByte(a, ' ') != strings.IndexByte(b, ' ') {
			return strings.IndexByte(b, ' ') - strings.IndexByte(a, ' ')
		}
		return strings.Compare(b, a)
	})
	return strings.Join(out, ", ")
}
