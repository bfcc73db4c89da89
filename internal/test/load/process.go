package load

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"strconv"
	"time"

	"github.com/blockseal/blockseal/internal/test/ledger"
)

// The process under load is the calling program itself, started again with these
// variables in its environment.
const (
	envDir  = "BLOCKSEAL_LOAD_DIR"
	envSeed = "BLOCKSEAL_LOAD_SEED"
)

// Child is the process, if this one was started as it, and does not return then. Call
// it first in main or TestMain. The ledger comes on standard input and goes on on
// standard output.
func Child(options func(*Options)) {
	dir := os.Getenv(envDir)
	if dir == "" {
		return
	}
	l := ledger.New(os.Stdout)
	err := l.Read(os.Stdin)
	if err == nil {
		var o Options
		o.Seed, _ = strconv.ParseUint(os.Getenv(envSeed), 10, 64)
		if options != nil {
			options(&o)
		}
		err = Dir(dir).Run(context.Background(), l, o)
	}
	if err != nil {
		fmt.Fprintln(os.Stderr, err)
		os.Exit(3)
	}
	os.Exit(0)
}

// Process is a child under load.
type Process struct {
	cmd      *exec.Cmd
	out, err bytes.Buffer
}

// Start starts a child that goes on from a ledger, with more variables in its
// environment.
func (d Dir) Start(l *ledger.Ledger, seed uint64, env ...string) (*Process, error) {
	exe, err := os.Executable()
	if err != nil {
		return nil, err
	}
	p := &Process{cmd: exec.Command(exe)}
	p.cmd.Env = append(os.Environ(), append(env, envDir+"="+string(d), envSeed+"="+strconv.FormatUint(seed, 10))...)
	p.cmd.Stdout, p.cmd.Stderr = &p.out, &p.err
	var in bytes.Buffer
	if err := l.Write(&in); err != nil {
		return nil, err
	}
	p.cmd.Stdin = &in
	return p, p.cmd.Start()
}

// Kill lets the child run for a while, kills it, and enters in l what it wrote. It is
// an error if the child had ended by itself.
func (p *Process) Kill(after time.Duration, l *ledger.Ledger) error {
	time.Sleep(after)
	p.cmd.Process.Kill()
	err := p.cmd.Wait()
	if p.cmd.ProcessState.ExitCode() != -1 { // it was not a signal that ended it
		return errors.Join(fmt.Errorf("the process ended by itself: %w: %s", err, p.err.String()), l.Read(&p.out))
	}
	return l.Read(&p.out)
}

// Wait waits for the child to end, enters in l what it wrote, and returns its exit
// status and standard error. A child that takes longer than most is killed, and its
// status is -1.
func (p *Process) Wait(most time.Duration, l *ledger.Ledger) (status int, stderr string, err error) {
	late := time.AfterFunc(most, func() { p.cmd.Process.Kill() })
	err = p.cmd.Wait()
	late.Stop()
	if _, exited := errors.AsType[*exec.ExitError](err); exited {
		err = nil
	}
	return p.cmd.ProcessState.ExitCode(), p.err.String(), errors.Join(err, l.Read(io.Reader(&p.out)))
}

// Stderr is what the child wrote to standard error; call it after Kill or Wait.
func (p *Process) Stderr() string { return p.err.String() }
