package main

import (
	"bufio"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"time"
)

// Another process is this program once more, which its environment tells what it is.
const (
	workerName  = "BLOCKSEAL_SHARED_WORKER"
	workerPlace = "BLOCKSEAL_SHARED_PLACE"
)

// isWorker reports whether this process is one of the fleet, and then does its work and returns its exit
// status.
func isWorker() (status int, yes bool) {
	name, yes := os.LookupEnv(workerName)
	if !yes {
		return 0, false
	}
	var p place
	err := json.Unmarshal([]byte(os.Getenv(workerPlace)), &p)
	if err == nil {
		err = work(context.Background(), name, p, os.Stdin, os.Stdout)
	}
	if err != nil {
		fmt.Fprintf(os.Stderr, "process %s: %v\n", name, err)
		return 1, true
	}
	return 0, true
}

// process is one of the fleet, as the program that started it sees it.
type process struct {
	name string
	cmd  *exec.Cmd
	to   io.WriteCloser
	from *bufio.Scanner
	last report // what it said of itself last
	dead bool
}

// start starts a process. It ends with ctx, if it has not before.
func start(ctx context.Context, name string, p place) (*process, error) {
	program, err := os.Executable()
	if err != nil {
		return nil, err
	}
	where, err := json.Marshal(p)
	if err != nil {
		return nil, err
	}
	cmd := exec.CommandContext(ctx, program)
	cmd.Env = append(os.Environ(), workerName+"="+name, workerPlace+"="+string(where))
	cmd.Stderr = os.Stderr
	to, err := cmd.StdinPipe()
	if err != nil {
		return nil, err
	}
	from, err := cmd.StdoutPipe()
	if err != nil {
		return nil, err
	}
	if err := cmd.Start(); err != nil {
		return nil, err
	}
	return &process{name: name, cmd: cmd, to: to, from: bufio.NewScanner(from)}, nil
}

// tell asks a process for something, and hear waits for its answer.
func (p *process) tell(what string) error {
	_, err := fmt.Fprintln(p.to, what)
	return err
}

func (p *process) hear() (report, error) {
	var a answer
	if !p.from.Scan() {
		return p.last, fmt.Errorf("process %s has ended: %w", p.name, errors.Join(p.from.Err(), io.EOF))
	}
	if err := json.Unmarshal(p.from.Bytes(), &a); err != nil {
		return p.last, fmt.Errorf("process %s said %q: %w", p.name, p.from.Text(), err)
	}
	p.last = a.Report
	if a.Error != "" {
		return p.last, fmt.Errorf("process %s: %s", p.name, a.Error)
	}
	return p.last, nil
}

// ask is both.
func (p *process) ask(what string) (report, error) {
	if err := p.tell(what); err != nil {
		return p.last, fmt.Errorf("process %s: %w", p.name, err)
	}
	return p.hear()
}

// until asks a process for reports until one says what is waited for.
func (p *process) until(ctx context.Context, what string, is func(r report) bool) error {
	for {
		r, err := p.ask("report")
		if err != nil || is(r) {
			return err
		}
		select {
		case <-time.After(20 * time.Millisecond):
		case <-ctx.Done():
			return fmt.Errorf("process %s is not %s: it is %s: %w", p.name, what, r.State, ctx.Err())
		}
	}
}

// kill ends a process as a crash does.
func (p *process) kill() {
	p.dead = true
	_ = p.cmd.Process.Kill()
	_ = p.cmd.Wait()
}

// end has a process close what it has open.
func (p *process) end() error {
	p.dead = true
	err := p.to.Close()
	for p.from.Scan() { // nothing is asked any more
	}
	if e := p.cmd.Wait(); e != nil {
		err = errors.Join(err, fmt.Errorf("process %s: %w", p.name, e))
	}
	return err
}

// fleet is the processes, by their numbers.
type fleet []*process

// each waits until each process says what is waited for.
func (f fleet) each(ctx context.Context, what string, is func(r report) bool) error {
	for _, p := range f {
		if err := p.until(ctx, what, is); err != nil {
			return err
		}
	}
	return nil
}

// goesOn waits until each process has done some more.
func (f fleet) goesOn(ctx context.Context) error {
	const more = 40
	for _, p := range f {
		before := p.last.Ops
		if err := p.until(ctx, "going on", func(r report) bool { return r.Ops >= before+more }); err != nil {
			return err
		}
	}
	return nil
}

// kill ends what has not ended.
func (f fleet) kill() {
	for _, p := range f {
		if p != nil && !p.dead {
			p.kill()
		}
	}
}
