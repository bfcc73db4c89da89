// Package storename shows the names of stores to people. A name is any UTF-8: what a terminal obeys,
// what is seen as nothing, what turns the direction of a line.
package storename

import (
	"strconv"
	"strings"
	"unicode/utf8"
)

// Shown returns a name as people can read it: as it is, if all of it is seen, and else as Go quotes
// it. Two names that are not the same are not shown as the same text, though they may look alike to
// people: é and e\u0301 both are seen.
func Shown(name string) string {
	if name == "" || !utf8.ValidString(name) || strings.HasPrefix(name, " ") || strings.HasSuffix(name, " ") {
		return strconv.Quote(name)
	}
	for _, r := range name {
		if r == '"' || r == '\\' || !strconv.IsPrint(r) {
			return strconv.Quote(name)
		}
	}
	return name
}
