package main

import (
	"bytes"
	"context"
	"io"
	"os"
	"os/exec"
	"strings"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/blockseal/blockseal/keyring"
	"github.com/blockseal/blockseal/vault"
)

// The tests of exit statuses run this test binary as the command.
func TestMain(m *testing.M) {
	if os.Getenv("DRILL_AS_COMMAND") != "" {
		main()
	}
	os.Exit(m.Run())
}

// ownTemp gives the command a directory of its own for temporary files.
func ownTemp(t *testing.T) string {
	dir := t.TempDir()
	t.Setenv("TMPDIR", dir)
	return dir
}

func requireEmpty(t *testing.T, dir string) {
	t.Helper()
	left, err := os.ReadDir(dir)
	require.NoError(t, err)
	require.Empty(t, left, "something was left behind")
}

func TestRun(t *testing.T) {
	temp := ownTemp(t)
	t.Setenv("COLUMNS", "1000") // so that no sentence is broken
	var out bytes.Buffer
	require.NoError(t, run(t.Context(), []string{"-lease", "1m", "-check", "30s"}, &out))
	for _, want := range []string{
		"lease 1m0s, a check every 30s, on a simulated clock; 4 goroutines read and write\n",
		"\nget revoked\n  Inaccessible after  ",
		"\n  reason              vault: get mem:drill/keys/customer/",
		"\nwrapKey revoked\n",
		": access denied: ",
		"\nunwrapKey revoked\n",
		"\nkey disabled\n",
		": key disabled: enable the key version to use it\n",
		"\nkey expires\n  Inaccessible after  0s\n",
		": key expired: it expired at ",
		"\nkey deleted\n",
		": key deleted: recover the key to use it",
		"\nnetwork cut\n  Inaccessible after  1m0s\n",
		": vault unavailable: the vault cannot be reached, check the network",
		" operations while Degraded\n",
		"recovered after",
		"locked   at most   refused   ",
		"\nclosed and opened again: 128 acknowledged blocks, all authenticated\n",
		"nothing was read or acknowledged while the store was Inaccessible",
	} {
		require.Contains(t, out.String(), want)
	}
	require.NotContains(t, out.String(), "\r", "there is no terminal to redraw a line on")
	require.NotContains(t, out.String(), "VIOLATION")
	requireEmpty(t, temp)
}

// The table, which is the widest, fits 60 columns.
func TestTableIsNarrow(t *testing.T) {
	var out bytes.Buffer
	writeTable(&out, []result{{rehearsal: rehearsal{name: "unwrapKey revoked", within: 10 * time.Minute}, inaccessible: 599 * time.Second, recovered: 599 * time.Second, reason: vault.ErrAccessDenied}})
	for line := range strings.Lines(out.String()) {
		require.LessOrEqual(t, len(strings.TrimRight(line, " \n")), 60, line)
	}
}

func TestParse(t *testing.T) {
	o, err := parse(nil, io.Discard)
	require.NoError(t, err)
	require.Equal(t, options{lease: keyring.DefaultLease, check: keyring.DefaultCheckEvery}, o)
	o, err = parse([]string{"-real", "-lease", "20s"}, io.Discard)
	require.NoError(t, err)
	require.Equal(t, options{real: true, lease: 20 * time.Second, check: 2 * time.Second}, o)

	for _, c := range []struct {
		text string
		args []string
	}{
		{"flag provided but not defined: -x; run with -h for the flags", []string{"-x"}},
		{`unexpected argument "fast"; run with -h for the flags`, []string{"fast"}},
		{`invalid value "soon" for flag -lease: parse error; run with -h for the flags`, []string{"-lease=soon"}},
		{"-lease 10m1s is not between 1s and 10m0s; run with -h for the flags", []string{"-lease=10m1s"}},
		{"-lease -1s is not between 1s and 10m0s; run with -h for the flags", []string{"-lease=-1s"}},
		{"-check 11s is not between 100ms and half the lease, 10s; run with -h for the flags", []string{"-lease=20s", "-check=11s"}},
		{"-check 1ms is not between 100ms and half the lease, 10s; run with -h for the flags", []string{"-lease=20s", "-check=1ms"}},
	} {
		temp := ownTemp(t)
		require.EqualError(t, run(t.Context(), c.args, io.Discard), c.text)
		requireEmpty(t, temp)
	}
}

func TestExitStatus(t *testing.T) {
	cmd := exec.Command(os.Args[0], "-lease", "1h")
	cmd.Env = append(os.Environ(), "DRILL_AS_COMMAND=1")
	var stderr bytes.Buffer
	cmd.Stderr = &stderr
	require.Error(t, cmd.Run())
	require.Equal(t, 2, cmd.ProcessState.ExitCode())
	require.Equal(t, "drill: -lease 1h0m0s is not between 1s and 10m0s; run with -h for the flags\n", stderr.String())
}

// A drill that is stopped cleans up, on either clock.
func TestCancelled(t *testing.T) {
	for _, c := range []struct {
		after string
		args  []string
	}{
		{"lease ", nil},
		{"\nget revoked\n", nil},
		{"lease ", []string{"-real"}},
	} {
		temp := ownTemp(t)
		ctx, cancel := context.WithCancel(t.Context())
		require.ErrorIs(t, run(ctx, c.args, &cancelAfter{text: c.after, cancel: cancel}), context.Canceled)
		requireEmpty(t, temp)
	}
}

// cancelAfter cancels when something is written that contains text.
type cancelAfter struct {
	text   string
	cancel func()
}

func (c *cancelAfter) Write(b []byte) (int, error) {
	if bytes.Contains(b, []byte(c.text)) {
		c.cancel()
	}
	return len(b), nil
}
