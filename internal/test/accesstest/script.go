package accesstest

import (
	"fmt"
	"slices"
	"strconv"
	"strings"
	"time"
)

// line is one command of a script.
type line struct {
	file  string
	n     int
	text  string
	words []string
}

func (l line) String() string { return fmt.Sprintf("%s:%d: %s", l.file, l.n, l.text) }

// arg returns the i-th word, or "".
func (l line) arg(i int) string {
	if i < len(l.words) {
		return l.words[i]
	}
	return ""
}

// refused returns what follows the word "refused", and the words before it.
func (l line) refused() (before []string, sentinel string, ok bool) {
	for i, w := range l.words {
		if w == "refused" {
			return l.words[:i], l.arg(i + 1), true
		}
	}
	return l.words, "", false
}

// administers reports whether the command needs a World with Administration.
func (l line) administers() bool {
	if l.words[0] == "told" {
		return true
	}
	_, _, refused := l.refused()
	return l.words[0] == "vault" && (refused || slices.Contains(administration(), l.arg(1)))
}

// duration returns a duration of the script's.
func duration(s string) (time.Duration, error) {
	var days time.Duration
	if n, rest, ok := strings.Cut(s, "d"); ok {
		count, err := strconv.ParseUint(n, 10, 16)
		if err != nil {
			return 0, fmt.Errorf("%q: the days are no number", s)
		}
		days, s = time.Duration(count)*24*time.Hour, rest
		if s == "" {
			return days, nil
		}
	}
	d, err := time.ParseDuration(s)
	return days + d, err
}

// Policy returns the durations of the verb policy by their names.
func Policy(args string) (map[string]time.Duration, error) {
	words := strings.Fields(args)
	out := map[string]time.Duration{}
	for i := 0; i < len(words); i += 2 {
		if i+1 == len(words) || !slices.Contains([]string{"after", "before-expiry", "expires-after", "notice-before"}, words[i]) {
			return nil, fmt.Errorf("a policy %q: want after, before-expiry, expires-after or notice-before, each with a duration", args)
		}
		d, err := duration(words[i+1])
		if err != nil {
			return nil, err
		}
		out[words[i]] = d
	}
	return out, nil
}

// quoted returns what stands between the line's first quote and its last.
func (l line) quoted() string {
	from, to := strings.Index(l.text, `"`), strings.LastIndex(l.text, `"`)
	if from < 0 || to == from {
		return ""
	}
	return l.text[from+1 : to]
}

// parse returns the lines of a script that are for a world.
func parse(file, script, world string) (lines []line) {
	for i, text := range strings.Split(script, "\n") {
		l := line{file: file, n: i + 1}
		l.text = strings.TrimSpace(text)
		if strings.HasPrefix(l.text, "[") {
			only, rest, _ := strings.Cut(l.text[1:], "]")
			if only != world {
				continue
			}
			l.text = strings.TrimSpace(rest)
		}
		if !strings.Contains(l.text, `"`) { // a reason may have a number sign
			l.text, _, _ = strings.Cut(l.text, "#")
		}
		if l.words = strings.Fields(l.text); len(l.words) > 0 {
			lines = append(lines, l)
		}
	}
	return lines
}
