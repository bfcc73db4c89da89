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
	key, err := v.EnsureKey(ctx, "customer", nil)
	if err != nil {
		return err
	}
	s, err := block.Open(ctx, "store", kek.New(v, key.ID.Versionless()), nil)
	if err != nil {
		return err
	}
	defer s.Close()
	if err := s.Put(ctx, []byte("page/1"), []byte("nobody reads this without the key")); err != nil {
		return err
	}
	data, err := s.Get(ctx, []byte("page/1"), nil)
	fmt.Printf("%s %v\n", data, err)

	if _, err := v.UpdateKey(ctx, key.ID, local.Update{Enabled: new(bool)}); err != nil {
		return err
	}
	err = s.Revalidate(ctx) // or wait a minute for the regular check
	_, refused := s.Get(ctx, []byte("page/1"), nil)
	fmt.Println(errors.Is(err, vault.ErrKeyDisabled), errors.Is(refused, block.ErrInaccessible))
	return nil
}
