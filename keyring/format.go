package keyring

import (
	"fmt"
	"io"
)

const redactedHold = "keyring.Hold(redacted)"

// String, GoString and Format keep out of every print what a hold leads to. A print
// with a verb that does not fit follows pointers, and heeds no methods on the way.

func (Hold) String() string { return redactedHold }

func (Hold) GoString() string { return redactedHold }

// Format implements [fmt.Formatter] for all verbs.
func (Hold) Format(f fmt.State, _ rune) { io.WriteString(f, redactedHold) }
