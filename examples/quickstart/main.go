// Quickstart is blockseal's main job in one command: it makes a file vault and a
// key, seals a tree of real files as blocks, reads all of it back, looks for
// plaintext on the disk and finds none, takes the key away, and gives it back.
//
//	go run ./examples/quickstart
//	go run ./examples/quickstart -in DIR -keep
//
// It needs no network and no cgo, and leaves nothing behind unless asked to.
package main

import (
	"context"
	"errors"
	"flag"
	"fmt"
	"io"
	"os"
	"os/exec"
	"os/signal"
	"path/filepath"
	"strings"
	"syscall"

	"github.com/blockseal/blockseal/block"
	"github.com/blockseal/blockseal/kek"
	"github.com/blockseal/blockseal/keyring"
	"github.com/blockseal/blockseal/vault"
	"github.com/blockseal/blockseal/vault/local"
)

func main() {
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	err := run(ctx, os.Args[1:], os.Stdout, os.Stderr)
	stop()
	if errors.Is(err, flag.ErrHelp) {
		return
	}
	if err != nil {
		fmt.Fprintln(os.Stderr, "quickstart:", err)
		os.Exit(1)
	}
}

// options are the command line.
type options struct {
	in   string
	keep bool
}

func parse(args []string, stderr io.Writer) (o options, err error) {
	f := flag.NewFlagSet("quickstart", flag.ContinueOnError)
	f.SetOutput(stderr)
	f.StringVar(&o.in, "in", "", "the `directory` to seal (default: the Go toolchain's src)")
	f.BoolVar(&o.keep, "keep", false, "keep the vault and the store, and say where they are")
	if err := f.Parse(args); err != nil {
		return o, err
	}
	if f.NArg() > 0 {
		return o, fmt.Errorf("unexpected argument %q; see -help", f.Arg(0))
	}
	if o.in == "" {
		if o.in, err = goSource(); err != nil {
			return o, err
		}
	}
	st, err := os.Stat(o.in)
	if err != nil {
		return o, fmt.Errorf("the directory to seal: %w", err)
	}
	if !st.IsDir() {
		return o, fmt.Errorf("the directory to seal: %s is not a directory", o.in)
	}
	return o, nil
}

// goSource returns the Go toolchain's own source tree.
func goSource() (string, error) {
	out, err := exec.Command("go", "env", "GOROOT").Output()
	if err != nil {
		return "", fmt.Errorf("go env GOROOT: %w; name a directory with -in", err)
	}
	return filepath.Join(strings.TrimSpace(string(out)), "src"), nil
}

func run(ctx context.Context, args []string, stdout, stderr io.Writer) (err error) {
	o, err := parse(args, stderr)
	if err != nil {
		return err
	}
	dir, err := os.MkdirTemp("", "blockseal-quickstart-")
	if err != nil {
		return err
	}
	if !o.keep {
		defer func() { err = errors.Join(err, os.RemoveAll(dir)) }()
	}
	d := &demo{out: stdout, dir: dir, in: o.in}
	if err := d.run(ctx); err != nil {
		return err
	}
	if o.keep {
		fmt.Fprintf(stdout, "kept: %s (the vault's passphrase is %q)\n", dir, passphrase)
	}
	return nil
}

// passphrase protects a vault that lives for a minute. A real one is asked for.
const passphrase = "correct horse battery staple"

// demo is one run.
type demo struct {
	out     io.Writer
	dir, in string

	vault *local.Vault
	store *block.Store
	files []file
	sum   summary
}

func (d *demo) say(format string, args ...any) { fmt.Fprintf(d.out, format+"\n", args...) }

func (d *demo) run(ctx context.Context) error {
	key := vault.KeyID{Name: "customer"}
	var err error
	if d.vault, err = local.Create(filepath.Join(d.dir, "vault"), []byte(passphrase), nil); err != nil {
		return err
	}
	defer d.vault.Close()
	made, err := d.vault.CreateKey(ctx, key.Name, nil)
	if err != nil {
		return err
	}
	d.say("key      RSA-2048 %s", made.ID)

	// Everything a program needs to do: name the key, open the store.
	if d.store, err = block.Open(ctx, filepath.Join(d.dir, "store"), kek.New(d.vault, key), nil); err != nil {
		return err
	}
	defer d.store.Close()
	d.say("store    %s, %v", d.store.StoreID(), d.store.State().Status)

	for _, step := range []func(context.Context) error{
		d.seal, d.readBack, d.searchDisk, d.takeKeyAway, d.giveKeyBack, d.readBack,
	} {
		if err := step(ctx); err != nil {
			return err
		}
	}
	d.sum.calls = d.store.VaultCalls()
	d.sum.print(d.out)
	return nil
}

// takeKeyAway disables the key, as its owner would, and shows that the store locks.
func (d *demo) takeKeyAway(ctx context.Context) error {
	if err := d.setEnabled(ctx, false); err != nil {
		return err
	}
	// The store's own check would notice within a minute; Revalidate asks now.
	if err := d.store.Revalidate(ctx); err == nil {
		return errors.New("the vault still lets the store use a disabled key")
	}
	st := d.store.State()
	d.say("disabled the key: the store is %v", st.Status)
	d.say("         %v", st.Cause)
	if st.Status != keyring.Inaccessible {
		return fmt.Errorf("the store is %v, not Inaccessible", st.Status)
	}
	_, err := d.store.Get(ctx, d.files[0].blockID(0), nil)
	if !errors.Is(err, block.ErrInaccessible) || !errors.Is(err, vault.ErrKeyDisabled) {
		return fmt.Errorf("a read without the key returned %w", err)
	}
	d.say("reading  refused: %v", err)
	return nil
}

func (d *demo) giveKeyBack(ctx context.Context) error {
	if err := d.setEnabled(ctx, true); err != nil {
		return err
	}
	if err := d.store.Revalidate(ctx); err != nil {
		return err
	}
	d.say("enabled the key and revalidated: the store is %v", d.store.State().Status)
	return nil
}

func (d *demo) setEnabled(ctx context.Context, yes bool) error {
	_, err := d.vault.UpdateKey(ctx, vault.KeyID{Name: "customer"}, local.Update{Enabled: &yes})
	return err
}
