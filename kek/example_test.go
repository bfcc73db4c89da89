package kek_test

import (
	"context"
	"errors"
	"fmt"
	"log"

	"github.com/blockseal/blockseal/kek"
	"github.com/blockseal/blockseal/vault"
	"github.com/blockseal/blockseal/vault/vaulttest"
)

// A KEK is a key in a vault that was found to be acceptable; whoever has it can ask the
// vault to wrap and unwrap, and never has the key.
func ExampleNew() {
	ctx := context.Background()
	v := vaulttest.New(nil) // azure.New, local.Open
	k := kek.New(v, v.CreateKey("customer").Versionless())

	wrapped, err := k.Wrap(ctx, []byte("32 bytes of secret, for example."))
	if err != nil {
		log.Fatal(err)
	}
	fmt.Println(wrapped.KeyID.Name, wrapped.KeyID.Version != "", len(wrapped.Ciphertext))
	secret, err := k.Unwrap(ctx, wrapped)
	fmt.Println(string(secret), err)

	v.SetEnabled(k.ID(), false)
	_, err = k.Unwrap(ctx, wrapped)
	fmt.Println(errors.Is(err, vault.ErrKeyDisabled))
	// Output:
	// customer true 256
	// 32 bytes of secret, for example. <nil>
	// true
}
