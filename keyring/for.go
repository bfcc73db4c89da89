package keyring

import "github.com/blockseal/blockseal/internal/inner"

// What a store needs of a keyring beyond what every database on top does is in methods of types
// that have no name outside. A conversion of a pointer costs nothing, and the compiler sees
// through it; an interface would cost each Get and Put a call that it does not.

type (
	forBlock     Keyring
	holdForBlock Hold
)

// For is for package block: nobody outside of this module can write its argument. The methods are copies of a store,
// tagged records and work that outlives a crash.
func (r *Keyring) For(inner.Block) *forBlock { return (*forBlock)(r) }

// For is for package block; see [Keyring.For].
func (h *Hold) For(inner.Block) *holdForBlock { return (*holdForBlock)(h) }

// For is for package block; see [Keyring.For].
func (o *Options) For(inner.Block) *inner.Options { return &o.block }
