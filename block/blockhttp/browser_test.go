//go:build !race

package blockhttp_test

import (
	"context"
	"errors"
	"fmt"
	"image"
	"image/color"
	"io"
	"net/http"
	"net/http/httptest"
	"regexp"
	"runtime"
	"strings"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/blockseal/blockseal/block"
	"github.com/blockseal/blockseal/block/blockhttp"
	"github.com/blockseal/blockseal/internal/test/storerig"
	"github.com/blockseal/blockseal/kek"
	"github.com/blockseal/blockseal/keyring"
	"github.com/blockseal/blockseal/vault"
	"github.com/blockseal/blockseal/vault/vaulttest"
)

// has reports whether an image has a colour somewhere.
func has(img image.Image, c color.RGBA) bool {
	for y := range img.Bounds().Dy() {
		for x := range img.Bounds().Dx() {
			if near(img.At(x, y), c) {
				return true
			}
		}
	}
	return false
}

func near(a color.Color, b color.RGBA) bool {
	r, g, bl, _ := a.RGBA()
	d := func(x uint32, y uint8) int { return max(int(x>>8)-int(y), int(y)-int(x>>8)) }
	return d(r, b.R) <= 2 && d(g, b.G) <= 2 && d(bl, b.B) <= 2
}

// The colours of the style sheet.
var (
	paper = color.RGBA{0xf4, 0xf5, 0xf7, 0xff}
	card  = color.RGBA{0xff, 0xff, 0xff, 0xff}
	good  = color.RGBA{0x1a, 0x7f, 0x4b, 0xff}
	warn  = color.RGBA{0x9a, 0x62, 0x00, 0xff}
	bad   = color.RGBA{0xb3, 0x26, 0x1e, 0xff}
)

// rod measures a page: it says how high the page is as it comes and, once all that is folded is
// open, what runs out of the box that it is in, and on how many lines each version of a key is.
const rod = `(() => {
  const said = [innerWidth + " by " + Math.ceil(document.querySelector("main").getBoundingClientRect().bottom)];
  for (const d of document.querySelectorAll("details")) d.open = true;
  if (document.documentElement.scrollWidth > innerWidth) said.push("wide " + document.documentElement.scrollWidth);
  const texts = document.createTreeWalker(document.body, NodeFilter.SHOW_TEXT);
  while (texts.nextNode()) {
    const text = texts.currentNode, range = document.createRange();
    if (!text.data.trim() || text.parentElement.closest("script")) continue;
    range.selectNodeContents(text);
    const lines = [...range.getClientRects()].filter(r => r.width > 0);
    for (let box = text.parentElement; box != document.body; box = box.parentElement) {
      const style = getComputedStyle(box), outer = box.getBoundingClientRect();
      if (style.display == "inline") continue;
      const right = outer.right - parseFloat(style.paddingRight);
      const over = Math.max(...lines.map(r => r.right)) - right;
      if (over > 0.5) said.push("over " + over.toFixed(1) + " px out of " + box.localName + "." + box.className + ": " + text.data);
    }
    if (/^[0-9a-f]{32}$/.test(text.data)) said.push("lines " + lines.length);
  }
  return said.join("\n");
})()`

// fits fails if something of the page is not within its card, in a window of the given
// width, and returns how high the page is.
func (b *browser) fits(t *testing.T, h http.Handler, width int) (height int) {
	t.Helper()
	server := httptest.NewServer(h)
	defer server.Close()
	p := b.open(t, server.URL, width, 800)
	require.Empty(t, p.complaints)
	said := p.evaluate(rod)
	var had int
	_, err := fmt.Sscanf(said, "%d by %d", &had, &height)
	require.NoError(t, err, said)
	require.Equal(t, width, had)
	require.NotContains(t, said, "wide ", "%d px: the window scrolls sideways", width)
	require.NotContains(t, said, "over ", "%d px", width)
	require.Contains(t, said, "lines 1", "%d px: store and version are there in full", width)
	require.NotContains(t, said, "lines 2", "%d px: what people compare is on one line", width)
	return height
}

// orders is how many blocks a busyStore has.
const orders = 20000

// rig is the rig of a store whose vault takes its time.
type rig struct{ *storerig.Rig }

// during runs f, and lets time pass while the vault is thinking.
func (g rig) during(f func(context.Context) error) error {
	ended := make(chan error, 1)
	go func() { ended <- f(g.Ctx) }()
	for len(ended) == 0 {
		if g.Vault.Waiting() > 0 {
			g.Clock.Advance(time.Millisecond)
		}
		runtime.Gosched()
	}
	return <-ended
}

