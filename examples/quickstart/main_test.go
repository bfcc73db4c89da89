package main

import (
	"bytes"
	"context"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"strings"
	"syscall"
	"testing"
	"time"
	"unicode/utf8"

	"github.com/stretchr/testify/require"
)

// The tests of exit statuses run this test binary as the command.
func TestMain(m *testing.M) {
	if os.Getenv("QUICKSTART_AS_COMMAND") != "" {
		main()
	}
	os.Exit(m.Run())
}

// writeTree makes a tree with files at the edges of block sizes.
func writeTree(t *testing.T) string {
	dir := t.TempDir()
	require.NoError(t, os.Mkdir(filepath.Join(dir, "sub"), 0o700))
	text := strings.Repeat("The quick brown fox jumps over the lazy dog, and is sealed. ", 5*blockSize/60)
	for name, size := range map[string]int{
		"empty":           0,
		"one byte":        1,
		"small#00000000":  500,
		"sub/block":       blockSize,
		"sub/block and 1": blockSize + 1,
		"sub/large":       4*blockSize + 7,
	} {
		require.NoError(t, os.WriteFile(filepath.Join(dir, filepath.FromSlash(name)), []byte(text[:size]), 0o600))
	}
	require.NoError(t, os.Symlink("sub/large", filepath.Join(dir, "link")))
	return dir
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
	temp, tree := ownTemp(t), writeTree(t)
	t.Setenv("COLUMNS", "1000") // so that no sentence is broken
	var out bytes.Buffer
	require.NoError(t, run(t.Context(), []string{"-in", tree}, &out))
	for _, want := range []string{
		"6 files, 0.4 MB\n",
		"ingest        11 blocks of up to 64 KiB, each under its own DEK, durable\n",
		"read back     all 11 blocks have the SHA-256 that they had, by a scan\n",
		" snippets of plaintext on the disk; the same search finds ",
		"KEK disabled\n  Revalidate  vault: get local:",
		": key disabled: enable the key version to use it\n  State       Inaccessible\n  Get         block: get \"empty#00000000\": keyring: inaccessible since ",
		"KEK enabled\n  Revalidate  ok\n  State       Available\n",
		"read again    all 11 blocks have the SHA-256 that they had, one by one\n",
		"blocks/s",
		"vault calls   get ",
		"; 1 of them refused\n",
		"\nshown\n  sealed      11 blocks, each under its own DEK\n",
		"\ntry next\n  go run ./examples/hello ",
	} {
		require.Contains(t, out.String(), want)
	}
	require.NotContains(t, out.String(), "\r", "there is no terminal to redraw a line on")
	requireEmpty(t, temp)
}

// Every line fits a terminal of 80 columns and one of 60, and nothing is coloured: neither
// what is asked for nor what is not.
func TestOutputFits(t *testing.T) {
	tree := writeTree(t)
	for _, tt := range []struct {
		columns        int
		value, noColor string
	}{{80, "", ""}, {60, "60", "1"}} {
		ownTemp(t)
		t.Setenv("COLUMNS", tt.value)
		t.Setenv("NO_COLOR", tt.noColor)
		t.Setenv("TERM", "xterm-256color")
		var out bytes.Buffer
		require.NoError(t, run(t.Context(), []string{"-in", tree, "-keep"}, &out))
		for line := range strings.Lines(out.String()) {
			require.LessOrEqual(t, utf8.RuneCountInString(strings.TrimSuffix(line, "\n")), tt.columns, line)
		}
		require.NotContains(t, out.String(), "\x1b", "no terminal, no colour")
	}
}

// What the end says to try next is there.
func TestWhatToTryNextExists(t *testing.T) {
	var out bytes.Buffer
	require.NoError(t, newTable(&out).shown(1, 1))
	next := regexp.MustCompile(`(?m)^  (?:go run )?(\./examples/[a-z]+|docs/[a-z.]+)`).FindAllStringSubmatch(out.String(), -1)
	require.Greater(t, len(next), 5)
	for _, m := range next {
		_, err := os.Stat(filepath.Join("../..", m[1]))
		require.NoError(t, err)
	}
}

func TestKeep(t *testing.T) {
	temp, tree := ownTemp(t), writeTree(t)
	var out bytes.Buffer
	require.NoError(t, run(t.Context(), []string{"-in", tree, "-keep"}, &out))
	kept, err := os.ReadDir(temp)
	require.NoError(t, err)
	require.Len(t, kept, 1)
	root := filepath.Join(temp, kept[0].Name())
	require.Contains(t, out.String(), "\nkept          "+root+" ")
	require.DirExists(t, filepath.Join(root, "vault"))
	require.DirExists(t, filepath.Join(root, "store"))
}

// A tree that is reached through a link is the tree.
func TestLinkedTree(t *testing.T) {
	link := filepath.Join(t.TempDir(), "link")
	require.NoError(t, os.Symlink(writeTree(t), link))
	tr, err := findTree(t.Context(), link)
	require.NoError(t, err)
	require.Len(t, tr.files, 6)
}

