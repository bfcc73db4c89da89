package row

import (
	"context"

	"github.com/blockseal/blockseal/internal/inner"
	"github.com/blockseal/blockseal/keyring"
)

// within is the context of what an operation asks of an engine that is on a server, and so of an
// operation of a table that is shared: a lock waits for the operation's hold, and must not wait
// for a server that does not answer. On a disk nothing else than the disk could end the wait.
func within(ctx context.Context, h *keyring.Hold) (_ context.Context, end func(err error) error) {
	return h.For(inner.Block{}).Within(ctx)
}
