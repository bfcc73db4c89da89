package block_test

import (
	"context"
	"errors"
	"fmt"
	"log"
	"os"
	"path/filepath"

	"github.com/blockseal/blockseal/block"
	"github.com/blockseal/blockseal/kek"
	"github.com/blockseal/blockseal/vault/vaulttest"
)

// The files of a DB under a KEK of the operator's, beneath the customers': while it is away, nothing of any
// store is read or written, and when it is back, the stores serve again.
func ExampleDBOptions_fileKEK() {
	ctx := context.Background()
	dir, err := os.MkdirTemp("", "")
	if err != nil {
		log.Fatal(err)
	}
	defer os.RemoveAll(dir)
	customers, operator := vaulttest.New(nil), vaulttest.New(nil) // a program has azure.Vault, or local.Vault
	files := kek.New(operator, operator.CreateKey("files").Versionless())

	db, err := block.OpenDB(ctx, filepath.Join(dir, "db"), &block.DBOptions{FileKEK: files})
	if err != nil {
		log.Fatal(err)
	}
	defer db.Close()
	store, err := db.Create(ctx, "customer-1", kek.New(customers, customers.CreateKey("customer-1").Versionless()), nil)
	if err != nil {
		log.Fatal(err)
	}
	if err := store.Put(ctx, []byte("id"), []byte("a block")); err != nil {
		log.Fatal(err)
	}

	operator.SetEnabled(files.ID(), false)
	_ = db.RevalidateFileKEK(ctx) // else the next check finds out
	_, err = store.Get(ctx, []byte("id"), nil)
	fmt.Println(errors.Is(err, block.ErrInaccessible), errors.Is(err, block.ErrFileKEK))

	operator.SetEnabled(files.ID(), true)
	if err := db.RevalidateFileKEK(ctx); err != nil {
		log.Fatal(err)
	}
	for err = errors.New("not yet"); err != nil; { // the engine is being opened
		_, err = store.Get(ctx, []byte("id"), nil)
	}
	fmt.Println(store.State().Status)
	// Output:
	// true true
	// Available
}
