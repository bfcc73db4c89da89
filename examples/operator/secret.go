package main

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"os"

	"golang.org/x/term"
)

// secretSource is where a passphrase comes from: a file, the environment, or a
// person on the terminal, in that order. Never the command line, which every
// process of the machine can read and which shells keep.
type secretSource struct {
	what string // what it is called to a person
	file string // path of a flag; "" is none
	flag string // the flag's name
	env  string // variable's name
}

// read returns the secret, for the caller to clear. Of a file, one line feed at the
// end is not part of it. With confirm, a person types it twice.
func (a *app) readSecret(s secretSource, confirm bool) ([]byte, error) {
	if s.file != "" {
		b, err := os.ReadFile(s.file)
		if err != nil {
			return nil, fmt.Errorf("%s: %w", s.what, err)
		}
		return bytes.TrimSuffix(bytes.TrimSuffix(b, []byte("\n")), []byte("\r")), nil
	}
	if v := a.getenv(s.env); v != "" {
		return []byte(v), nil
	}
	p, err := a.prompt(s.what)
	if errors.Is(err, errNoTerminal) {
		return nil, usagef("no %s: give --%s, set %s, or run on a terminal", s.what, s.flag, s.env)
	}
	if err != nil || !confirm {
		return p, err
	}
	again, err := a.prompt(s.what + ", once more")
	if err != nil {
		return nil, err
	}
	defer clear(again)
	if !bytes.Equal(p, again) {
		clear(p)
		return nil, usagef("the two entries of the %s differ", s.what)
	}
	return p, nil
}

var errNoTerminal = errors.New("no terminal")

// promptTerminal asks on the process's terminal, wherever standard input and output
// go, and does not show what is typed. When ctx ends it leaves the terminal as it
// was.
func promptTerminal(ctx context.Context, label string) ([]byte, error) {
	tty, err := os.OpenFile("/dev/tty", os.O_RDWR, 0)
	if err != nil {
		return nil, errNoTerminal
	}
	defer tty.Close()
	fd := int(tty.Fd())
	was, err := term.GetState(fd)
	if err != nil {
		return nil, err
	}
	fmt.Fprintf(tty, "%s: ", label)
	defer fmt.Fprintln(tty)
	type entry struct {
		p   []byte
		err error
	}
	typed := make(chan entry, 1)
	go func() {
		p, err := term.ReadPassword(fd)
		typed <- entry{p, err}
	}()
	select {
	case e := <-typed:
		return e.p, e.err
	case <-ctx.Done():
		return nil, errors.Join(ctx.Err(), term.Restore(fd, was))
	}
}
