package block_test

import (
	"context"
	"fmt"
	"image"
	"image/color"
	"image/png"
	"net/http/httptest"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/blockseal/blockseal/block"
	"github.com/blockseal/blockseal/keyring"
	"github.com/blockseal/blockseal/vault"
	"github.com/blockseal/blockseal/vault/vaulttest"
)

// browser runs a headless Chromium.
type browser struct{ path string }

func newBrowser(t *testing.T) browser {
	for _, name := range []string{"chromium", "chromium-browser", "google-chrome"} {
		if path, err := exec.LookPath(name); err == nil {
			return browser{path}
		}
	}
	t.Skip("NOT TESTED: the status page in a browser, because chromium is not installed (apt-get install chromium)")
	return browser{}
}

// run returns what the browser wrote to standard output, and what the page had to
// complain of.
func (b browser) run(t *testing.T, args ...string) (stdout string, complaints []string) {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), 2*time.Minute)
	defer cancel()
	args = append([]string{"--headless", "--no-sandbox", "--disable-gpu", "--disable-dev-shm-usage", "--no-first-run",
		"--disable-background-networking", "--disable-extensions", "--hide-scrollbars", "--enable-logging=stderr",
		"--user-data-dir=" + t.TempDir()}, args...)
	cmd := exec.CommandContext(ctx, b.path, args...)
	var stderr strings.Builder
	cmd.Stderr = &stderr
	out, err := cmd.Output()
	require.NoError(t, err, stderr.String())
	for _, line := range strings.Split(stderr.String(), "\n") {
		if strings.Contains(line, "CONSOLE") || strings.Contains(line, "Content Security Policy") {
			complaints = append(complaints, line)
		}
	}
	return string(out), complaints
}

// shoot photographs a page and returns the image. With -artifacts the file stays.
func (b browser) shoot(t *testing.T, url, name string, width, height int) image.Image {
	t.Helper()
	file := filepath.Join(t.ArtifactDir(), name)
	_, complaints := b.run(t, "--screenshot="+file, fmt.Sprintf("--window-size=%d,%d", width, height), url)
	require.Empty(t, complaints)
	f, err := os.Open(file)
	require.NoError(t, err)
	defer f.Close()
	img, err := png.Decode(f)
	require.NoError(t, err)
	require.Equal(t, image.Rect(0, 0, width, height), img.Bounds())
	return img
}

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

// orders is how many blocks a busyStore has.
const orders = 20000

// busyStore is a store with something on every part of the page: a degraded state,
// a rotation under way, events, an audit log.
func busyStore(t *testing.T) (g *rig, s *block.Store) {
	g = newRig(t)
	g.vault.SetDates(g.key, time.Time{}, start.Add(26*24*time.Hour))
	g.clock.Advance(36 * time.Hour)
	g.opts.RewriteRate = 10 << 20
	s = g.open()
	for i := range orders {
		require.NoError(t, s.Put(g.ctx, fmt.Appendf(nil, "order %05d", i), make([]byte, 200)))
	}
	for i := range 2500 {
		_, err := s.Get(g.ctx, fmt.Appendf(nil, "order %05d", i*7), nil)
		require.NoError(t, err)
	}
	_, err := s.Verify(g.ctx, nil)
	require.NoError(t, err)
	require.NoError(t, s.RotateEpoch(g.ctx, nil))
	for range 30 {
		g.clock.Advance(time.Minute)
		require.NoError(t, s.Revalidate(g.ctx))
	}
	g.vault.Rotate("customer")
	g.vault.SetDates(g.key.Versionless(), time.Time{}, start.Add(26*24*time.Hour))
	require.NoError(t, s.RotateKEK(g.ctx))
	for range 3 {
		g.clock.Advance(time.Minute)
		require.NoError(t, s.Revalidate(g.ctx))
	}
	g.vault.SetOutage(&vault.Error{Kind: vault.ErrUnavailable, Detail: "the connection was refused"})
	g.clock.Advance(time.Minute)
	require.Error(t, s.Revalidate(g.ctx))
	g.clock.Advance(72 * time.Second)
	require.Eventually(t, func() bool { return s.State().Status == keyring.Degraded }, 20*time.Second, time.Millisecond)
	return g, s
}

func TestStatusPageInABrowser(t *testing.T) {
	b := newBrowser(t)
	g, s := busyStore(t)
	server := httptest.NewServer(block.StatusHandler(s, block.StatusAudit(func() block.AuditStatus {
		return block.AuditStatus{Head: "1207:" + strings.Repeat("9f86d081", 8)}
	})))
	defer server.Close()

	// A rekey waits on the clock between its steps, and so stands while the
	// photographs are taken.
	ended := make(chan error, 1)
	go func() { ended <- s.Rekey(g.ctx, block.Range{}, nil) }()
	require.Eventually(t, func() bool {
		running := s.Stats().Running
		if len(running) == 0 || running[0].Done < 8000 {
			g.clock.Advance(2 * time.Millisecond)
			return false
		}
		return running[0].Total == orders
	}, time.Minute, 100*time.Microsecond)

	dom, complaints := b.run(t, "--dump-dom", server.URL)
	require.Empty(t, complaints, "the page keeps its own policy")
	for _, want := range []string{"Degraded", "rekey", "of 20,000 records", "the connection was refused", "<progress"} {
		require.Contains(t, dom, want)
	}

	laptop := b.shoot(t, server.URL, "status.png", 1280, 1500)
	phone := b.shoot(t, server.URL, "status-phone.png", 412, 2720)
	for name, img := range map[string]image.Image{"laptop": laptop, "phone": phone} {
		w := img.Bounds().Dx()
		require.True(t, near(img.At(1, 1), paper), "%s: the style is in force", name)
		require.True(t, has(img, warn), "%s: the state has its colour", name)
		require.True(t, has(img, good), "%s: the bar has its colour", name)
		for y := range img.Bounds().Dy() {
			for x := w - 10; x < w; x++ {
				require.True(t, near(img.At(x, y), paper), "%s: nothing runs out of its card on the right, at line %d", name, y)
			}
		}
	}
	require.Eventually(t, func() bool {
		g.clock.Advance(2 * time.Millisecond)
		return len(ended) == 1
	}, time.Minute, 100*time.Microsecond)
	require.NoError(t, <-ended)
}

func TestStatusPageOfALockedStoreInABrowser(t *testing.T) {
	b := newBrowser(t)
	g := newRig(t)
	s := g.open()
	g.vault.Inject(vaulttest.Fault{Err: vault.ErrAccessDenied})
	require.Error(t, s.Revalidate(g.ctx))
	server := httptest.NewServer(block.StatusHandler(s))
	defer server.Close()
	img := b.shoot(t, server.URL, "status-locked.png", 1280, 900)
	require.True(t, has(img, bad))
	require.True(t, has(img, card))
}
