package blockhttp_test

import (
	"html"
	"net/http/httptest"
	"strings"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/blockseal/blockseal/block"
	"github.com/blockseal/blockseal/block/blockhttp"
	"github.com/blockseal/blockseal/internal/test/storerig"
	"github.com/blockseal/blockseal/vault"
	"github.com/blockseal/blockseal/vault/vaulttest"
)

// The page says when a key expires or expired, whatever the vault thinks of it, and tells
// a key that does not expire from one of which nobody has said.
func TestStatusTellsWhatIsKnownOfTheKey(t *testing.T) {
	const key = "<dt>expires</dt><dd>"
	page := func(t *testing.T, s *block.Store) string {
		return body(t, fetch(blockhttp.Handler(s, nil), "GET", "/"))
	}
	g := storerig.New(t)
	s := g.Open()
	require.Contains(t, page(t, s), key+"never</dd>")

	expired := storerig.Start().Add(-2 * time.Hour)
	g.Vault.SetDates(g.Key, time.Time{}, expired)
	require.ErrorIs(t, s.Revalidate(g.Ctx), vault.ErrKeyExpired)
	ago := key + `<span class="bad">2026-03-01 10:00:00 UTC, 2 h 00 min ago</span></dd>`
	require.Contains(t, page(t, s), ago)
	require.NoError(t, s.Close())

	s = g.Open()
	require.Contains(t, page(t, s), ago, "also when it was opened with that key")
	require.True(t, look(t, blockhttp.Handler(s, nil)).Key.Known)
	require.InDelta(t, -7200, *look(t, blockhttp.Handler(s, nil)).Key.Left, 1)
	require.NoError(t, s.Close())

	defer g.Vault.Inject(vaulttest.Fault{Err: vault.ErrUnavailable})()
	s = g.Open()
	require.Contains(t, page(t, s), key+"not known</dd>")
	require.False(t, look(t, blockhttp.Handler(s, nil)).Key.Known)
	require.True(t, look(t, blockhttp.Handler(s, nil)).Check.Unknown)
}

// The status page says the same of the time that was assumed as the state and the error.
func TestStatusSaysWhichTimeWasAssumed(t *testing.T) {
	g := storerig.New(t)
	g.Vault.SetDates(g.Key, time.Time{}, storerig.Start().Add(365*24*time.Hour))
	mine := vaulttest.NewClock(storerig.Start())
	g.Opts.Keyring.Clock = mine
	s := g.Open()
	mine.Step(2 * 365 * 24 * time.Hour)
	require.ErrorIs(t, s.Revalidate(g.Ctx), vault.ErrKeyExpired)
	const says = "the time was taken to be 2028-02-29T12:00:00Z by this machine's clock, which is 730 days ahead of the vault's: by that it is 2026-03-01T12:00:00Z; set the clock"
	require.ErrorContains(t, s.State().Cause, says)
	_, err := s.Get(g.Ctx, []byte("a"), nil)
	require.ErrorIs(t, err, block.ErrInaccessible)
	require.ErrorContains(t, err, says)
	require.Eventually(t, func() bool { // events come a little later
		w := httptest.NewRecorder()
		blockhttp.Handler(s, nil).ServeHTTP(w, httptest.NewRequest("GET", "/", nil))
		page := html.UnescapeString(w.Body.String())
		return strings.Contains(page, says)
	}, time.Minute, time.Millisecond, "the page says so")
}
