// Command plain is the least program that stores on Pebble alone: what
// internal/test/footprint compares a program on blockseal with.
package main

import (
	"log"

	"github.com/cockroachdb/pebble/v2"
)

func main() {
	db, err := pebble.Open("store", &pebble.Options{})
	if err == nil {
		defer db.Close()
		err = db.Set([]byte("page/1"), []byte("anybody reads this"), pebble.Sync)
	}
	if err != nil {
		log.Print(err)
	}
}
