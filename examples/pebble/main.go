// Pebble is a program that had a database before it had a key: texts in a Pebble, in which it counts
// words. One line made it safe. Its files are sealed under a key that somebody else can take away.
//
//	go run ./examples/pebble
//
// store.go is that program. What it took:
//
//	 func open(dir string, fs vfs.FS) (*words, error) {
//	-	db, err := pebble.Open(dir, &pebble.Options{})
//	+	db, err := pebble.Open(dir, &pebble.Options{FS: fs})
//
// with an FS that this file makes, of a KEK in a vault (files). This file takes the key away as well, and
// gives it back, for the program to see what it sees then:
//
//   - What is read from files fails at once, with an error that matches keyring.ErrInaccessible.
//   - A commit waits, and goes on when the key is back. Nothing is lost and the process does not end.
//   - What Pebble has in its memory it reads without asking. So the program asks first: keyring.Keyring.Acquire,
//     in words.get.
//
// A database that is there already is sealed in place by sealfs.SealDir, as this one is.
package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"log"
	"os"
	"os/signal"
	"path/filepath"

	"github.com/cockroachdb/pebble/v2/vfs"

	"github.com/blockseal/blockseal/kek"
	"github.com/blockseal/blockseal/keyring"
	"github.com/blockseal/blockseal/keyring/sealfs"
	"github.com/blockseal/blockseal/vault"
	"github.com/blockseal/blockseal/vault/local"
)

func main() {
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt)
	err := run(ctx, os.Stdout)
	stop()
	if err != nil {
		log.Fatal("pebble: ", err)
	}
}

// files opens the keyring whose document is beside dir, and makes it the first time.
func files(ctx context.Context, dir string, k *kek.KEK) (*sealfs.FS, *keyring.Keyring, error) {
	r, err := keyring.OpenOrCreate(ctx, keyring.FileStorage(dir+".keyring"), k, nil)
	if err != nil {
		return nil, nil, err
	}
	fs, err := sealfs.New(vfs.Default, r, nil)
	if err != nil {
		return nil, nil, errors.Join(err, r.Close())
	}
	return fs, r, nil
}

func run(ctx context.Context, out io.Writer) (err error) {
	root, err := os.MkdirTemp("", "blockseal-pebble-")
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, os.RemoveAll(root)) }()
	dir := filepath.Join(root, "db")

	// The database as it was.
	w, err := open(dir, vfs.Default, nil)
	if err != nil {
		return err
	}
	err = w.add("plain plain words")
	if err = errors.Join(err, w.close()); err != nil {
		return err
	}
	plain, err := search(dir, "plain")
	if err != nil {
		return err
	}
	fmt.Fprintf(out, "plain         the word \"plain\" is in %d of its files\n", plain)

	// The owner of the vault makes a key, and grants the program the use of it.
	v, err := local.OpenOrCreate(filepath.Join(root, "vault"), []byte("correct horse battery staple"), nil)
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, v.Close()) }()
	if _, err := v.EnsureKey(ctx, "customer", nil); err != nil {
		return err
	}
	if err := v.Grant(ctx, "words", local.DataPlane()...); err != nil {
		return err
	}

	// Sealed in place, once, and opened through an FS from then on.
	fs, r, err := files(ctx, dir, kek.New(v.As("words"), vault.KeyID{Name: "customer"}))
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, r.Close()) }()
	did, err := sealfs.SealDir(ctx, vfs.Default, dir, r, nil)
	if err != nil {
		return err
	}
	if w, err = open(dir, fs, r); err != nil {
		return err
	}
	defer func() {
		if err != nil {
			fs.Stop(err) // or Close would wait for a key that stays away
		}
		err = errors.Join(err, w.close())
	}()
	if err := w.add("sealed words"); err != nil {
		return err
	}
	n, err := w.get("words")
	if err != nil {
		return err
	}
	for _, word := range []string{"plain", "sealed"} {
		if found, err := search(dir, word); err != nil || found > 0 {
			return errors.Join(err, fmt.Errorf("the word %q is in %d files", word, found))
		}
	}
	fmt.Fprintf(out, "sealed        %d files in place; no word is in any of them; \"words\" came %d times\n", did.Files, n)
	return revoke(ctx, out, v, r, w)
}

// revoke takes the key away, shows what the program sees, and gives it back.
func revoke(ctx context.Context, out io.Writer, v *local.Vault, r *keyring.Keyring, w *words) error {
	if err := v.Revoke(ctx, "words", local.DataPlane()...); err != nil {
		return err
	}
	if r.Revalidate(ctx) == nil { // in place of waiting for the next check
		return errors.New("the vault still gives access")
	}
	if _, err := w.get("words"); !errors.Is(err, keyring.ErrInaccessible) || !errors.Is(err, vault.ErrAccessDenied) {
		return fmt.Errorf("a read without the key said: %v", err)
	}
	fmt.Fprintf(out, "key revoked   a read says: %v, %v\n", keyring.ErrInaccessible, vault.ErrAccessDenied)
	added := make(chan error, 1)
	go func() { added <- w.add("while words waited") }()
	fmt.Fprintln(out, "              a write waits")

	if err := v.Grant(ctx, "words", local.DataPlane()...); err != nil {
		return err
	}
	if err := r.Revalidate(ctx); err != nil {
		return err
	}
	if err := <-added; err != nil {
		return err
	}
	n, err := w.get("words")
	if err != nil {
		return err
	}
	fmt.Fprintf(out, "key returned  the write went on; \"words\" came %d times\n", n)
	return nil
}
