package blockhttp_test

import (
	"encoding/json"
	"errors"
	"io"
	"net/http"
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

// fetch is one request to a status handler.
func fetch(h http.Handler, method, target string, accept ...string) *http.Response {
	r := httptest.NewRequest(method, target, nil)
	for _, a := range accept {
		r.Header.Add("Accept", a)
	}
	w := httptest.NewRecorder()
	h.ServeHTTP(w, r)
	return w.Result()
}

func body(t *testing.T, r *http.Response) string {
	t.Helper()
	b, err := io.ReadAll(r.Body)
	require.NoError(t, err)
	return strings.ReplaceAll(string(b), "\u00a0", " ") // quantities are kept on one line
}

func TestStatusAnswersAsAsked(t *testing.T) {
	h := blockhttp.Handler(storerig.New(t).Open(), nil)
	const browser = "text/html,application/xhtml+xml,application/xml;q=0.9,*/*;q=0.8"
	for _, c := range []struct {
		name, method, target, accept string
		status                       int
		kind                         string
	}{
		{"a browser", "GET", "/", browser, 200, "text/html"},
		{"mounted somewhere", "GET", "/ops/orders", browser, 200, "text/html"},
		{"anything", "GET", "/", "*/*", 200, "text/html"},
		{"nothing said", "GET", "/", "", 200, "text/html"},
		{"head", "HEAD", "/", "", 200, "text/html"},
		{"a client for JSON", "GET", "/", "application/json", 200, "application/json"},
		{"the format", "GET", "/?format=json", browser, 200, "application/json"},
		{"the format wins", "GET", "/?format=html", "application/json", 200, "text/html"},
		{"the path", "GET", "/ops/status.json", "", 200, "application/json"},
		{"a mount with a dot", "GET", "/stores/orders.db/", browser, 200, "text/html"},
		{"a mount with a dot and no slash", "GET", "/stores/orders.db", browser, 200, "text/html"},
		{"a version", "GET", "/v1.2/", browser, 200, "text/html"},
		{"the path below a dot", "GET", "/v1.2/status.json", "", 200, "application/json"},
		{"an icon", "GET", "/favicon.ico", "", 404, "text/plain"},
		{"an icon of a phone", "GET", "/apple-touch-icon-120x120-precomposed.png", "", 404, "text/plain"},
		{"an icon below a mount", "GET", "/stores/orders.db/favicon.ico", "", 404, "text/plain"},
		{"a crawler", "GET", "/robots.txt", "", 404, "text/plain"},
		{"post", "POST", "/", "", 405, "text/plain"},
		{"delete", "DELETE", "/status.json", "", 405, "text/plain"},
		{"options", "OPTIONS", "/", "", 405, "text/plain"},
	} {
		t.Run(c.name, func(t *testing.T) {
			r := fetch(h, c.method, c.target, c.accept)
			require.Equal(t, c.status, r.StatusCode)
			require.True(t, strings.HasPrefix(r.Header.Get("Content-Type"), c.kind), r.Header.Get("Content-Type"))
			for name, want := range map[string]string{
				"X-Content-Type-Options": "nosniff", "X-Frame-Options": "DENY", "Cache-Control": "no-store", "Referrer-Policy": "no-referrer",
			} {
				require.Equal(t, want, r.Header.Get(name))
			}
			policy := r.Header.Get("Content-Security-Policy")
			require.Contains(t, policy, "default-src 'none'")
			require.Contains(t, policy, "frame-ancestors 'none'")
			require.NotContains(t, policy, "unsafe")
			if c.method == "HEAD" {
				require.Empty(t, body(t, r))
				require.NotEqual(t, "0", r.Header.Get("Content-Length"))
			}
			if c.status == 405 {
				require.Equal(t, "GET, HEAD", r.Header.Get("Allow"))
			}
		})
	}
}

// view is the JSON, as a client of it would read it.
type view struct {
	Store string
	State struct{ Status, Cause, Since string }
	Lease struct {
		Left   float64 `json:"leftSeconds"`
		Length float64 `json:"lengthSeconds"`
	}
	Key struct {
		Name, Version, Expires string
		Known                  bool
		Left                   *float64 `json:"leftSeconds"`
	}
	Check struct {
		Last, Error string
		OK, Denied  int
		Unknown     bool
	}
	Epochs struct{ Count, Current int }
	Work   []struct {
		Name    string
		Running bool
		Ratio   *float64
		Failed  string
	}
	Audit *struct {
		Head string
		Lost int
	}
	Events []struct {
		Kind, Text, Grade string
		Times             int
	}
}

func look(t *testing.T, h http.Handler) (v view) {
	t.Helper()
	require.NoError(t, json.Unmarshal([]byte(body(t, fetch(h, "GET", "/status.json"))), &v))
	return v
}

// lookWhenLost waits until the page tells that the store became Inaccessible: events
// reach it some moments after what they tell of, and that the store became Available
// is an event of the same kind.
func lookWhenLost(t *testing.T, h http.Handler) (v view) {
	t.Helper()
	require.Eventually(t, func() bool {
		v = look(t, h)
		return len(v.Events) > 0 && strings.Contains(v.Events[0].Text, "to Inaccessible")
	}, time.Minute, time.Millisecond)
	return v
}

func TestStatusTellsTheStory(t *testing.T) {
	g := storerig.New(t)
	g.Vault.SetDates(g.Key, time.Time{}, storerig.Start().Add(20*24*time.Hour))
	s := g.Open()
	h := blockhttp.Handler(s, &blockhttp.Options{Audit: func() blockhttp.AuditStatus { return blockhttp.AuditStatus{Head: "7:abcdef", Lost: 2} }})
	require.NoError(t, s.Put(g.Ctx, []byte("a"), []byte("b")))

	v := look(t, h)
	require.Equal(t, s.StoreID().String(), v.Store)
	require.Equal(t, "Available", v.State.Status)
	require.Equal(t, "2026-03-01T12:00:00Z", v.State.Since)
	require.EqualValues(t, 600, v.Lease.Left)
	require.Equal(t, "customer", v.Key.Name)
	require.Equal(t, g.Key.Version, v.Key.Version)
	require.Equal(t, "2026-03-21T12:00:00Z", v.Key.Expires)
	require.InDelta(t, 20*86400, *v.Key.Left, 1)
	require.Equal(t, 1, v.Epochs.Count)
	require.Equal(t, "7:abcdef", v.Audit.Head)
	page := body(t, fetch(h, "GET", "/"))
	for _, want := range []string{"Available", "10 min 00 s", "customer", g.Key.Version, "2026-03-21 12:00:00 UTC, in 20 d 0 h", "7:abcdef"} {
		require.Contains(t, page, want)
	}

	g.Clock.Advance(3 * time.Minute)
	require.NoError(t, s.Revalidate(g.Ctx))
	require.NoError(t, s.RotateEpoch(g.Ctx, nil))
	g.Clock.Advance(time.Second)
	g.Vault.SetEnabled(g.Key, false)
	require.ErrorIs(t, s.Revalidate(g.Ctx), vault.ErrKeyDisabled)
	v = lookWhenLost(t, h)
	require.Equal(t, "Inaccessible", v.State.Status)
	require.Contains(t, v.State.Cause, "disabled")
	require.Zero(t, v.Lease.Left)
	require.Equal(t, 1, v.Check.Denied)
	require.Contains(t, v.Check.Error, "disabled")
	require.Equal(t, "error", v.Events[0].Grade)
	require.Contains(t, v.Events[0].Text, "Available to Inaccessible")
	require.Equal(t, "rotate_epoch", v.Work[0].Name)
	require.EqualValues(t, 1, *v.Work[0].Ratio)
	page = body(t, fetch(h, "GET", "/"))
	for _, want := range []string{"Inaccessible", "disabled", "no keys are in memory", "rotate epoch"} {
		require.Contains(t, page, want)
	}

	require.NoError(t, s.Close())
	require.Equal(t, "Closed", look(t, h).State.Status)
	require.Contains(t, body(t, fetch(h, "GET", "/")), "Closed")
}

// A vault that does not answer is not one that refuses: the page is as alarmed as the
// state is.
func TestStatusTellsARefusalFromNoAnswer(t *testing.T) {
	const refused, unanswered = `<div class="big bad">failed</div>`, `<div class="big warn">unanswered</div>`
	g := storerig.New(t)
	s := g.Open()
	h := blockhttp.Handler(s, nil)
	restore := g.Vault.Inject(vaulttest.Fault{Err: vault.ErrThrottled})
	require.Error(t, s.Revalidate(g.Ctx))
	page := body(t, fetch(h, "GET", "/"))
	require.Contains(t, page, "Degraded")
	require.Contains(t, page, unanswered)
	require.NotContains(t, page, refused)
	restore()
	g.Vault.Inject(vaulttest.Fault{Err: vault.ErrAccessDenied})
	require.Error(t, s.Revalidate(g.Ctx))
	page = body(t, fetch(h, "GET", "/"))
	require.Contains(t, page, refused)
	require.NotContains(t, page, unanswered)
}

const plaintext = "a plaintext that must not be on a page"

// What comes from outside, such as a vault's error text, cannot become a part of
// the page's code, and ids and contents of blocks are nowhere.
func TestStatusPageHoldsNothingItShouldNot(t *testing.T) {
	g := storerig.New(t)
	s, err := block.Open(g.Ctx, g.Dir, g.KEK, &g.Opts)
	require.NoError(t, err)
	require.NoError(t, s.Put(g.Ctx, []byte("a"), []byte(plaintext)))
	require.NoError(t, s.Put(g.Ctx, []byte("account-4711"), []byte(plaintext)))
	require.NoError(t, s.Close())
	g.SetEngine([]byte("\x03\x00\x00\x00\x00account-4711"), []byte{1, 2, 3})
	s, err = block.Open(g.Ctx, g.Dir, g.KEK, &g.Opts)
	require.NoError(t, err)
	defer s.Close()
	_, err = s.Verify(g.Ctx, nil)
	require.ErrorContains(t, err, "account-4711")
	require.Error(t, s.Rekey(g.Ctx, block.Range{}, nil))
	g.Vault.Inject(vaulttest.Fault{Err: &vault.Error{Kind: vault.ErrAccessDenied, Detail: `<script>alert("x")</script>`, Err: errors.New("</style><b>")}})
	require.Error(t, s.Revalidate(g.Ctx))

	h := blockhttp.Handler(s, nil)
	lookWhenLost(t, h)
	for _, target := range []string{"/", "/status.json"} {
		got := body(t, fetch(h, "GET", target))
		require.NotContains(t, got, "<script")
		require.NotContains(t, got, "</style><b>")
		require.NotContains(t, got, plaintext)
		require.NotContains(t, got, "4711")
		require.Contains(t, got, "corrupt", "what went wrong is told")
	}
}

// The page is made while the store works; run with -race.
func TestStatusWhileTheStoreWorks(t *testing.T) {
	g := storerig.New(t)
	s := g.Open()
	h := blockhttp.Handler(s, nil)
	done := make(chan error, 2)
	go func() {
		for i := range 300 {
			if err := s.Put(g.Ctx, []byte{'a', byte(i)}, []byte("data")); err != nil {
				done <- err
				return
			}
		}
		done <- s.RotateEpoch(g.Ctx, nil)
	}()
	go func() {
		for range 100 {
			fetch(h, "GET", "/")
			fetch(h, "GET", "/status.json")
		}
		done <- nil
	}()
	require.NoError(t, <-done)
	require.NoError(t, <-done)
}
