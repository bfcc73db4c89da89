// Shared is one store that three processes have open at once, in a PostgreSQL database:
//
//	go run ./examples/shared
//
// It starts a PostgreSQL server of its own, which must be installed (apt-get install postgresql),
// and three processes that write and read all the time. Meanwhile the epoch, the KEK and the DEKs are
// rotated, one process is killed while it rotates, and the key is taken away and given
// back. It ends with what each process did. It needs no network and leaves nothing behind.
//
// Read service.go and worker.go, which are what a program does, and then demonstrate.
package main

import (
	"context"
	"errors"
	"flag"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"strings"
	"time"

	"github.com/blockseal/blockseal/examples/internal/cli"
	"github.com/blockseal/blockseal/keyring"
	"github.com/blockseal/blockseal/vault"
	"github.com/blockseal/blockseal/vault/local"
)

func main() {
	if status, yes := isWorker(); yes {
		os.Exit(status)
	}
	cli.Main("shared", run)
}

const about = `Shared is one store that three processes have open at once, in a PostgreSQL database.

  go run ./examples/shared
`

// passphrase protects a vault that lives for a minute. A real one is asked for.
const passphrase = "correct horse battery staple"

// processes is how many there are.
const processes = 3

// patience bounds the whole run, on a machine that does much else.
const patience = 10 * time.Minute

func run(ctx context.Context, args []string, out io.Writer) (err error) {
	out = cli.Fit(out)
	if err := cli.Parse(flag.NewFlagSet("shared", flag.ContinueOnError), about, args, out); err != nil {
		return err
	}
	ctx, cancel := context.WithTimeout(ctx, patience)
	defer cancel()
	s, err := startServer(ctx)
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, s.Stop()) }()
	root, err := os.MkdirTemp("", "blockseal-shared-")
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, os.RemoveAll(root)) }()
	return demonstrate(ctx, place{Vault: filepath.Join(root, "vault"), Conn: s.conn(), Schema: schema}, out)
}

// demonstrate is what happens to a fleet, in order.
func demonstrate(ctx context.Context, where place, out io.Writer) (err error) {
	v, err := local.OpenOrCreate(where.Vault, []byte(passphrase), nil)
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, v.Close()) }()
	if _, err := v.EnsureKey(ctx, customer, nil); err != nil {
		return err
	}
	if err := v.Grant(ctx, "service", local.DataPlane()...); err != nil {
		return err
	}

	// All three start at once: one of them makes the store.
	f := make(fleet, processes)
	defer func() { f.kill() }()
	for i := range f {
		if f[i], err = start(ctx, fmt.Sprint(i+1), where); err != nil {
			return err
		}
	}
	if err := f.goesOn(ctx); err != nil {
		return err
	}
	fmt.Fprintf(out, "started       %d processes, each of which writes and reads, in one store\n", processes)

	if err := rotate(ctx, v, f, out); err != nil {
		return err
	}
	if err := crash(ctx, f, where, out); err != nil {
		return err
	}
	if err := revoke(ctx, v, f, out); err != nil {
		return err
	}

	// Everything is there, and opens.
	if _, err := f[0].ask("verify"); err != nil {
		return err
	}
	fmt.Fprintf(out, "verified      all blocks open\n")
	for _, p := range f {
		if _, err := p.ask("report"); err != nil {
			return err
		}
	}
	for _, p := range f {
		if err := p.end(); err != nil {
			return err
		}
	}
	if err := writeTable(out, f); err != nil {
		return err
	}
	for _, p := range f {
		if p.last.Errors > 0 {
			return fmt.Errorf("process %s had %d errors, the last one: %s", p.name, p.last.Errors, p.last.Failed)
		}
	}
	return nil
}

// rotate rotates at each level, each in another process, while all write.
func rotate(ctx context.Context, v *local.Vault, f fleet, out io.Writer) error {
	key, err := v.RotateKey(ctx, customer)
	if err != nil {
		return err
	}
	for i, level := range []struct{ what, says string }{
		{"epoch", "the epoch, by process 1: every DEK is wrapped anew, and no block is touched"},
		{"kek", fmt.Sprintf("the KEK, by process 2: to version %.8s...; no DEK is touched", key.ID.Version)},
		{"deks", "the DEKs, by process 3: every block is sealed anew"},
	} {
		if _, err := f[i].ask(level.what); err != nil {
			return err
		}
		fmt.Fprintf(out, "rotated       %s\n", level.says)
		if err := f.goesOn(ctx); err != nil {
			return err
		}
	}
	// Who has rotated has the latest document. The others take it up when they meet what is new in it,
	// and at their next check.
	latest := uint64(0)
	for _, p := range f {
		latest = max(latest, p.last.Generation)
	}
	if err := f.each(ctx, "up to date", func(r report) bool { return r.Generation >= latest }); err != nil {
		return err
	}
	fmt.Fprintf(out, "taken up      by all: generation %d of the keyring document\n", latest)
	return nil
}

// crash kills one process with kill -9 before a rotation of it has ended. The server takes its turn back at
// once, another one rotates, and what the first one was told is written is there.
func crash(ctx context.Context, f fleet, where place, out io.Writer) (err error) {
	p := f[1]
	if _, err := p.ask("hang"); err != nil {
		return err
	}
	p.kill()
	if _, err := f[2].ask("deks"); err != nil {
		return err
	}
	if _, err := f[0].ask(fmt.Sprintf("check %s %d", p.name, p.last.Acked)); err != nil {
		return err
	}
	fmt.Fprintf(out, "killed        process %s, before its rotation had ended: process 3 rotated at once, and nothing is lost of what %s was told is written\n", p.name, p.name)
	if f[1], err = start(ctx, p.name, where); err != nil {
		return err
	}
	return f.goesOn(ctx)
}

// revoke takes the key away and gives it back. Each process finds out by its own check.
func revoke(ctx context.Context, v *local.Vault, f fleet, out io.Writer) error {
	enable := func(yes bool) error {
		_, err := v.UpdateKey(ctx, vault.KeyID{Name: customer}, local.Update{Enabled: &yes})
		return err
	}
	if err := enable(false); err != nil {
		return err
	}
	is := func(s keyring.Status) func(r report) bool {
		return func(r report) bool { return r.State == s.String() }
	}
	if err := f.each(ctx, "locked", func(r report) bool { return is(keyring.Inaccessible)(r) && r.Refused > 0 }); err != nil {
		return err
	}
	fmt.Fprintf(out, "revoked       the key: %s are %v, each by its own check\n", names(f), keyring.Inaccessible)
	if err := enable(true); err != nil {
		return err
	}
	if err := f.each(ctx, "open again", is(keyring.Available)); err != nil {
		return err
	}
	if err := f.goesOn(ctx); err != nil {
		return err
	}
	fmt.Fprintf(out, "given back    the key: %s are %v, and go on\n", names(f), keyring.Available)
	return nil
}

func names(f fleet) string {
	var all []string
	for _, p := range f {
		all = append(all, p.name)
	}
	return "processes " + strings.Join(all, ", ")
}
