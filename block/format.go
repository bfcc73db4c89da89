package block

import (
	"fmt"
	"io"
)

// String, GoString and Format name a store by its directory. Without them a print would
// walk through everything that a store holds, while it is in use.

func (s *Store) String() string { return "block.Store(" + s.dir + ")" }

func (s *Store) GoString() string { return s.String() }

// Format implements [fmt.Formatter] for all verbs.
func (s *Store) Format(f fmt.State, _ rune) { io.WriteString(f, s.String()) }