// busyStore is a store with something on every part of the page: a degraded state,
// works that ended, events. Its vault takes its time, and so does all that it did.
func busyStore(t *testing.T) (g rig, s *block.Store) {
	g = rig{storerig.New(t)}
	g.Vault = vaulttest.New(&vaulttest.Options{Clock: g.Clock, Name: "https://contoso.vault.azure.net"})
	g.Key = g.Vault.CreateKey("orders")
	g.KEK = kek.New(g.Vault, g.Key.Versionless())
	expires := storerig.Start().Add(26 * 24 * time.Hour)
	g.Vault.SetDates(g.Key, time.Time{}, expires)
	g.Clock.Advance(33*time.Hour + 12*time.Minute)
	// The first check that the store makes by itself would come 4.5 minutes after
	// Open, and all that is done here is done before: what a check meets while the
	// clock jumps is not to be told.
	g.Opts.Keyring.CheckEvery = 5 * time.Minute
	for op, took := range map[vault.Operation]time.Duration{vault.OpGet: 11, vault.OpWrapKey: 14, vault.OpUnwrapKey: 26} {
		g.Vault.Inject(vaulttest.Fault{Op: op, Delay: took * time.Millisecond})
	}
	g.Opts.RewriteRate = 100 << 10
	g.Opts.Keyring.EpochMaxDEKs = 1 << 18
	require.NoError(t, g.during(func(context.Context) error {
		s = g.Open()
		return nil
	}))
	for i := range orders {
		require.NoError(t, s.Put(g.Ctx, fmt.Appendf(nil, "order %05d", i), make([]byte, 200)))
	}
	for i := range 2500 {
		_, err := s.Get(g.Ctx, fmt.Appendf(nil, "order %05d", i*7), nil)
		require.NoError(t, err)
	}
	for i := range 300 {
		_, err := s.Get(g.Ctx, fmt.Appendf(nil, "draft %05d", i), nil)
		require.ErrorIs(t, err, block.ErrNotFound)
	}
	for i := range 40 {
		id := fmt.Appendf(nil, "draft %05d", i)
		require.NoError(t, s.Put(g.Ctx, id, make([]byte, 200)))
		require.NoError(t, s.Delete(g.Ctx, id))
	}
	for _, err := range s.Blocks(g.Ctx, block.Range{Start: []byte("order 15000")}) {
		require.NoError(t, err)
	}
	checks := func(n int) {
		for range n {
			g.Clock.Advance(10 * time.Second)
			require.NoError(t, g.during(s.Revalidate))
		}
	}
	takes := func(d time.Duration) block.Progress { return func(block.Step) { g.Clock.Advance(d) } }
	checks(6)
	_, err := s.Verify(g.Ctx, takes(8*time.Second))
	require.NoError(t, err)
	checks(4)
	require.NoError(t, s.RotateEpoch(g.Ctx, takes(3*time.Second)))
	checks(2)
	g.Vault.Rotate("orders")
	g.Vault.SetDates(g.Key.Versionless(), time.Time{}, expires)
	require.NoError(t, g.during(s.RotateKEK))
	checks(3)
	g.Vault.SetOutage(&vault.Error{Kind: vault.ErrUnavailable, Detail: "no answer", Err: errors.New("dial tcp 203.0.113.7:443: connection refused")})
	for _, later := range []time.Duration{10, 36, 24} {
		g.Clock.Advance(later * time.Second)
		require.Error(t, g.during(s.Revalidate))
	}
	require.Equal(t, keyring.Degraded, s.State().Status)
	return g, s
}

