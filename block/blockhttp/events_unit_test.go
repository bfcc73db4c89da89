package blockhttp

import (
	"fmt"
	"syscall"
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/blockseal/blockseal/block"
	"github.com/blockseal/blockseal/keyring"
)

// An event is told as above only if what stands above is about the same: another thing may have
// failed for the same reason, and the reader looks for it.
func TestEventsOfTheSameCause(t *testing.T) {
	anchor := fmt.Errorf("keyring: the anchor was not advanced to 7: %w", syscall.ENOSPC)
	said := &telling{}
	_, ok := said.once(anchor)
	require.True(t, ok)
	said.anchor = anchor
	event := func(kind keyring.EventKind, format string) string {
		return viewEvent(block.RecentEvent{Event: keyring.Event{Kind: kind, Err: fmt.Errorf(format, syscall.ENOSPC)}}, said).Short
	}
	require.Contains(t, event(keyring.AnchorNotAdvanced, "keyring: the anchor was not advanced to 6: %w"), "as above")
	require.Contains(t, event(keyring.CopyKEKNotChanged, "block: copy /copies/1: %w"), "block: copy /copies/1: no space left on device")
}
