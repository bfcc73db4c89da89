package cli

import (
	"bytes"
	"context"
	"errors"
	"flag"
	"fmt"
	"io"
	"os"
	"syscall"
	"testing"

	"github.com/stretchr/testify/require"
)

func TestFinish(t *testing.T) {
	running := context.Background()
	interrupted, cancel := context.WithCancelCause(running)
	cancel(stopped{os.Interrupt})
	for _, c := range []struct {
		name   string
		ctx    context.Context
		err    error
		status int
		stderr string
	}{
		{"success", running, nil, 0, ""},
		{"help", running, flag.ErrHelp, 0, ""},
		{"failure", running, errors.New("no space"), 1, "demo: no space\n"},
		{"usage", running, fmt.Errorf("bad flag; %w", ErrUsage), 2, "demo: bad flag; run with -h for the flags\n"},
		{"interrupted", interrupted, fmt.Errorf("put: %w", context.Canceled), 128 + int(syscall.SIGINT), "demo: stopped by a signal: interrupt\n"},
		{"done before the signal took effect", interrupted, nil, 0, ""},
	} {
		t.Run(c.name, func(t *testing.T) {
			var stderr bytes.Buffer
			require.Equal(t, c.status, finish(c.ctx, "demo", c.err, &stderr))
			require.Equal(t, c.stderr, stderr.String())
		})
	}
}

func TestParse(t *testing.T) {
	parse := func(args ...string) (string, error) {
		flags := flag.NewFlagSet("demo", flag.ContinueOnError)
		flags.Int("n", 7, "how `many`")
		var out bytes.Buffer
		err := Parse(flags, "Demo demonstrates.", args, &out)
		return out.String(), err
	}
	out, err := parse("-n", "3")
	require.NoError(t, err)
	require.Empty(t, out)

	out, err = parse("-h")
	require.ErrorIs(t, err, flag.ErrHelp)
	require.Equal(t, "Demo demonstrates.\n  -n many\n    \thow many (default 7)\n", out)

	for arg, text := range map[string]string{
		"-x":    "flag provided but not defined: -x; run with -h for the flags",
		"-n=a":  `invalid value "a" for flag -n: parse error; run with -h for the flags`,
		"extra": `unexpected argument "extra"; run with -h for the flags`,
	} {
		out, err = parse(arg)
		require.ErrorIs(t, err, ErrUsage)
		require.EqualError(t, err, text)
		require.Empty(t, out)
	}
}

// Off a terminal a line is written once, as it is in the end.
func TestLineInAFile(t *testing.T) {
	var out bytes.Buffer
	l := NewLine(&out)
	l.Show(func() string { return "half" })
	l.Clear()
	l.End("%d %%", 100)
	require.Equal(t, "100 %\n", out.String())

	f, err := os.CreateTemp(t.TempDir(), "")
	require.NoError(t, err)
	defer f.Close()
	require.False(t, isTerminal(f))
	r, w := io.Pipe()
	defer r.Close()
	require.False(t, isTerminal(w))
}

func TestLineOnATerminal(t *testing.T) {
	var out bytes.Buffer
	l := &Line{w: &out, live: true, width: 79}
	l.Show(func() string { return string(bytes.Repeat([]byte("x"), 200)) })
	l.Show(func() string { panic("redrawn within a tenth of a second") })
	require.Equal(t, takeBack+string(bytes.Repeat([]byte("x"), 79)), out.String())
	out.Reset()
	l.End("done")
	require.Equal(t, takeBack+"done\n", out.String())
	out.Reset()
	l.Clear() // nothing is shown any more
	require.Empty(t, out.String())
}

func TestNumbers(t *testing.T) {
	require.Equal(t, "[..............................]", Bar(0, 10))
	require.Equal(t, "[###############...............]", Bar(5, 10))
	require.Equal(t, "[##############################]", Bar(11, 10)) // a file that grew
	require.Equal(t, "[##############################]", Bar(0, 0))
	require.Equal(t, "0", Count(0))
	require.Equal(t, "999", Count(999))
	require.Equal(t, "12,641", Count(12641))
	require.Equal(t, "-123,456", Count(-123456))
	require.Equal(t, "1,234,567", Count(uint64(1234567)))
	require.Equal(t, "133.2 MB", MB(133_190_000))
}
