package keyring_test

import (
	"context"
	"errors"
	"fmt"
	"log"
	"os"
	"path/filepath"

	"github.com/blockseal/blockseal/kek"
	"github.com/blockseal/blockseal/keyring"
	"github.com/blockseal/blockseal/vault/vaulttest"
)

// A database that keeps its own pages: a DEK for each version of a page, its record beside
// the page and bound to its place.
func ExampleKeyring_NewDEK() {
	ctx := context.Background()
	dir, err := os.MkdirTemp("", "keyring-example-")
	if err != nil {
		log.Fatal(err)
	}
	defer os.RemoveAll(dir)
	v := vaulttest.New(nil)
	k := kek.New(v, v.CreateKey("customer").Versionless())
	r, err := keyring.Create(ctx, keyring.FileStorage(filepath.Join(dir, "keys")), k, nil)
	if err != nil {
		log.Fatal(err)
	}
	defer r.Close()

	place := []byte("page 7")
	key, record, err := r.NewDEK(ctx, place)
	if err != nil {
		log.Fatal(err)
	}
	sealed := key.Seal(nil, []byte("a page"), place)
	key.Destroy()
	fmt.Println(len(record) == keyring.RecordSize, len(sealed))

	key, err = r.OpenDEK(ctx, record, place)
	if err != nil {
		log.Fatal(err)
	}
	defer key.Destroy()
	page, err := key.Open(nil, sealed, place)
	fmt.Println(string(page), err)

	_, err = r.OpenDEK(ctx, record, []byte("page 8"))
	fmt.Println(errors.Is(err, keyring.ErrCorrupt))
	// Output:
	// true 34
	// a page <nil>
	// true
}

func ExampleCreate() {
	ctx := context.Background()
	dir, err := os.MkdirTemp("", "keyring-example-")
	if err != nil {
		log.Fatal(err)
	}
	defer os.RemoveAll(dir)
	v := vaulttest.New(nil)
	k := kek.New(v, v.CreateKey("customer").Versionless())
	storage := keyring.FileStorage(filepath.Join(dir, "keys"))

	r, err := keyring.Create(ctx, storage, k, nil)
	if err != nil {
		log.Fatal(err)
	}
	defer r.Close()
	fmt.Println(r.State().Status, r.State().Epochs)
	_, err = keyring.Create(ctx, storage, k, nil)
	fmt.Println(errors.Is(err, keyring.ErrExists))
	// Output:
	// Available 1
	// true
}

// A keyring opens with one unwrap. Without access it opens as well, and says why its keys
// cannot be used.
func ExampleOpen() {
	ctx := context.Background()
	dir, err := os.MkdirTemp("", "keyring-example-")
	if err != nil {
		log.Fatal(err)
	}
	defer os.RemoveAll(dir)
	v := vaulttest.New(nil)
	id := v.CreateKey("customer").Versionless()
	storage := keyring.FileStorage(filepath.Join(dir, "keys"))
	created, err := keyring.Create(ctx, storage, kek.New(v, id), nil)
	if err != nil {
		log.Fatal(err)
	}
	if err := created.Close(); err != nil {
		log.Fatal(err)
	}

	v.SetEnabled(id, false)
	r, err := keyring.Open(ctx, storage, kek.New(v, id), nil)
	if err != nil {
		log.Fatal(err)
	}
	defer r.Close()
	fmt.Println(r.State().Status)
	v.SetEnabled(id, true)
	fmt.Println(r.Revalidate(ctx), r.State().Status)
	// Output:
	// Inaccessible
	// <nil> Available
}
