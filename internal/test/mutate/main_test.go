package main

import (
	"go/parser"
	"go/token"
	"regexp"
	"strings"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
)

// The sample's tests do not look whether the key is overwritten, nor at the last number that
// is admitted; everything else they notice.
func TestMutate(t *testing.T) {
	var out strings.Builder
	c := config{pkg: "./testdata/sample", tests: []string{"./testdata/sample"}, timeout: time.Minute}
	require.ErrorIs(t, c.mutate(t.Context(), &out), errSurvivors)
	require.Equal(t, `sample.go:11: left out: clear(k.b)
sample.go:24: >= in the place of >: n > 9
./testdata/sample: 6 of 8 mistakes were noticed (75%); 0 did not compile
`, out.String())
}

// A sample is every so many of the same mistakes.
func TestSample(t *testing.T) {
	list := func(sample int) []string {
		var out strings.Builder
		c := config{pkg: "./testdata/sample", sample: sample, list: true}
		require.NoError(t, c.mutate(t.Context(), &out))
		return strings.Split(strings.TrimSpace(out.String()), "\n")
	}
	all := list(1)
	require.Equal(t, []string{all[2], all[5]}, list(3))
}

// Tests that fail as they are would notice everything.
func TestMutateWithoutGoodTests(t *testing.T) {
	c := config{pkg: "./testdata/sample", tests: []string{"./testdata/none"}, timeout: time.Minute}
	require.ErrorContains(t, c.mutate(t.Context(), new(strings.Builder)), "fail as they are")
	c.files = regexp.MustCompile("^nothing$")
	require.ErrorContains(t, c.mutate(t.Context(), new(strings.Builder)), "no such source file")
}

// Each kind of mistake, in a source that still parses.
func TestMutants(t *testing.T) {
	for _, tt := range []struct {
		body string
		want []string
	}{
		{"clear(a)", []string{"left out: clear(a)"}},
		{"defer f()", []string{"left out: defer f()"}},
		{"panic(1)", nil},
		{"x = f()", nil},
		{"if a { f() }", []string{"the condition is turned round: a", "left out: f()"}},
		{"return 1, nil", nil},
		{"return 1, err", []string{"the error is dropped: return 1, err"}},
		{"return g()", nil},
		{"return a == b, nil", []string{"!= in the place of ==: a == b"}},
		{"x = a && b || c < d", []string{"|| in the place of &&: a && b", "&& in the place of ||: a && b || c < d", "<= in the place of <: c < d"}},
		{"switch { case a: f() }", []string{"left out: f()"}},
		{"select { case <-a: f() }", []string{"left out: f()"}},
		{"go func() error { return err }()", []string{"the error is dropped: return err"}},
		{"go func() { return }()", nil},
		{"f(func() {\ng()\n})", []string{"left out: f(func() { ...", "left out: g()"}},
		{"return 1, fmt.Errorf(`x`)", []string{"the error is dropped: return 1, fmt.Errorf(`x`)"}},
	} {
		t.Run(tt.body, func(t *testing.T) {
			src := []byte("package p\nfunc p() (int, error) {\n" + tt.body + "\n}\n")
			mutants, err := mutantsOf("p.go", src)
			require.NoError(t, err)
			var got []string
			for _, m := range mutants {
				got = append(got, m.what)
				_, err := parser.ParseFile(token.NewFileSet(), "p.go", m.apply(src), 0)
				require.NoError(t, err, "%s:\n%s", m, m.apply(src))
				require.NotEqual(t, src, m.apply(src))
				require.Regexp(t, `^p\.go:\d+: `, m.String())
			}
			require.Equal(t, tt.want, got)
		})
	}
	_, err := mutantsOf("p.go", []byte("package"))
	require.Error(t, err)
}
