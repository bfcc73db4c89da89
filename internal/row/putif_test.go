package row

import (
	"context"
	"fmt"
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/blockseal/blockseal/internal/engine"
	"github.com/blockseal/blockseal/keyring"
)

// failingApply is a partition that applies nothing.
type failingApply struct {
	engine.Partition
	err error
}

func (p failingApply) Apply(context.Context, engine.Batch, engine.Guard, bool) error { return p.err }

// What the engine finds damaged when it looks whether a block is still what PutIf read is damage
// of the store.
func TestPutIfFindsDamageInTheEngine(t *testing.T) {
	for err, want := range map[error]error{engine.ErrCorrupt: keyring.ErrCorrupt, engine.ErrVersion: keyring.ErrVersion} {
		table, keys := newTable(t, Config{})
		table.put(t, t.Context(), "id", []byte("old"))
		table.Part = failingApply{table.Part, fmt.Errorf("a table: %w", err)}
		held(t, keys, func(h *keyring.Hold) {
			got := table.PutIf(t.Context(), h, []byte("id"), []byte("old"), []byte("new"))
			require.ErrorIs(t, got, want)
			require.ErrorIs(t, got, err)
		})
	}
}
