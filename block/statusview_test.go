package block_test

import (
	"fmt"
	"testing"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/blockseal/blockseal/block"
	"github.com/blockseal/blockseal/vault"
	"github.com/blockseal/blockseal/vault/vaulttest"
)

// The page says when a key expires or expired, whatever the vault thinks of it, and tells
// a key that does not expire from one of which nobody has said.
func TestStatusTellsWhatIsKnownOfTheKey(t *testing.T) {
	const key = "<dt>expires</dt><dd>"
	page := func(t *testing.T, s *block.Store) string {
		return body(t, fetch(block.StatusHandler(s), "GET", "/"))
	}
	g := newRig(t)
	s := g.open()
	require.Contains(t, page(t, s), key+"never</dd>")

	expired := start.Add(-2 * time.Hour)
	g.vault.SetDates(g.key, time.Time{}, expired)
	require.ErrorIs(t, s.Revalidate(g.ctx), vault.ErrKeyExpired)
	ago := key + `<span class="bad">2026-03-01 10:00:00 UTC, 2 h 00 min ago</span></dd>`
	require.Contains(t, page(t, s), ago)
	require.NoError(t, s.Close())

	s = g.open()
	require.Contains(t, page(t, s), ago, "also when it was opened with that key")
	require.True(t, look(t, block.StatusHandler(s)).Key.Known)
	require.InDelta(t, -7200, *look(t, block.StatusHandler(s)).Key.Left, 1)
	require.NoError(t, s.Close())

	defer g.vault.Inject(vaulttest.Fault{Err: vault.ErrUnavailable})()
	s = g.open()
	require.Contains(t, page(t, s), key+"not known</dd>")
	require.False(t, look(t, block.StatusHandler(s)).Key.Known)
	require.True(t, look(t, block.StatusHandler(s)).Check.Unknown)
}

// Key Vault's refusals name the request, each another one: they are still one event.
func TestRefusalsOfOneKindAreOneEvent(t *testing.T) {
	g := newRig(t)
	s := g.open()
	refuse := func(times int, kind error) {
		for i := range times {
			remove := g.vault.Inject(vaulttest.Fault{Err: &vault.Error{Kind: kind, Detail: fmt.Sprintf("[request %d]", i)}})
			require.ErrorIs(t, s.Revalidate(g.ctx), kind)
			remove()
		}
	}
	refuse(100, vault.ErrAccessDenied)
	refuse(3, vault.ErrKeyDisabled)
	// The latest first; each reason locks after the first check that found it.
	want := []string{"CheckFailed 2", "StateChanged 1", "CheckFailed 1",
		"CheckFailed 99", "StateChanged 1", "CheckFailed 1", "StateChanged 1"}
	require.EventuallyWithT(t, func(c *assert.CollectT) {
		var times []string
		for _, e := range s.RecentEvents() {
			times = append(times, fmt.Sprint(e.Kind, " ", e.Times))
		}
		assert.Equal(c, want, times)
	}, 20*time.Second, time.Millisecond)
}
