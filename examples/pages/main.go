package main

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"log"
	"os"
	"os/signal"
	"path/filepath"

	"github.com/blockseal/blockseal/kek"
	"github.com/blockseal/blockseal/keyring"
	"github.com/blockseal/blockseal/vault"
	"github.com/blockseal/blockseal/vault/local"
)

// Pages writes and reads a sealed page file, rotates its keys, and takes the key away.
func main() {
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt)
	err := run(ctx, os.Stdout)
	stop()
	if err != nil {
		log.Fatal("pages: ", err)
	}
}

func run(ctx context.Context, out io.Writer) (err error) {
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
	if err := f.Write(map[uint32][]byte{0: page, 7: page}); err != nil {
		return err
	}
	got, err := f.Read(7, nil)
	if err != nil {
		return err
	}
	if !bytes.Equal(got, page) {
		return errors.New("page 7 is not what was written")
	}
	onDisk, err := os.ReadFile(filepath.Join(dir, "pages"))
	if err != nil {
		return err
	}
	if bytes.Contains(onDisk, page[:16]) {
		return errors.New("the file shows the page")
	}
	fmt.Fprintf(out, "written       2 pages of %d bytes, and zeros between; none is to be found\n", PageSize)

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
	fmt.Fprintf(out, "rotated       epochs %v to %v, the KEK's wrap; no page touched\n", was, is)

	if err := v.Revoke(ctx, "pages", local.DataPlane()...); err != nil {
		return err
	}
	if f.keys.Revalidate(ctx) == nil { // in place of waiting for the next check
		return errors.New("the vault still gives access")
	}
	if _, err := f.Read(7, nil); !errors.Is(err, keyring.ErrInaccessible) || !errors.Is(err, vault.ErrAccessDenied) {
		return fmt.Errorf("a read without the key said: %v", err)
	}
	fmt.Fprintf(out, "key revoked   a read says: %v, %v\n", keyring.ErrInaccessible, vault.ErrAccessDenied)
	if err := v.Grant(ctx, "pages", local.DataPlane()...); err != nil {
		return err
	}
	if err := f.keys.Revalidate(ctx); err != nil {
		return err
	}
	if _, err := f.Read(7, nil); err != nil {
		return err
	}
	fmt.Fprintln(out, "key returned  page 7 reads again")
	return nil
}
