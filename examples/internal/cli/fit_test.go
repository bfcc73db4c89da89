package cli

import (
	"bytes"
	"fmt"
	"strings"
	"testing"
	"unicode/utf8"

	"github.com/stretchr/testify/require"
)

func TestFold(t *testing.T) {
	for _, tt := range []struct {
		name, line, want string
	}{
		{"as wide as it may be", strings.Repeat("x", 40), strings.Repeat("x", 40) + "\n"},
		{"beneath the text", "label   one two three four five six seven eight nine", "label   one two three four five six\n        seven eight nine\n"},
		{"a label that is set in", "  Get     one two three four five six seven eight", "  Get     one two three four five six\n          seven eight\n"},
		{"no label", "one two three four five six seven eight nine ten", "one two three four five six seven eight\nnine ten\n"},
		{"behind a slash", "KEK     local:0123456789/keys/customer/0123456789abcdef", "KEK     local:0123456789/keys/customer/\n        0123456789abcdef\n"},
		{"nowhere to break", "KEK     " + strings.Repeat("0", 40), "KEK     " + strings.Repeat("0", 32) + "\n        00000000\n"},
		{"a label as long as a line", strings.Repeat("l", 38) + "  text", strings.Repeat("l", 38) + "\n    text\n"},
		{"letters of several bytes", strings.Repeat("ü", 41), strings.Repeat("ü", 40) + "\nü\n"},
		{"empty", "", "\n"},
		{"blanks", strings.Repeat(" ", 50), "\n"},
	} {
		t.Run(tt.name, func(t *testing.T) { require.Equal(t, tt.want, fold(tt.line, 40)) })
	}
}

// However a text is written and however wide it may be, it comes out within the width, and
// nothing but spaces is lost.
func FuzzFit(f *testing.F) {
	f.Add("label   some text that is long enough to be broken somewhere\n", uint8(40))
	f.Add("  a/b/c/"+strings.Repeat("d", 90)+"\n\n  x", uint8(0))
	f.Fuzz(func(t *testing.T, text string, more uint8) {
		if strings.ContainsRune(text, '\r') || !utf8.ValidString(text) {
			return
		}
		var out bytes.Buffer
		w := &fit{w: &out, width: leastWidth + int(more)}
		n, err := fmt.Fprint(w, text+"\n")
		require.NoError(t, err)
		require.Equal(t, len(text)+1, n)
		for line := range strings.Lines(out.String()) {
			require.LessOrEqual(t, utf8.RuneCountInString(strings.TrimSuffix(line, "\n")), w.width)
		}
		bare := func(s string) string { return strings.NewReplacer(" ", "", "\n", "").Replace(s) }
		require.Equal(t, bare(text), bare(out.String()))
	})
}

// A table is written in pieces, and a line of progress as it is.
func TestFitTakesPieces(t *testing.T) {
	t.Setenv("COLUMNS", "40")
	var out bytes.Buffer
	w := Fit(&out)
	fmt.Fprint(w, "one ")
	require.Empty(t, out.String())
	fmt.Fprint(w, "two\nthree")
	require.Equal(t, "one two\n", out.String())
	fmt.Fprint(w, "\n")
	fmt.Fprint(w, takeBack+strings.Repeat("#", 50))
	require.Equal(t, "one two\nthree\n"+takeBack+strings.Repeat("#", 50), out.String())
}

func TestWidth(t *testing.T) {
	for columns, want := range map[string]int{"": 80, "132": 132, "60": 60, "1": 40, "-3": 80, "many": 80} {
		t.Setenv("COLUMNS", columns)
		require.Equal(t, want, Width(&bytes.Buffer{}), columns)
		require.Equal(t, want, Width(Fit(&bytes.Buffer{})), columns)
	}
}
