package main

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"os"
	"unicode/utf8"

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

// minPassphrase is how many characters a new passphrase has at least. Whoever has a copy of
// the vault or the escrow file tries passphrases for as long as they like, with nobody to stop
// them after ten: it is the only factor, for which NIST SP 800-63B-4, section 3.1.1.2, wants 15
// characters and no rules of composition. It is a floor: five words by chance, or 16 random
// bytes, are what withstands such an attack.
const minPassphrase = 15

// newSecret is readSecret for a passphrase that something is to be sealed under; a person
// types it twice.
func (a *app) newSecret(s secretSource) ([]byte, error) {
	p, err := a.readSecret(s, true)
	if err != nil {
		return nil, err
	}
	if n := utf8.RuneCount(p); n < minPassphrase {
		clear(p)
		return nil, usagef("the %s has %d characters, want at least %d: whoever has a copy of the file can try as many as they like; take five words by chance", s.what, n, minPassphrase)
	}
	return p, nil
}

// readSecret returns the secret, for the caller to clear. Of a file, one line feed at the
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
