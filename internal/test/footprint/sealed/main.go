// Command sealed is the least program that imports blockseal: a store on a key of a
// file vault. internal/test/footprint measures it.
package main

import (
	"context"
	"log"

	"github.com/blockseal/blockseal/block"
	"github.com/blockseal/blockseal/kek"
	"github.com/blockseal/blockseal/vault"
	"github.com/blockseal/blockseal/vault/local"
)

func main() {
	ctx := context.Background()
	v, err := local.Open("vault", []byte("correct horse battery staple"), nil)
	if err != nil {
		log.Fatal(err)
	}
	s, err := block.Open(ctx, "store", kek.New(v, vault.KeyID{Name: "customer"}), nil)
	if err == nil {
		err = s.Put(ctx, []byte("page/1"), []byte("nobody reads this without the key"))
	}
	log.Print(err)
}
