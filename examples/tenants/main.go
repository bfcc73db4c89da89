// Tenants is a service with many customers in one database, each of whom holds the key to what is
// theirs:
//
//	go run ./examples/tenants [-customers N]
//
// Customers sign up, put and get. One takes their key away, and the others go on. One rotates
// their key, one moves to another database, one leaves and gets a receipt. It needs no network and
// leaves nothing behind.
//
// Read service.go, which is what a program does with block.DB, and then demonstrate.
package main

import (
	"context"
	"errors"
	"flag"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"runtime"
	"sync"

	"github.com/blockseal/blockseal/block"
	"github.com/blockseal/blockseal/examples/internal/cli"
	"github.com/blockseal/blockseal/keyring"
	"github.com/blockseal/blockseal/vault"
	"github.com/blockseal/blockseal/vault/local"
)

func main() { cli.Main("tenants", run) }

const about = `Tenants is a service with many customers in one database, each with a key of their own.

  go run ./examples/tenants [-customers N]
`

// passphrase protects a vault that lives for a minute. A real one is asked for.
const passphrase = "correct horse battery staple"

const (
	notes        = 20 // of each customer
	minCustomers = 5  // four have something happen to them
)

func run(ctx context.Context, args []string, out io.Writer) (err error) {
	out = cli.Fit(out)
	flags := flag.NewFlagSet("tenants", flag.ContinueOnError)
	n := flags.Int("customers", 100, fmt.Sprintf("the `number` of customers, %d at least", minCustomers))
	if err := cli.Parse(flags, about, args, out); err != nil {
		return err
	}
	if *n < minCustomers {
		return fmt.Errorf("-customers: there must be %d at least; %w", minCustomers, cli.ErrUsage)
	}
	root, err := os.MkdirTemp("", "blockseal-tenants-")
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, os.RemoveAll(root)) }()
	return demonstrate(ctx, root, *n, out)
}

// demonstrate is what happens to a service, in order.
func demonstrate(ctx context.Context, root string, n int, out io.Writer) (err error) {
	v, err := local.OpenOrCreate(filepath.Join(root, "vault"), []byte(passphrase), nil)
	if err != nil {
		return err
	}
	defer closing(v, &err)
	if err := v.Grant(ctx, "service", local.DataPlane()...); err != nil {
		return err
	}
	s, err := openService(ctx, filepath.Join(root, "db"), v.As("service"))
	if err != nil {
		return err
	}
	defer func() { closing(s, &err) }() // the one that there is then

	var all []string
	for i := range n {
		all = append(all, fmt.Sprintf("customer-%03d", i))
	}
	t := newTable(out)

	// Each customer makes a key, which never leaves the vault, and signs up.
	if err := t.step("make keys", all, 0, func(customer string) error {
		_, err := v.EnsureKey(ctx, customer, nil)
		return err
	}); err != nil {
		return err
	}
	if err := t.step("sign up", all, 0, func(customer string) error { return s.signUp(ctx, customer) }); err != nil {
		return err
	}
	if err := t.step("put", all, notes, func(customer string) error { return s.put(ctx, customer, notesOf(customer)) }); err != nil {
		return err
	}
	if err := t.step("get", all, notes, func(customer string) error { return getAll(ctx, s, customer) }); err != nil {
		return err
	}

	// After a restart no store is open. Each that is asked for takes three calls to its vault.
	if err := s.Close(); err != nil {
		return err
	}
	if s, err = openService(ctx, filepath.Join(root, "db"), v.As("service")); err != nil {
		return err
	}
	if err := t.step("restart, get", all, notes, func(customer string) error { return getAll(ctx, s, customer) }); err != nil {
		return err
	}

	// One takes their key away, while the others read.
	revoker, rest := all[n/5], without(all, all[n/5])
	if err := t.meanwhile("revoke one", rest, func(customer string) error { return getAll(ctx, s, customer) }, func() error {
		return revoke(ctx, v, s, revoker, out)
	}); err != nil {
		return err
	}

	// One rotates their key: the store moves to the new version, and no block is touched.
	rotator := all[2*n/5]
	if err := t.step("rotate one", []string{rotator}, 0, func(string) error { return rotate(ctx, v, s, rotator, out) }); err != nil {
		return err
	}
	if err := getAll(ctx, s, rotator); err != nil {
		return err
	}

	// One moves to another database.
	other, err := openService(ctx, filepath.Join(root, "other db"), v.As("service"))
	if err != nil {
		return err
	}
	defer closing(other, &err)
	mover := all[3*n/5]
	if err := t.step("move one", []string{mover}, notes, func(string) error {
		moved, r, err := s.moveTo(ctx, other, mover)
		if err == nil {
			fmt.Fprintf(out, "moved         %s: %d blocks, %d bytes, all of them sealed; receipt of what was here: %.16s...\n", mover, moved.Blocks, moved.Bytes, r.Hash)
		}
		return err
	}); err != nil {
		return err
	}
	if err := getAll(ctx, other, mover); err != nil {
		return err
	}

	// One leaves.
	leaver := all[4*n/5]
	if err := t.step("drop one", []string{leaver}, 0, func(string) error { return drop(ctx, s, leaver, out) }); err != nil {
		return err
	}
	for _, gone := range []string{mover, leaver} {
		if _, err := s.get(ctx, gone, noteID(0)); !errors.Is(err, block.ErrNoStore) {
			return fmt.Errorf("%s is not here any more, and get said: %w", gone, err)
		}
	}
	rest = without(without(all, mover), leaver)
	if err := t.step("get", rest, notes, func(customer string) error { return getAll(ctx, s, customer) }); err != nil {
		return err
	}
	return t.write(n)
}

