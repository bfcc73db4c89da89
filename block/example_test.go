package block_test

import (
	"context"
	"errors"
	"fmt"
	"log"
	"os"

	"github.com/blockseal/blockseal/block"
	"github.com/blockseal/blockseal/kek"
	"github.com/blockseal/blockseal/vault"
	"github.com/blockseal/blockseal/vault/local"
)

// A store in a directory, with its key in a file vault beside it.
func Example() {
	parent, err := os.MkdirTemp("", "blockseal-example-")
	if err != nil {
		log.Fatal(err)
	}
	defer os.RemoveAll(parent)
	if err := os.Chdir(parent); err != nil {
		log.Fatal(err)
	}
	if err := run(); err != nil {
		log.Fatal(err)
	}
	// Output:
	// nobody reads this without the key <nil>
	// true true
}

func run() error {
	ctx := context.Background()
	v, err := local.OpenOrCreate("vault", []byte("correct horse battery staple"), nil)
	if err != nil {
		return err
	}
	defer v.Close()
	if _, err := v.EnsureKey(ctx, "customer", nil); err != nil {
		return err
	}
	s, err := block.Open(ctx, "store", kek.New(v, vault.KeyID{Name: "customer"}), nil)
	if err != nil {
		return err
	}
	defer s.Close()
	if err := s.Put(ctx, []byte("page/1"), []byte("nobody reads this without the key")); err != nil {
		return err
	}
	data, err := s.Get(ctx, []byte("page/1"), nil)
	fmt.Println(string(data), err)

	no := false
	v.UpdateKey(ctx, vault.KeyID{Name: "customer"}, local.Update{Enabled: &no})
	s.Revalidate(ctx) // or wait a minute for the regular check
	_, err = s.Get(ctx, []byte("page/1"), nil)
	fmt.Println(errors.Is(err, block.ErrInaccessible), errors.Is(err, vault.ErrKeyDisabled))
	return nil
}
