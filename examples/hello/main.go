// Hello keeps a note that nobody reads without its key. Run it twice: it keeps its vault and its
// store in the directory that it is run in, as hello.vault and hello.store.
package main

import (
	"context"
	"errors"
	"fmt"
	"log"

	"github.com/blockseal/blockseal/block"
	"github.com/blockseal/blockseal/kek"
	"github.com/blockseal/blockseal/vault"
	"github.com/blockseal/blockseal/vault/local"
)

// customer is the KEK. In production it is in a cloud's vault and its owner holds it; here
// this program is its owner too.
var customer = vault.KeyID{Name: "customer"}

func main() {
	if err := run(context.Background()); err != nil {
		log.Fatal(err)
	}
}

func run(ctx context.Context) (err error) {
	v, err := openVault(ctx)
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, v.Close()) }()

	// The first time this makes the store; later it takes three calls to the vault,
	// whatever the store holds.
	s, err := block.Open(ctx, "hello.store", kek.New(v, customer), nil)
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, s.Close()) }()

	note := []byte("note")
	switch data, err := s.Get(ctx, note, nil); {
	case err == nil:
		fmt.Printf("from an earlier run: %s\n", data)
	case errors.Is(err, block.ErrNotFound):
		fmt.Println("the first run")
	default:
		return err
	}
	if err := s.Put(ctx, note, []byte("nobody reads this without the key")); err != nil {
		return err
	}

	// Take the key away. The store asks its vault every minute; Revalidate asks now.
	if err := enable(ctx, v, false); err != nil {
		return err
	}
	if err := s.Revalidate(ctx); !errors.Is(err, vault.ErrKeyDisabled) {
		return fmt.Errorf("the key is disabled, and the vault said: %w", err)
	}
	if _, err := s.Get(ctx, note, nil); !errors.Is(err, block.ErrInaccessible) {
		return fmt.Errorf("the key is disabled, and Get said: %w", err)
	}
	fmt.Println("without the key: inaccessible")

	// Give it back.
	if err := enable(ctx, v, true); err != nil {
		return err
	}
	if err := s.Revalidate(ctx); err != nil {
		return err
	}
	data, err := s.Get(ctx, note, nil)
	if err != nil {
		return err
	}
	fmt.Printf("with the key: %s\n", data)
	return nil
}

// openVault opens the vault, or makes one, and sees to it that the key is there.
func openVault(ctx context.Context) (*local.Vault, error) {
	v, err := local.OpenOrCreate("hello.vault", []byte("correct horse battery staple"), nil) // ask for a real one
	if err != nil {
		return nil, err
	}
	_, err = v.EnsureKey(ctx, customer.Name, nil)
	if err == nil {
		err = enable(ctx, v, true) // a run that was cut off left it disabled
	}
	if err != nil {
		return nil, errors.Join(err, v.Close())
	}
	return v, nil
}

func enable(ctx context.Context, v *local.Vault, yes bool) error {
	_, err := v.UpdateKey(ctx, customer, local.Update{Enabled: &yes})
	return err
}
