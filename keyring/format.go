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

// A keyring is named by its store's id, for the same reason and because it is in use
// while it is printed.

func (r *Keyring) String() string { return "keyring.Keyring(" + r.storeID.String() + ")" }

func (r *Keyring) GoString() string { return r.String() }

// Format implements [fmt.Formatter] for all verbs.
func (r *Keyring) Format(f fmt.State, _ rune) { io.WriteString(f, r.String()) }

// So are both by the names that package block has for them: a conversion leaves methods behind.

// Format implements [fmt.Formatter] for all verbs.
func (h holdForBlock) Format(f fmt.State, verb rune) { Hold(h).Format(f, verb) }

// Format implements [fmt.Formatter] for all verbs.
func (r *forBlock) Format(f fmt.State, verb rune) { (*Keyring)(r).Format(f, verb) }
