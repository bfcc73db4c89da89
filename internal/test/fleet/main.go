// Fleet simulates what many processes on one database ask of it and of their vault: checks, a restart
// of all of them, the keyring document that all replace at once, reservations, the raising of the floor. It is a
// discrete-event simulation with a seed, whose inputs were measured or are documented; docs/scale.md has its
// tables, and a test holds that they are what it says.
//
//	go run ./internal/test/fleet
//
// It simulates only what the design says about a fleet, and no line of the library runs in it: what it
// shows is where a design stops working, and not that the code does not.
package main

import (
	"fmt"
	"os"
)

func main() {
	if _, err := fmt.Print(tables(seed)); err != nil {
		os.Exit(1)
	}
}

// seed is that of the tables in the docs.
const seed = 1
