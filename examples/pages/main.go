package main

import (
	"bytes"
	"context"
	"errors"
	"flag"
	"fmt"
	"io"
	"os"
	"path/filepath"

	"github.com/blockseal/blockseal/examples/internal/cli"
	"github.com/blockseal/blockseal/kek"
	"github.com/blockseal/blockseal/keyring"
	"github.com/blockseal/blockseal/vault"
	"github.com/blockseal/blockseal/vault/local"
)

func main() { cli.Main("pages", run) }

const about = `Pages writes and reads a sealed page file, rotates its keys, and takes the key away.

  go run ./examples/pages
`

func run(ctx context.Context, args []string, out io.Writer) (err error) {
	if err := cli.Parse(flag.NewFlagSet("pages", flag.ContinueOnError), about, args, out); err != nil {
		return err
	}
	root, err := os.MkdirTemp("", "blockseal-pages-")
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, os.RemoveAll(root)) }()
	v, err := local.OpenOrCreate(filepath.Join(root, "vault"), []byte("correct horse battery staple"), nil)
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, v.Close()) }()
	if _, err := v.EnsureKey(ctx, "customer", nil); err != nil {
		return err
	}
	if err := v.Grant(ctx, "pages", local.DataPlane()...); err != nil {
		return err
	}
	k := kek.New(v.As("pages"), vault.KeyID{Name: "customer"})

	dir := filepath.Join(root, "file")
	f, err := OpenFile(ctx, dir, k, nil)
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, f.Close()) }()
	page := bytes.Repeat([]byte("a page that nobody else reads. "), 200)[:PageSize]
	if err := f.Write(ctx, map[uint32][]byte{0: page, 7: page}); err != nil {
		return err
	}
	got, err := f.Read(ctx, 7, nil)
	if err != nil || !bytes.Equal(got, page) {
		return fmt.Errorf("page 7 is not what was written: %w", err)
	}
	onDisk, err := os.ReadFile(filepath.Join(dir, "pages"))
	if err != nil || bytes.Contains(onDisk, page[:16]) {
		return fmt.Errorf("the file shows the page: %w", err)
	}
	fmt.Fprintf(out, "written       2 pages of %d bytes; in the file %d bytes each, in the file of DEK records %d\n", PageSize, pageSlot, recordSlot)

	was, err := f.keys.Epochs()
	if err != nil {
		return err
	}
	if err := f.RotateEpoch(ctx); err != nil {
		return err
	}
	is, err := f.keys.Epochs()
	if err != nil {
		return err
	}
	if err := f.keys.RotateKEK(ctx); err != nil {
		return err
	}
	fmt.Fprintf(out, "rotated       epochs %v to %v, and the KEK's wrap; no page was touched\n", was, is)

	if err := v.Revoke(ctx, "pages", local.DataPlane()...); err != nil {
		return err
	}
	if f.keys.Revalidate(ctx) == nil { // in place of waiting for the next check
		return errors.New("the vault still gives access")
	}
	if _, err := f.Read(ctx, 7, nil); !errors.Is(err, keyring.ErrInaccessible) {
		return fmt.Errorf("a read without the key: %w", err)
	} else {
		fmt.Fprintf(out, "key revoked   %v\n", err)
	}
	if err := v.Grant(ctx, "pages", local.DataPlane()...); err != nil {
		return err
	}
	if err := f.keys.Revalidate(ctx); err != nil {
		return err
	}
	if _, err := f.Read(ctx, 7, nil); err != nil {
		return err
	}
	fmt.Fprintln(out, "key returned  page 7 reads again")
	return nil
}
