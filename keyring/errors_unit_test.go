package keyring

import (
	"errors"
	"fmt"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/blockseal/blockseal/vault"
)

// An error of the document is to who asked for a record everything that it is, but no damage of the
// record.
func TestErrorOfTheDocument(t *testing.T) {
	refusal := &vault.Error{Op: vault.OpUnwrapKey, Kind: vault.ErrAccessDenied}
	for _, cause := range []error{corrupt("its header"), fmt.Errorf("format 9: %w", ErrVersion)} {
		err := error(&lockedError{since: time.Unix(0, 0), cause: errors.Join(cause, refusal)})
		require.True(t, errors.Is(err, ErrCorrupt) || errors.Is(err, ErrVersion))
		got := notLooked("epoch 7", err)
		require.ErrorContains(t, got, "keyring: the DEK record names epoch 7: "+err.Error())
		require.NotErrorIs(t, got, ErrCorrupt)
		require.NotErrorIs(t, got, ErrVersion)
		require.ErrorIs(t, got, ErrInaccessible)
		require.ErrorIs(t, got, vault.ErrAccessDenied)
		require.True(t, vault.Denied(got))
		var said *vault.Error
		require.ErrorAs(t, got, &said)
		require.Same(t, refusal, said)
	}
	require.NoError(t, ofDocument(nil))
}
