package storename

import (
	"strconv"
	"strings"
	"testing"
	"unicode"

	"github.com/stretchr/testify/require"
)

func TestShown(t *testing.T) {
	for name, want := range map[string]string{
		"contoso":          "contoso",
		"Größe 7/b: 日本":    "Größe 7/b: 日本",
		"..":               "..",
		"":                 `""`,
		" a":               `" a"`,
		"a ":               `"a "`,
		"a\nb":             `"a\nb"`,
		"\x1b[2J":          `"\x1b[2J"`,
		"a\x00":            `"a\x00"`,
		"\u202etxt.exe":    `"\u202etxt.exe"`,
		"a\u00a0b":         `"a\u00a0b"`,
		"\ufeffa":          `"\ufeffa"`,
		"a\u200bb":         `"a\u200bb"`,
		`"a\x00"`:          `"\"a\\x00\""`,
		"\xff":             `"\xff"`,
		"e\u0301":          "e\u0301",
		"\U000e0061 a tag": `"\U000e0061 a tag"`,
	} {
		require.Equal(t, want, Shown(name), "%q", name)
	}
}

// Whatever the name, all that is shown is seen on one line, and no other name is shown so.
func FuzzShown(f *testing.F) {
	f.Add("a", "b")
	f.Add("\x1b]0;x\x07", `"\x1b]0;x\a"`)
	f.Add(" ", `" "`)
	f.Add("\xff", "\ufffd")
	f.Fuzz(func(t *testing.T, a, b string) {
		one, two := Shown(a), Shown(b)
		require.NotEmpty(t, one)
		require.Equal(t, -1, strings.IndexFunc(one, func(r rune) bool { return !unicode.IsPrint(r) }), "%q", one)
		require.Equal(t, a == b, one == two, "%q and %q", a, b)
		if one != a {
			back, err := strconv.Unquote(one)
			require.NoError(t, err)
			require.Equal(t, a, back)
		}
	})
}
