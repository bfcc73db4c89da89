package reader_test

import (
	"bufio"
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"strconv"
	"strings"
	"sync"
	"testing"

	"github.com/stretchr/testify/require"
)

// runner has read Python's modules and the script once, and runs that, from its beginning, in a process of
// its own for each line of standard input: to start Python anew takes ten times as long as what the
// script does. The package cryptography is read by those who use it: to fork with it takes longer. It
// answers with the exit status.
const runner = `
import json, os, sys, traceback
import argparse, base64, ctypes, hashlib, hmac, re, ssl, struct
with open("blockseal_read.py") as f:
    script = compile(f.read(), "blockseal_read.py", "exec")
for line in sys.stdin:
    request = json.loads(line)
    child = os.fork()
    if child == 0:
        status = 0
        try:
            os.dup2(os.open(os.devnull, os.O_RDONLY), 0)
            os.dup2(os.open(request["stdout"], os.O_WRONLY | os.O_CREAT, 0o600), 1)
            os.dup2(os.open(request["stderr"], os.O_WRONLY | os.O_CREAT, 0o600), 2)
            sys.argv = ["blockseal_read.py"] + request["args"]
            exec(script, {"__name__": "__main__"})
        except SystemExit as e:
            status = e.code or 0
            if not isinstance(status, int):
                print(status, file=sys.stderr)
                status = 1
        except BaseException:
            traceback.print_exc()
            status = 1
        sys.stdout.flush()
        sys.stderr.flush()
        os._exit(status)
    _, status = os.waitpid(child, 0)
    print(os.waitstatus_to_exitcode(status), flush=True)
`

// started returns what asks the runner, which ends when the tests do.
var started = sync.OnceValues(func() (func(request any) (status int, err error), error) {
	cmd := exec.Command("python3", "-c", runner)
	in, err := cmd.StdinPipe()
	if err != nil {
		return nil, err
	}
	out, err := cmd.StdoutPipe()
	if err != nil {
		return nil, err
	}
	cmd.Stderr = os.Stderr
	if err := cmd.Start(); err != nil {
		return nil, err
	}
	answers := bufio.NewReader(out)
	var one sync.Mutex
	return func(request any) (int, error) {
		one.Lock()
		defer one.Unlock()
		if err := json.NewEncoder(in).Encode(request); err != nil {
			return 0, err
		}
		line, err := answers.ReadString('\n')
		if err != nil {
			return 0, err
		}
		return strconv.Atoi(strings.TrimSpace(line))
	}, nil
})

// run runs the script.
func run(t *testing.T, args ...string) (stdout []byte, stderr string, err error) {
	t.Helper()
	if runtime.GOOS == "windows" { // which does not fork
		return runAlone(t, args...)
	}
	ask, err := started()
	require.NoError(t, err)
	dir := t.TempDir()
	out, complaint := filepath.Join(dir, "stdout"), filepath.Join(dir, "stderr")
	status, err := ask(map[string]any{"args": args, "stdout": out, "stderr": complaint})
	require.NoError(t, err)
	if status != 0 {
		err = fmt.Errorf("exit status %d", status)
	}
	return contents(t, out), string(contents(t, complaint)), err
}

func contents(t *testing.T, path string) []byte {
	b, err := os.ReadFile(path)
	require.NoError(t, err)
	return b
}

// runAlone runs the script as a person does.
func runAlone(t *testing.T, args ...string) (stdout []byte, stderr string, err error) {
	t.Helper()
	cmd := exec.CommandContext(t.Context(), "python3", append([]string{"blockseal_read.py"}, args...)...)
	var complaint strings.Builder
	cmd.Stderr = &complaint
	stdout, err = cmd.Output()
	return stdout, complaint.String(), err
}

// What the tests run is what a person runs.
func TestScriptIsRunAsItIs(t *testing.T) {
	found := backends(t)
	dir := t.TempDir()
	anchor := write(t, dir, "anchor", []byte("none"))
	for _, args := range [][]string{
		{"anchor", anchor},
		{"anchor", filepath.Join(dir, "missing")},
		{"nonsense"},
		{"--backend", found[0], "inspect", anchor},
		{"inspect", filepath.Join("..", "..", "keyring", "testdata", "golden", "created.bin")},
		{"--help"},
	} {
		out, complaint, err := run(t, args...)
		alone, complaintAlone, errAlone := runAlone(t, args...)
		require.Equal(t, string(alone), string(out), args)
		require.Equal(t, complaintAlone, complaint, args)
		var exit *exec.ExitError
		if errors.As(errAlone, &exit) {
			require.EqualError(t, err, fmt.Sprintf("exit status %d", exit.ExitCode()), args)
		} else {
			require.NoError(t, errors.Join(err, errAlone), args)
		}
	}
}