// revoke disables a customer's key, shows that their notes are not to be had, and enables it again.
func revoke(ctx context.Context, v *local.Vault, s *service, customer string, out io.Writer) error {
	key, disabled, enabled := vault.KeyID{Name: customer}, false, true
	if _, err := v.UpdateKey(ctx, key, local.Update{Enabled: &disabled}); err != nil {
		return err
	}
	// The store asks its vault every minute. Revalidate asks now.
	revalidate := func(store *block.Store) error { return store.Revalidate(ctx) }
	if err := s.with(ctx, customer, revalidate); !errors.Is(err, vault.ErrKeyDisabled) {
		return fmt.Errorf("the key of %s is disabled, and revalidating said: %w", customer, err)
	}
	_, err := s.get(ctx, customer, noteID(0))
	if !errors.Is(err, keyring.ErrInaccessible) {
		return fmt.Errorf("the key of %s is disabled, and get said: %w", customer, err)
	}
	fmt.Fprintf(out, "revoked       %s: %v\n", customer, err)
	if _, err := v.UpdateKey(ctx, key, local.Update{Enabled: &enabled}); err != nil {
		return err
	}
	return s.with(ctx, customer, revalidate)
}

// rotate gives a customer's key a new version, and moves their store to it.
func rotate(ctx context.Context, v *local.Vault, s *service, customer string, out io.Writer) error {
	key, err := v.RotateKey(ctx, customer)
	if err != nil {
		return err
	}
	return s.with(ctx, customer, func(store *block.Store) error {
		if err := store.RotateKEK(ctx); err != nil {
			return err
		}
		if store.State().KEK != key.ID {
			return fmt.Errorf("the key of %s was rotated to %v, and the store is under %v", customer, key.ID, store.State().KEK)
		}
		fmt.Fprintf(out, "rotated       %s: to version %.8s...\n", customer, key.ID.Version)
		return nil
	})
}

// drop removes all that a customer has.
func drop(ctx context.Context, s *service, customer string, out io.Writer) error {
	r, err := s.db.Drop(ctx, customer)
	if err != nil {
		return err
	}
	if r.Pinned || len(r.Copies) > 0 {
		return fmt.Errorf("the receipt of %s says that something is left: %+v", customer, r)
	}
	fmt.Fprintf(out, "dropped       %s: receipt %.16s...; under %d KEK version, which opens backups until it is purged\n", customer, r.Hash, len(r.Keys))
	return nil
}

func noteID(i int) string { return fmt.Sprintf("note %02d", i) }

func note(customer string, i int) string {
	return fmt.Sprintf("what %s keeps as note %02d", customer, i)
}

func notesOf(customer string) map[string]string {
	all := map[string]string{}
	for i := range notes {
		all[noteID(i)] = note(customer, i)
	}
	return all
}

// getAll gets all notes of a customer, and looks whether they are theirs.
func getAll(ctx context.Context, s *service, customer string) error {
	for i := range notes {
		switch got, err := s.get(ctx, customer, noteID(i)); {
		case err != nil:
			return err
		case got != note(customer, i):
			return fmt.Errorf("%s of %s is %q", noteID(i), customer, got)
		}
	}
	return nil
}

func without(all []string, one string) (rest []string) {
	for _, c := range all {
		if c != one {
			rest = append(rest, c)
		}
	}
	return rest
}

// each calls f for all customers, some of them at once, and returns an error of the first that has one.
func each(customers []string, f func(customer string) error) error {
	errs := make([]error, len(customers))
	turns := make(chan struct{}, 2*runtime.GOMAXPROCS(0))
	var all sync.WaitGroup
	for i, c := range customers {
		turns <- struct{}{}
		all.Go(func() {
			errs[i] = f(c)
			<-turns
		})
	}
	all.Wait()
	for _, err := range errs {
		if err != nil {
			return err
		}
	}
	return nil
}

// closing closes c and keeps its error, unless there is one already.
func closing(c io.Closer, err *error) {
	if e := c.Close(); *err == nil {
		*err = e
	}
}