// Without -in the tree is the Go toolchain's source.
func TestDefaultTree(t *testing.T) {
	tr, err := findTree(t.Context(), "")
	require.NoError(t, err)
	require.Contains(t, tr.files, "crypto/cipher/gcm.go")
}

func TestErrors(t *testing.T) {
	dir := t.TempDir()
	file := filepath.Join(dir, "file")
	require.NoError(t, os.WriteFile(file, []byte("short"), 0o600))
	for _, c := range []struct {
		name, text string
		args       []string
	}{
		{"unknown flag", "flag provided but not defined: -x; run with -h for the flags", []string{"-x"}},
		{"flag without a value", "flag needs an argument: -in; run with -h for the flags", []string{"-in"}},
		{"argument", `unexpected argument "src"; run with -h for the flags`, []string{"src"}},
		{"missing directory", "-in: there is no directory " + dir + "/none", []string{"-in", dir + "/none"}},
		{"file", "-in: " + file + " is not a directory", []string{"-in", file}},
		{"nothing to store", "-in: there are no files in ", []string{"-in", t.TempDir()}},
		{"nothing to search for", "the input has nothing to search the disk for", []string{"-in", dir}},
	} {
		t.Run(c.name, func(t *testing.T) {
			temp := ownTemp(t)
			err := run(t.Context(), c.args, io.Discard)
			require.ErrorContains(t, err, c.text)
			require.NotContains(t, err.Error(), "\n")
			requireEmpty(t, temp)
		})
	}
}

func TestNoGo(t *testing.T) {
	t.Setenv("PATH", t.TempDir())
	_, err := findTree(t.Context(), "")
	require.ErrorIs(t, err, exec.ErrNotFound)
	require.ErrorContains(t, err, "give another directory with -in")
}

func TestCancelled(t *testing.T) {
	temp, tree := ownTemp(t), writeTree(t)
	for _, after := range []string{"input ", "ingest ", "read back ", "KEK disabled"} {
		ctx, cancel := context.WithCancel(t.Context())
		out := &cancelAfter{text: after, cancel: cancel}
		require.ErrorIs(t, run(ctx, []string{"-in", tree}, out), context.Canceled)
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

// command runs the quickstart as a process of its own.
func command(args ...string) *exec.Cmd {
	cmd := exec.Command(os.Args[0], args...)
	cmd.Env = append(os.Environ(), "QUICKSTART_AS_COMMAND=1")
	return cmd
}

func TestExitStatus(t *testing.T) {
	temp := ownTemp(t)
	for _, c := range []struct {
		args   []string
		status int
		stderr string
	}{
		{[]string{"-h"}, 0, ""},
		{[]string{"-x"}, 2, "quickstart: flag provided but not defined: -x; run with -h for the flags\n"},
		{[]string{"-in", temp + "/none"}, 1, "quickstart: -in: there is no directory " + temp + "/none\n"},
	} {
		cmd := command(c.args...)
		var stderr bytes.Buffer
		cmd.Stderr = &stderr
		err := cmd.Run()
		if c.status == 0 {
			require.NoError(t, err)
		} else {
			var exit *exec.ExitError
			require.ErrorAs(t, err, &exit)
		}
		require.Equal(t, c.status, cmd.ProcessState.ExitCode())
		require.Equal(t, c.stderr, stderr.String())
	}
	requireEmpty(t, temp)
}

// A signal ends the command, which cleans up.
func TestInterrupted(t *testing.T) {
	temp, tree := ownTemp(t), t.TempDir()
	// More than is stored before the signal arrives; holes take no room on the disk.
	f, err := os.Create(filepath.Join(tree, "large"))
	require.NoError(t, err)
	require.NoError(t, f.Truncate(4<<30))
	require.NoError(t, f.Close())

	for name, stop := range map[string]os.Signal{"interrupt": os.Interrupt, "termination": syscall.SIGTERM} {
		t.Run(name, func(t *testing.T) {
			cmd := command("-in", tree)
			var stderr bytes.Buffer
			cmd.Stderr = &stderr
			stdout, err := cmd.StdoutPipe()
			require.NoError(t, err)
			require.NoError(t, cmd.Start())
			limit := time.AfterFunc(10*time.Minute, func() { cmd.Process.Kill() })
			defer limit.Stop()
			_, err = io.ReadFull(stdout, make([]byte, len("vault ")))
			require.NoError(t, err)
			require.NoError(t, cmd.Process.Signal(stop))
			_, err = io.Copy(io.Discard, stdout)
			require.NoError(t, err)
			var exit *exec.ExitError
			require.ErrorAs(t, cmd.Wait(), &exit)
			require.Equal(t, 128+int(stop.(syscall.Signal)), exit.ExitCode())
			require.Equal(t, "quickstart: stopped by a signal: "+stop.String()+"\n", stderr.String())
			requireEmpty(t, temp)
		})
	}
}
