package sealfs_test

import (
	"context"
	"fmt"
	"log"
	"os"
	"path/filepath"

	"github.com/cockroachdb/pebble/v2"
	"github.com/cockroachdb/pebble/v2/vfs"

	"github.com/blockseal/blockseal/kek"
	"github.com/blockseal/blockseal/keyring"
	"github.com/blockseal/blockseal/keyring/sealfs"
	"github.com/blockseal/blockseal/vault/vaulttest"
)

// A Pebble that is there already gets an FS, and is otherwise as it was. The keyring's document lies
// beside its directory.
func ExampleNew() {
	ctx := context.Background()
	dir, err := os.MkdirTemp("", "sealfs-example-")
	if err != nil {
		log.Fatal(err)
	}
	defer os.RemoveAll(dir)
	v := vaulttest.New(nil)
	k := kek.New(v, v.CreateKey("operator").Versionless())
	r, err := keyring.OpenOrCreate(ctx, keyring.FileStorage(filepath.Join(dir, "keyring")), k, nil)
	if err != nil {
		log.Fatal(err)
	}
	defer r.Close()
	fs, err := sealfs.New(vfs.Default, r, nil)
	if err != nil {
		log.Fatal(err)
	}

	db, err := pebble.Open(filepath.Join(dir, "db"), &pebble.Options{FS: fs, Logger: &logger{}})
	if err != nil {
		log.Fatal(err)
	}
	if err := db.Set([]byte("id"), []byte("value"), pebble.Sync); err != nil {
		log.Fatal(err)
	}
	value, closer, err := db.Get([]byte("id"))
	if err != nil {
		log.Fatal(err)
	}
	fmt.Println(string(value))
	if err := closer.Close(); err != nil {
		log.Fatal(err)
	}
	if err := db.Close(); err != nil {
		log.Fatal(err)
	}

	dropped, err := fs.RotateEpoch(ctx, filepath.Join(dir, "db"))
	fmt.Println(dropped, err)
	// Output:
	// value
	// [1] <nil>
}

// A file of pages is read and written at any place.
func ExampleFS_OpenFile() {
	ctx := context.Background()
	v := vaulttest.New(nil)
	r, err := keyring.Create(ctx, new(keyring.MemStorage), kek.New(v, v.CreateKey("customer").Versionless()), nil)
	if err != nil {
		log.Fatal(err)
	}
	defer r.Close()
	fs, err := sealfs.New(vfs.NewMem(), r, nil)
	if err != nil {
		log.Fatal(err)
	}
	f, err := fs.OpenFile("pages", nil)
	if err != nil {
		log.Fatal(err)
	}
	defer f.Close()
	if _, err := f.WriteAt([]byte("a page"), 10_000); err != nil {
		log.Fatal(err)
	}
	if err := f.Sync(); err != nil {
		log.Fatal(err)
	}
	b := make([]byte, 6)
	if _, err := f.ReadAt(b, 10_000); err != nil {
		log.Fatal(err)
	}
	size, err := f.Size()
	fmt.Println(string(b), size, err)
	// Output: a page 10006 <nil>
}
