package main

import (
	"fmt"
	"io"
	"text/tabwriter"

	"github.com/blockseal/blockseal/examples/internal/cli"
)

// writeTable writes what each process said of itself last, and what all of it has shown.
func writeTable(out io.Writer, f fleet) error {
	w := tabwriter.NewWriter(out, 0, 0, 2, ' ', tabwriter.AlignRight)
	fmt.Fprint(w, "\nprocess\tstate\tops\trefused\terrors\tepoch\tgeneration\tvault calls\t\n")
	for _, p := range f {
		r := p.last
		fmt.Fprintf(w, "%s\t%s\t%s\t%s\t%s\t%d\t%d\t%s\t\n", p.name, r.State, cli.Count(r.Ops), cli.Count(r.Refused), cli.Count(r.Errors), r.Epoch, r.Generation, cli.Count(r.Calls))
	}
	if err := w.Flush(); err != nil {
		return err
	}
	_, err := fmt.Fprintf(out, `
Each row is what a process says of itself: a lock in one is not a lock in another,
and each has the keyring document of its last look. Process 2 counts from when it
was started again.

shown
  shared      %d processes wrote to one store at once, and none read what
              was not the last that it had written
  rotated     epoch, KEK and DEKs, while all of them wrote
  killed      one while it rotated: nothing that it had been told is written
              was lost, and another one rotated at once
  revoked     each process locked by its own check, and came back by one
`, len(f))
	return err
}
