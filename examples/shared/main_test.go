package main

import (
	"bufio"
	"bytes"
	"errors"
	"io"
	"os"
	"strings"
	"testing"
	"unicode/utf8"

	"github.com/stretchr/testify/require"

	"github.com/blockseal/blockseal/examples/internal/cli"
	"github.com/blockseal/blockseal/internal/test/pgserver"
)

// A process that the command starts is this program, which is the test.
func TestMain(m *testing.M) {
	if status, yes := isWorker(); yes {
		os.Exit(status)
	}
	os.Exit(m.Run())
}

func TestRun(t *testing.T) {
	if _, err := pgserver.Find(); errors.Is(err, pgserver.ErrNone) {
		t.Skip(err)
	}
	temp := t.TempDir()
	t.Setenv("TMPDIR", temp)
	t.Setenv("COLUMNS", "80")
	var out bytes.Buffer
	require.NoError(t, run(t.Context(), nil, &out), "%s", &out)
	unfolded := strings.Join(strings.Fields(out.String()), " ")
	for _, want := range []string{
		"started 3 processes",
		"rotated the epoch, by process 1", "rotated the KEK, by process 2: to version ", "rotated the DEKs, by process 3",
		"taken up by all: generation ",
		"killed process 2, before its rotation had ended: process 3 rotated at once",
		"revoked the key: processes 1, 2, 3 are Inaccessible",
		"given back the key: processes 1, 2, 3 are Available",
		"verified all blocks open",
		"process state ops refused errors epoch generation vault calls 1 Available ",
	} {
		require.Contains(t, unfolded, want)
	}
	for line := range strings.Lines(out.String()) {
		require.LessOrEqual(t, utf8.RuneCountInString(strings.TrimSuffix(line, "\n")), 80, line)
	}
	left, err := os.ReadDir(temp)
	require.NoError(t, err)
	require.Empty(t, left, "something was left behind")
}

// Where there is no PostgreSQL it says in one line what to install.
func TestWithoutPostgreSQL(t *testing.T) {
	require.NotContains(t, pgserver.ErrNone.Error(), "\n")
	require.Contains(t, pgserver.ErrNone.Error(), "apt-get install postgresql")
	require.NotErrorIs(t, pgserver.ErrNone, cli.ErrUsage, "exit status 1, and not 2")
	if !errors.Is(noServer(t), pgserver.ErrNone) {
		return // a folder of a distribution has PostgreSQL, whatever the PATH is
	}
	require.Equal(t, pgserver.ErrNone, run(t.Context(), nil, io.Discard))
}

func noServer(t *testing.T) error {
	t.Setenv("PATH", t.TempDir())
	_, err := pgserver.Find()
	return err
}

func TestErrors(t *testing.T) {
	for _, args := range [][]string{{"-x"}, {"three"}} {
		require.ErrorIs(t, run(t.Context(), args, io.Discard), cli.ErrUsage)
	}
}

// What is asked wrongly is answered, and a process that has ended is told from one that answers.
func TestAnswers(t *testing.T) {
	lines := func(text string) *bufio.Scanner { return bufio.NewScanner(strings.NewReader(text)) }
	_, to := io.Pipe()
	require.NoError(t, to.Close())
	p := &process{name: "1", to: to}
	_, err := p.ask("report")
	require.ErrorIs(t, err, io.ErrClosedPipe)
	p.from = lines("")
	_, err = p.hear()
	require.ErrorIs(t, err, io.EOF)
	p.from = lines("garbage\n")
	_, err = p.hear()
	require.ErrorContains(t, err, `said "garbage"`)
	p.from = lines(`{"report":{"pid":7,"ops":3},"error":"no"}` + "\n")
	r, err := p.hear()
	require.EqualError(t, err, "process 1: no")
	require.EqualValues(t, 3, r.Ops)
}
