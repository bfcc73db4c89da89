//go:build !race

package blockhttp_test

import (
	"errors"
	"fmt"
	"net/http/httptest"
	"strings"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/blockseal/blockseal/block/blockhttp"
	"github.com/blockseal/blockseal/internal/test/storerig"
	"github.com/blockseal/blockseal/vault"
	"github.com/blockseal/blockseal/vault/vaulttest"
)

// tenants is a DB with something of most kinds to tell.
func tenants(t *testing.T, names ...string) *storerig.DBRig {
	g := storerig.NewDB(t)
	g.Vault = vaulttest.New(&vaulttest.Options{Clock: g.Clock, Name: "https://contosokeys.vault.azure.net"})
	g.Open()
	for i := range 40 {
		s := g.Create(fmt.Sprintf("tenant-%04d", i))
		require.NoError(t, s.Put(g.Ctx, []byte("id"), make([]byte, 1000)))
		switch {
		case i%4 == 0:
			require.NoError(t, s.Close())
		case i == 7:
			g.Vault.SetDates(g.KEK("tenant-0007").ID(), time.Time{}, storerig.Start().Add(12*24*time.Hour))
			require.NoError(t, s.Revalidate(g.Ctx))
		}
	}
	for _, name := range names {
		s := g.Create(name)
		denied := vaulttest.AccessDeniedByRBAC()
		denied.Err = errors.New("Caller: appid=11111111-2222-3333-4444-555555555555;oid=11111111-2222-3333-4444-555555555555;" +
			"iss=https://sts.windows.net/11111111-2222-3333-4444-555555555555/")
		restore := g.Vault.Inject(vaulttest.Fault{Op: vault.OpGet, Err: denied})
		require.ErrorIs(t, s.Revalidate(g.Ctx), vault.ErrAccessDenied)
		restore()
		g.Own.Advance(time.Second)
	}
	g.Own.Advance(10 * time.Second)
	return g
}

func TestDBStatusPageInABrowser(t *testing.T) {
	b := newBrowser(t)
	g := tenants(t, "fabrikam", "litware")
	handler := blockhttp.DBHandler(g.DB, &blockhttp.Options{Name: "tenants", Runbooks: "operations.md"})
	server := httptest.NewServer(handler)
	defer server.Close()
	page := b.open(t, server.URL, 1280, 900)
	require.Empty(t, page.complaints, "the page keeps its own policy")
	dom := page.dom()
	for _, want := range []string{"3 things need a person.", "fabrikam", "the vault denies access", "its key expires in 11"} {
		require.Contains(t, dom, want)
	}
	for _, c := range []struct {
		name  string
		width int
	}{{"status-db.png", 1280}, {"status-db-phone.png", 412}} {
		img := b.open(t, server.URL, c.width, b.fits(t, handler, c.width)).shoot(c.name)
		require.True(t, near(img.At(1, 1), paper), "%s: the style is in force", c.name)
		require.True(t, has(img, bad), "%s: the state has its colour", c.name)
		require.True(t, has(img, warn), "%s: a key that expires is no refusal", c.name)
		for y := range img.Bounds().Dy() {
			for x := c.width - 10; x < c.width; x++ {
				require.True(t, near(img.At(x, y), paper), "%s: nothing runs out of its card on the right, at line %d", c.name, y)
			}
		}
	}
}

// Names are as long as they may be, and have no spaces, or what is not seen in them.
func TestDBStatusPageKeepsWithinItsCards(t *testing.T) {
	b := newBrowser(t)
	g := tenants(t, append(hostile(), strings.Repeat("\x01", 255), strings.Repeat("日本", 42), "مرحبا")...)
	h := blockhttp.DBHandler(g.DB, nil)
	for _, width := range []int{1280, 780, 412, 360} {
		b.fits(t, h, width)
	}
}