func TestStatusPageInABrowser(t *testing.T) {
	b := newBrowser(t)
	g, s := busyStore(t)
	handler := blockhttp.Handler(s, &blockhttp.Options{Name: "orders", Audit: func() blockhttp.AuditStatus {
		return blockhttp.AuditStatus{Head: "1207:" + strings.Repeat("9f86d081", 8)}
	}})
	server := httptest.NewServer(handler)
	defer server.Close()

	// A rekey waits on the clock between its steps, and so stands while the
	// photographs are taken.
	// The lease must outlast it: the clock moves while the rekey waits for it, and hardly
	// while it works, which takes as long as the machine is busy.
	idle, looks := g.Clock.Pending(), 0
	pass := func() {
		if looks++; g.Clock.Pending() > idle || looks%10 == 0 {
			g.Clock.Advance(20 * time.Millisecond)
		}
	}
	ended := make(chan error, 1)
	go func() { ended <- s.Rekey(g.Ctx, block.Range{}, nil) }()
	require.Eventually(t, func() bool {
		running := s.Stats().Running
		if len(running) == 0 || running[0].Done < 8000 {
			pass()
			return false
		}
		return running[0].Total == orders
	}, 2*time.Minute, 100*time.Microsecond)

	page := b.open(t, server.URL, 1280, 900)
	require.Empty(t, page.complaints, "the page keeps its own policy")
	dom := page.dom()
	for _, want := range []string{"Degraded", "rekey", "of 20,000 records", "connection refused", "<progress"} {
		require.Contains(t, dom, want)
	}

	for _, c := range []struct {
		name  string
		width int
	}{{"status.png", 1280}, {"status-phone.png", 412}} {
		img := b.open(t, server.URL, c.width, b.fits(t, handler, c.width)).shoot(c.name)
		require.True(t, near(img.At(1, 1), paper), "%s: the style is in force", c.name)
		require.True(t, has(img, warn), "%s: the state has its colour", c.name)
		require.True(t, has(img, good), "%s: the bar has its colour", c.name)
		require.False(t, has(img, bad), "%s: an outage is no refusal, and nothing else is wrong", c.name)
		for y := range img.Bounds().Dy() {
			for x := c.width - 10; x < c.width; x++ {
				require.True(t, near(img.At(x, y), paper), "%s: nothing runs out of its card on the right, at line %d", c.name, y)
			}
		}
	}
	require.Eventually(t, func() bool {
		pass()
		return len(ended) == 1
	}, 2*time.Minute, 100*time.Microsecond)
	require.NoError(t, <-ended)
}

func TestStatusPageOfALockedStoreInABrowser(t *testing.T) {
	b := newBrowser(t)
	g := storerig.New(t)
	s := g.Open()
	g.Vault.Inject(vaulttest.Fault{Err: vault.ErrAccessDenied})
	require.Error(t, s.Revalidate(g.Ctx))
	server := httptest.NewServer(blockhttp.Handler(s, nil))
	defer server.Close()
	img := b.open(t, server.URL, 1280, 900).shoot("status-locked.png")
	require.True(t, has(img, bad))
	require.True(t, has(img, card))
}

// Names and refusals are as long as clouds make them, and have few spaces.
func TestStatusPageKeepsWithinItsCards(t *testing.T) {
	b := newBrowser(t)
	g := storerig.New(t)
	g.Vault = vaulttest.New(&vaulttest.Options{Clock: g.Clock, Name: "https://contosokeys.vault.azure.net"})
	g.Key = g.Vault.CreateKey(strings.Repeat("customerkey", 6)[:60])
	g.KEK = kek.New(g.Vault, g.Key.Versionless())
	s := g.Open()
	for range 190 {
		g.Clock.Advance(100 * time.Millisecond)
		require.NoError(t, s.Revalidate(g.Ctx))
	}
	require.NoError(t, s.RotateEpoch(g.Ctx, nil))
	denied := vaulttest.AccessDeniedByRBAC()
	denied.RequestID = "4b6a5f0d-6a8e-4f0c-9d52-1f6a2c1d7e90"
	denied.Err = errors.New("Caller: appid=11111111-2222-3333-4444-555555555555;oid=11111111-2222-3333-4444-555555555555;" +
		"iss=https://sts.windows.net/11111111-2222-3333-4444-555555555555/")
	g.Vault.Inject(vaulttest.Fault{Op: vault.OpWrapKey, Err: denied})
	require.ErrorIs(t, s.Revalidate(g.Ctx), vault.ErrAccessDenied)
	h := blockhttp.Handler(s, &blockhttp.Options{Audit: func() blockhttp.AuditStatus {
		return blockhttp.AuditStatus{Head: "1207:" + strings.Repeat("9f86d081", 8)}
	}})
	lookWhenLost(t, h)
	require.Contains(t, body(t, fetch(h, "GET", "/")), "190 times")
	// So are the counts of a vault that is asked for each block.
	calls := regexp.MustCompile(`<td>\d+</td><td>0\.0 ms</td><td>[^<]+</td>`)
	busy := http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		page, _ := io.ReadAll(fetch(h, "GET", "/").Body)
		w.Write(calls.ReplaceAll(page,
			[]byte("<td>912,345,678</td><td>1,031.4 ms</td><td>912,345,600 ok, 70 unavailable, 8 key not yet valid</td>")))
	})
	require.Equal(t, 3, strings.Count(body(t, fetch(busy, "GET", "/")), "912,345,678"))
	for _, width := range []int{1280, 780, 412, 360} {
		b.fits(t, busy, width)
	}
}
