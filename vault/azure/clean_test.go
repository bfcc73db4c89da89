package azure

import (
	"strings"
	"testing"
	"unicode/utf8"

	"github.com/stretchr/testify/require"
)

// What text from the outside may have in it, and what is left of it in an error.
func TestClean(t *testing.T) {
	t.Parallel()
	const jwt = "eyJhbGciOiJIUzI1NiJ9.eyJhdWQiOiJ2YXVsdCJ9.c2lnbmF0dXJl_-x"
	for _, tt := range []struct{ text, token, want string }{
		{"as it is", "", "as it is"},
		{"the token opaque.token~1 is here", "opaque.token~1", "the token [redacted] is here"},
		{"opaque.token~1opaque.token~1", "opaque.token~1", "[redacted][redacted]"},
		{"a short one", "a", "a short one"},
		{"another: " + jwt + " here", "", "another: [redacted] here"},
		{"its head: eyJhbGciOiJIUzI1NiJ9", "", "its head: [redacted]"},
		{"Authorization: Bearer abcdefgh12345678", "", "Authorization: Bearer [redacted]"},
		{`authorization="bearer=abcdefgh12345678"`, "", `authorization="bearer [redacted]"`},
		{"client_assertion=x&assertion=abcdefgh12345678", "", "client_assertion=x&assertion [redacted]"},
		{`{"client_secret":"abcdefgh12345678"}`, "", `{"client_secret [redacted]"}`},
		{"access_token=abcdefgh12345678 refresh_token: abcdefgh12345678", "", "access_token [redacted] refresh_token [redacted]"},
		{"Bearer, PoP", "", "Bearer, PoP"},
		{"two\r\nlines\tand \x1b[2J\x00 \u009b \u202e end", "", "two lines and [2J end"},
		{"bad \xff utf8", "", "bad utf8"},
		{strings.Repeat("x", 41), "", strings.Repeat("x", 40) + "..."},
		{strings.Repeat("x", 39) + "é", "", strings.Repeat("x", 39) + "..."},
	} {
		most := 200
		if len(tt.text) > 40 && tt.text[0] == 'x' {
			most = 40
		}
		require.Equal(t, tt.want, clean(tt.text, tt.token, most), "%q", tt.text)
	}
}

func FuzzClean(f *testing.F) {
	f.Add("Bearer abcdefgh12345678", "abcdefgh12345678", 10)
	f.Add("eyJhbGciOiJIUzI1NiJ9.e.e", "", 600)
	f.Fuzz(func(t *testing.T, text, token string, most int) {
		most = max(0, min(most, 1000))
		got := clean(text, token, most)
		require.LessOrEqual(t, len(got), most+len("..."))
		require.True(t, utf8.ValidString(got))
		require.NotContains(t, got, "\n")
		require.NotContains(t, got, "\x1b")
	})
}
