package register

import (
	"context"
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/blockseal/blockseal/internal/engine"
	"github.com/blockseal/blockseal/internal/engine/memory"
	"github.com/blockseal/blockseal/internal/inner"
	"github.com/blockseal/blockseal/kek"
	"github.com/blockseal/blockseal/keyring"
	"github.com/blockseal/blockseal/vault/vaulttest"
)

// asked notes what is said of the documents that are saved in a partition.
type asked struct {
	engine.Partition
	saved []engine.Swap
}

func (a *asked) SwapMeta(ctx context.Context, swaps ...engine.Swap) ([]uint64, error) {
	for _, s := range swaps {
		if s.Name == DocumentName {
			a.saved = append(a.saved, s)
		} else if s.Tell || s.Turned {
			panic("it is of the document")
		}
	}
	return a.Partition.SwapMeta(ctx, swaps...)
}

// Other processes are told of a document that says something new, and not that an epoch's count was
// reserved or given back. One that leaves out a KEK is of who has the turn.
func TestWhatIsSaidOfADocument(t *testing.T) {
	ctx := t.Context()
	part := &asked{Partition: memory.New().Partition(0)}
	m := &Storage{part: part, Own: inner.InstanceID{1}}
	v := vaulttest.New(nil)
	first, second := kek.New(v, v.CreateKey("first")), kek.New(v, v.CreateKey("second"))
	r, err := keyring.Create(ctx, m, first, &keyring.Options{EpochMaxDEKs: 64, Wrapping: keyring.ByKEK}) // a slice is one DEK
	require.NoError(t, err)
	wrap := func() error {
		k, _, err := r.NewDEK(ctx, []byte("id"))
		if err == nil {
			k.Destroy()
		}
		return err
	}
	require.NoError(t, wrap(), "the first says besides that the KEK wraps records")
	for _, tt := range []struct {
		name         string
		do           func() error
		tell, turned bool
	}{
		{"a reservation", wrap, false, false},
		{"another", wrap, false, false},
		{"an epoch", func() error { return r.BeginEpoch(ctx) }, true, false},
		{"a KEK", func() error { return r.ChangeKEK(ctx, second) }, true, false},
		{"a KEK that leaves", func() error { return r.DropKEKs(ctx, r.KEKMoves(), 1) }, true, true},
	} {
		part.saved = nil
		require.NoError(t, tt.do(), tt.name)
		require.NotEmpty(t, part.saved, tt.name)
		for _, s := range part.saved {
			require.Equal(t, tt.tell, s.Tell, tt.name)
			require.Equal(t, tt.turned, s.Turned, tt.name)
		}
	}
	require.NoError(t, r.Close())
}
