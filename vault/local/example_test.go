package local_test

import (
	"context"
	"errors"
	"fmt"
	"log"
	"os"
	"path/filepath"

	"github.com/blockseal/blockseal/vault"
	"github.com/blockseal/blockseal/vault/local"
)

// A vault, a key, a service that may use it and may not administer, and the key taken
// away from it.
func Example() {
	ctx := context.Background()
	dir, err := os.MkdirTemp("", "vault")
	if err != nil {
		log.Fatal(err)
	}
	defer os.RemoveAll(dir)

	v, err := local.OpenOrCreate(filepath.Join(dir, "vault"), []byte("a long passphrase"), nil)
	if err != nil {
		log.Fatal(err)
	}
	defer v.Close()
	key, err := v.EnsureKey(ctx, "kek", nil)
	if err != nil {
		log.Fatal(err)
	}
	if err := v.Grant(ctx, "ingest", vault.OpGet, vault.OpWrapKey, vault.OpUnwrapKey); err != nil {
		log.Fatal(err)
	}

	service := v.As("ingest") // a vault.Vault, for kek.New
	wrapped, err := service.WrapKey(ctx, key.ID.Versionless(), []byte("the secret"))
	if err != nil {
		log.Fatal(err)
	}
	secret, err := service.UnwrapKey(ctx, wrapped)
	fmt.Printf("%s %v\n", secret, err)

	disabled := false
	if _, err := v.UpdateKey(ctx, key.ID, local.Update{Enabled: &disabled}); err != nil {
		log.Fatal(err)
	}
	_, err = service.UnwrapKey(ctx, wrapped)
	fmt.Println(errors.Is(err, vault.ErrKeyDisabled), vault.Denied(err))
	// Output:
	// the secret <nil>
	// true true
}
