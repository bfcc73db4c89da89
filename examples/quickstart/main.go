// Quickstart shows the whole of blockseal on real data in one run:
//
//	go run ./examples/quickstart
//
// It makes a vault in a directory and a key encryption key (KEK) in it, opens a
// store, seals the Go toolchain's own source code into it, reads all of it back,
// searches the disk for what it wrote, takes the key away, and gives it back. It
// needs no network and leaves nothing behind.
//
// Read run, then demonstrate: what a program does with blockseal is there, in
// order. The other files are what the demonstration needs around it: input.go the
// files to store, ingest.go sealing them and comparing what comes back, search.go
// the search for plaintext, report.go the tables.
package main

import (
	"context"
	"errors"
	"flag"
	"fmt"
	"io"
	"os"
	"path/filepath"

	"github.com/blockseal/blockseal/block"
	"github.com/blockseal/blockseal/examples/internal/cli"
	"github.com/blockseal/blockseal/kek"
	"github.com/blockseal/blockseal/keyring"
	"github.com/blockseal/blockseal/vault"
	"github.com/blockseal/blockseal/vault/local"
)

func main() { cli.Main("quickstart", run) }

const about = `Quickstart seals a directory tree into a store, reads it back, searches the disk
for its plaintext, and takes the key away and gives it back.

  go run ./examples/quickstart [-in DIR] [-keep]
`

// passphrase protects a vault that lives for a minute. A real one is asked for.
const passphrase = "correct horse battery staple"

// run parses the command line, demonstrates in a temporary directory, and removes
// that.
func run(ctx context.Context, args []string, out io.Writer) error {
	out = cli.Fit(out)
	flags := flag.NewFlagSet("quickstart", flag.ContinueOnError)
	in := flags.String("in", "", "the `directory` to store (default: the Go toolchain's own source code)")
	keep := flags.Bool("keep", false, "keep the vault and the store, and say where they are")
	if err := cli.Parse(flags, about, args, out); err != nil {
		return err
	}
	// The files are listed before there is a temporary directory, which may lie
	// in the tree.
	tree, err := findTree(ctx, *in)
	if err != nil {
		return err
	}
	root, err := os.MkdirTemp("", "blockseal-quickstart-")
	if err != nil {
		return err
	}
	cleanUp := func() {
		if *keep {
			fmt.Fprintf(out, "\nkept          %s (the vault's passphrase is %q)\n", root, passphrase)
		} else if err := os.RemoveAll(root); err != nil {
			fmt.Fprintf(out, "\nleft behind   %s: %v\n", root, err)
		}
	}
	defer cleanUp()
	// If the storage engine cannot go on, because the disk is full, for example, the
	// process has to end, and no deferred call runs.
	opts := &block.Options{Pebble: block.PebbleOptions{Fatal: func(msg string) {
		cleanUp()
		fmt.Fprintln(os.Stderr, "quickstart: the storage engine cannot go on:", msg)
		os.Exit(1)
	}}}
	return demonstrate(ctx, root, tree, opts, out)
}

// demonstrate is what a program does with blockseal, in order.
func demonstrate(ctx context.Context, root string, tree *tree, opts *block.Options, out io.Writer) (err error) {
	// A vault holds the KEK. This one is a directory, sealed under a passphrase. In
	// production it is Azure Key Vault; what is done with k below stays the same.
	vaultDir, storeDir := filepath.Join(root, "vault"), filepath.Join(root, "store")
	v, err := local.OpenOrCreate(vaultDir, []byte(passphrase), nil)
	if err != nil {
		return err
	}
	defer closing(v, &err)

	// The KEK is an RSA-2048 key that never leaves the vault. The vault's owner
	// makes it, and grants the store's identity the three things that a store
	// needs: get, wrapKey, unwrapKey.
	key, err := v.EnsureKey(ctx, "customer", nil)
	if err != nil {
		return err
	}
	if err := v.Grant(ctx, "store", local.DataPlane()...); err != nil {
		return err
	}
	k := kek.New(v.As("store"), vault.KeyID{Name: "customer"})
	fmt.Fprintf(out, "vault         %s\nKEK           %s\n", vaultDir, key.ID)

	// A store is a directory too. Nil options would do.
	s, err := block.Open(ctx, storeDir, k, opts)
	if err != nil {
		return err
	}
	defer closing(s, &err)
	fmt.Fprintf(out, "store         %s\ninput         %s: %s files, %s\n\n", storeDir, tree.dir, cli.Count(len(tree.files)), cli.MB(tree.bytes))

	// Each block is sealed under a key of its own (DEK). The DEKs are wrapped in
	// memory, under a keyring that the KEK wraps: no block costs a call to the vault.
	t := newTable(out)
	put, err := ingest(ctx, s, tree, t.step("ingest"))
	if err != nil {
		return err
	}
	if err := readAll(ctx, s, put, t.step("read back")); err != nil {
		return err
	}

	// What lies on the disk is ciphertext, of the store and of the vault. The store
	// is closed meanwhile, so that its files stay as they are.
	if err := s.Close(); err != nil {
		return err
	}
	if err := searchDisk(ctx, root, tree, put, t.step("search")); err != nil {
		return err
	}

	// Opening the store again takes one unwrap, whatever it holds.
	s2, err := block.Open(ctx, storeDir, k, opts)
	if err != nil {
		return err
	}
	defer closing(s2, &err)

	// Take the KEK away and nobody reads; give it back and all is there again.
	if err := revoke(ctx, v, key.ID, s2, put, out); err != nil {
		return err
	}
	if err := readEach(ctx, s2, put, t.step("read again")); err != nil {
		return err
	}
	return t.write(len(put.sums), s.VaultCalls(), s2.VaultCalls())
}

// revoke disables the KEK, shows that the store is Inaccessible, and enables it.
func revoke(ctx context.Context, v *local.Vault, key vault.KeyID, s *block.Store, put digests, out io.Writer) error {
	disabled, enabled := false, true
	if _, err := v.UpdateKey(ctx, key, local.Update{Enabled: &disabled}); err != nil {
		return err
	}
	// The store asks its vault every minute. Revalidate asks now, and returns what
	// the vault said.
	refusal := s.Revalidate(ctx)
	if !errors.Is(refusal, vault.ErrKeyDisabled) {
		return fmt.Errorf("the KEK was disabled, and revalidating said: %v", refusal)
	}
	state := s.State()
	if state.Status != keyring.Inaccessible {
		return fmt.Errorf("the KEK was disabled, and the store is %v", state)
	}
	_, getErr := s.Get(ctx, []byte(put.first), nil)
	putErr := s.Put(ctx, []byte(put.first), []byte("another"))
	if !errors.Is(getErr, block.ErrInaccessible) || !errors.Is(putErr, block.ErrInaccessible) {
		return fmt.Errorf("the store is Inaccessible, and Get said: %v, Put said: %v", getErr, putErr)
	}
	fmt.Fprintf(out, "\nKEK disabled\n  Revalidate  %v\n  State       %v\n  Get         %v\n  Put         refused in the same way\n", refusal, state.Status, getErr)

	if _, err := v.UpdateKey(ctx, key, local.Update{Enabled: &enabled}); err != nil {
		return err
	}
	if err := s.Revalidate(ctx); err != nil {
		return fmt.Errorf("the KEK was enabled, and revalidating said: %w", err)
	}
	fmt.Fprintf(out, "KEK enabled\n  Revalidate  ok\n  State       %v\n\n", s.State().Status)
	return nil
}

// closing closes c and keeps its error, unless there is one already.
func closing(c io.Closer, err *error) {
	if e := c.Close(); *err == nil {
		*err = e
	}
}
