// Command notices writes THIRD_PARTY_NOTICES: which modules programs on this library link,
// and their licences.
//
//	go run ./internal/test/licence/notices
package main

import (
	"fmt"
	"os"

	"github.com/blockseal/blockseal/internal/test/licence"
)

func main() {
	b, err := licence.Notices(".")
	if err == nil {
		err = os.WriteFile(licence.NoticesFile, b, 0o644)
	}
	if err != nil {
		fmt.Fprintln(os.Stderr, "notices:", err)
		os.Exit(1)
	}
}
