package block

import (
	"fmt"
	"io"
)

// String, GoString and Format print a store by its directory, and a batch and a snapshot by their
// store. A print would otherwise walk through everything that a store holds, while it is in use.
// Batch and Snapshot have them on the value, which a program may print as well.

func (s *Store) String() string {
	if s == nil || s.db == nil {
		return "block.Store(none)"
	}
	return "block.Store(" + s.db.place.Dir() + ")"
}

func (s *Store) GoString() string { return s.String() }

// Format implements [fmt.Formatter] for all verbs.
func (s *Store) Format(f fmt.State, _ rune) { io.WriteString(f, s.String()) }

func (b Batch) String() string { return "block.Batch of " + b.s.String() }

func (b Batch) GoString() string { return b.String() }

// Format implements [fmt.Formatter] for all verbs.
func (b Batch) Format(f fmt.State, _ rune) { io.WriteString(f, b.String()) }

func (sn Snapshot) String() string { return "block.Snapshot of " + sn.s.String() }

func (sn Snapshot) GoString() string { return sn.String() }

// Format implements [fmt.Formatter] for all verbs.
func (sn Snapshot) Format(f fmt.State, _ rune) { io.WriteString(f, sn.String()) }
