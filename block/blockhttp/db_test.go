package blockhttp_test

import (
	"encoding/json"
	"fmt"
	"net/http"
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
)

// dbView is the JSON, as a client of it would read it.
type dbView struct {
	Name, Instance string
	State          struct{ Status, Headline, Do, Error string }
	Stores         struct{ Total, Open, Available, Degraded, Inaccessible, NotOpen, Dropping, MaxOpen int }
	Troubles       []struct {
		Store, Kind, CauseKind, Says, Do, Runbook, RunbookLink, Error, Grade, KEK, Since string
	}
	OtherTroubles []struct {
		Kind   string
		Stores int
	}
	Checks struct{ OK, Denied, Unanswered int }
	Blocks struct{ Puts, Gets int }
	Audit  *struct{ Lost int }
}

func lookDB(t *testing.T, h http.Handler) (v dbView) {
	t.Helper()
	require.NoError(t, json.Unmarshal([]byte(body(t, fetch(h, "GET", "/status.json"))), &v))
	return v
}

// It answers as the page of a store does.
func TestDBStatusAnswersAsAsked(t *testing.T) {
	g := storerig.NewDB(t)
	h := blockhttp.DBHandler(g.Open(), nil)
	for _, c := range []struct {
		method, target, accept string
		status                 int
		kind                   string
	}{
		{"GET", "/", "text/html", 200, "text/html"},
		{"HEAD", "/", "", 200, "text/html"},
		{"GET", "/", "application/json", 200, "application/json"},
		{"GET", "/?format=json", "text/html", 200, "application/json"},
		{"GET", "/ops/status.json", "", 200, "application/json"},
		{"GET", "/favicon.ico", "", 404, "text/plain"},
		{"POST", "/", "", 405, "text/plain"},
	} {
		r := fetch(h, c.method, c.target, c.accept)
		require.Equal(t, c.status, r.StatusCode, c)
		require.True(t, strings.HasPrefix(r.Header.Get("Content-Type"), c.kind), c)
		require.Contains(t, r.Header.Get("Content-Security-Policy"), "default-src 'none'")
		require.Equal(t, "no-store", r.Header.Get("Cache-Control"))
	}
	require.Contains(t, body(t, fetch(h, "GET", "/")), `http-equiv="refresh"`)
	require.NotContains(t, body(t, fetch(h, "GET", "/?still")), `http-equiv="refresh"`)
}

func TestDBStatusTellsTheStory(t *testing.T) {
	g := storerig.NewDB(t)
	g.Open()
	h := blockhttp.DBHandler(g.DB, &blockhttp.Options{Name: "tenants", Runbooks: "https://wiki.example/operations.md",
		Audit: func() blockhttp.AuditStatus { return blockhttp.AuditStatus{Head: "7:abcdef", Lost: 2} }})
	v := lookDB(t, h)
	require.Equal(t, "tenants", v.Name)
	require.Equal(t, "ok", v.State.Status)
	require.Zero(t, v.Stores.Total)
	require.Equal(t, 2, v.Audit.Lost)

	stores := map[string]*block.Store{}
	for _, name := range []string{"contoso", "fabrikam", "litware", "tailspin"} {
		stores[name] = g.Create(name)
		require.NoError(t, stores[name].Put(g.Ctx, []byte("id"), []byte("data")))
	}
	require.NoError(t, stores["tailspin"].Close())
	g.Own.Advance(10 * time.Second)
	v = lookDB(t, h)
	require.Equal(t, "ok", v.State.Status)
	require.Equal(t, "All open stores serve.", v.State.Headline)
	require.Equal(t, 4, v.Stores.Total)
	require.Equal(t, 3, v.Stores.Available)
	require.Equal(t, 1, v.Stores.NotOpen)
	require.Equal(t, 4, v.Blocks.Puts)
	require.Empty(t, v.Troubles)

	g.Vault.SetOutage(&vault.Error{Kind: vault.ErrUnavailable})
	require.Error(t, stores["contoso"].Revalidate(g.Ctx))
	v = lookDB(t, h)
	require.Equal(t, "warning", v.State.Status)
	require.Equal(t, "A vault does not answer: 1 of 3 open stores are Degraded.", v.State.Headline)
	g.Vault.SetOutage(nil)
	require.NoError(t, stores["contoso"].Revalidate(g.Ctx))

	g.Vault.SetDates(g.KEK("litware").ID(), time.Time{}, storerig.Start().Add(20*24*time.Hour))
	require.NoError(t, stores["litware"].Revalidate(g.Ctx))
	v = lookDB(t, h)
	require.Equal(t, "warning", v.State.Status)
	require.Equal(t, "One thing needs a person.", v.State.Headline)
	require.Equal(t, "key_near_expiry", v.Troubles[0].Kind)
	require.Equal(t, "its key expires in 19 d 23 h.", v.Troubles[0].Says)

	g.Vault.SetEnabled(g.KEK("fabrikam").ID(), false)
	require.Error(t, stores["fabrikam"].Revalidate(g.Ctx))
	v = lookDB(t, h)
	require.Equal(t, "error", v.State.Status)
	require.Equal(t, "2 things need a person.", v.State.Headline)
	require.Equal(t, "fabrikam", v.Troubles[0].Store)
	require.Equal(t, "inaccessible", v.Troubles[0].Kind)
	require.Equal(t, "key_disabled", v.Troubles[0].CauseKind)
	require.Equal(t, "the key is disabled.", v.Troubles[0].Says)
	require.Equal(t, "https://wiki.example/operations.md#causes", v.Troubles[0].RunbookLink)
	require.Contains(t, v.Troubles[0].Error, "disabled")
	require.Contains(t, v.Troubles[0].KEK, "/keys/customer-1/")
	require.Equal(t, 1, v.Checks.Denied)
	page := body(t, fetch(h, "GET", "/"))
	for _, want := range []string{"<bdi>fabrikam</bdi>", "the key is disabled.", "Enable it in the vault.", `href="https://wiki.example/operations.md#causes"`,
		"<bdi>litware</bdi>", "7:abcdef", "tenants"} {
		require.Contains(t, page, want)
	}
	require.NotContains(t, page, "contoso", "a store that is well is not named")

	require.NoError(t, g.DB.Close())
	require.Equal(t, "closed", lookDB(t, h).State.Status)
	require.Contains(t, body(t, fetch(h, "GET", "/")), "Closed: the program closed the DB.")
}

// The page is bounded whatever the number of stores, and says how many it does not name.
func TestDBStatusIsBounded(t *testing.T) {
	g := storerig.NewDB(t)
	h := blockhttp.DBHandler(g.Open(), nil)
	for i := range 30 {
		s := g.Create(fmt.Sprintf("revoked %02d", i))
		g.Vault.SetEnabled(g.KEK(fmt.Sprintf("revoked %02d", i)).ID(), false)
		require.Error(t, s.Revalidate(g.Ctx))
	}
	v := lookDB(t, h)
	require.Len(t, v.Troubles, block.MaxTroubles)
	require.Len(t, v.OtherTroubles, 1)
	require.Equal(t, 30-block.MaxTroubles, v.OtherTroubles[0].Stores)
	page := body(t, fetch(h, "GET", "/"))
	require.Contains(t, page, "and 10 more: it is Inaccessible")
	require.Equal(t, block.MaxTroubles, strings.Count(page, "<bdi>revoked")-strings.Count(page, "key of <bdi>revoked"))
}

// hostile are names of stores that mean something to whoever shows them.
func hostile() []string {
	return []string{`</title><script>alert("x")</script>`, "a\nb", "\x1b[2Jwiped", "\u202egnp.exe", `" onload="x`, "a\x00b", strings.Repeat("W", 255)}
}

// Names of stores are any UTF-8. None becomes a part of the page's code, or is not seen; the JSON has
// them as they are.
func TestDBStatusOfAnyName(t *testing.T) {
	g := storerig.NewDB(t)
	h := blockhttp.DBHandler(g.Open(), nil)
	for _, name := range hostile() {
		s := g.Create(name)
		g.Vault.SetEnabled(g.KEK(name).ID(), false)
		require.Error(t, s.Revalidate(g.Ctx))
	}
	var names []string
	for _, tr := range lookDB(t, h).Troubles {
		names = append(names, tr.Store)
	}
	require.ElementsMatch(t, hostile(), names)
	page := body(t, fetch(h, "GET", "/"))
	for _, no := range []string{"<script", "\x1b", "\u202e", "\x00", `" onload`, "a\nb"} {
		require.NotContains(t, page, no)
	}
	for _, want := range []string{`<bdi>&#34;a\nb&#34;</bdi>`, `\x1b[2Jwiped`, `\u202egnp.exe`, `a\x00b`} {
		require.Contains(t, page, want)
	}
}

// The page is made while stores come and go; run with -race.
func TestDBStatusWhileStoresComeAndGo(t *testing.T) {
	g := storerig.NewDB(t)
	g.Opts.MaxOpen = 2
	h := blockhttp.DBHandler(g.Open(), nil)
	for i := range 4 {
		require.NoError(t, g.Create(fmt.Sprint(i)).Close())
	}
	done := make(chan error, 1)
	go func() {
		for i := range 60 {
			s, release, err := g.DB.Acquire(g.Ctx, fmt.Sprint(i%4))
			if err == nil {
				err = s.Put(g.Ctx, []byte("id"), nil)
				release()
			}
			if err != nil {
				done <- err
				return
			}
		}
		done <- nil
	}()
	for len(done) == 0 {
		fetch(h, "GET", "/")
		fetch(h, "GET", "/status.json")
	}
	require.NoError(t, <-done)
	require.Equal(t, 60, lookDB(t, h).Blocks.Puts)
}

// The page of a DB says how access to the KEK of its files is.
func TestDBStatusOfTheFileKEK(t *testing.T) {
	g := storerig.NewDB(t)
	key := g.Vault.CreateKey("files")
	g.Opts.FileKEK, g.Opts.FileKeyring = kek.New(g.Vault, key.Versionless()), keyring.Options{Clock: g.Clock}
	h := blockhttp.DBHandler(g.Open(), nil)
	look := func() (v struct {
		Files *struct {
			Status, KEK, Error, LeaseEnd, LastCheck string
			Open                                    bool
			Epoch                                   uint32
		}
	}) {
		require.NoError(t, json.Unmarshal([]byte(body(t, fetch(h, "GET", "/status.json"))), &v))
		require.NotNil(t, v.Files)
		return v
	}
	v := look().Files
	require.Equal(t, "Available", v.Status)
	require.True(t, v.Open)
	require.Equal(t, key.String(), v.KEK)
	require.NotEmpty(t, v.LeaseEnd)
	require.NotZero(t, v.Epoch)
	require.Contains(t, body(t, fetch(h, "GET", "/", "text/html")), "Key of the files")

	g.Vault.SetEnabled(key, false)
	require.ErrorIs(t, g.DB.RevalidateFileKEK(g.Ctx), vault.ErrKeyDisabled)
	require.Eventually(t, func() bool { return !g.DB.FileKEK().Open }, time.Minute, time.Millisecond)
	v = look().Files
	require.Equal(t, "Inaccessible", v.Status)
	require.False(t, v.Open)
	require.Empty(t, v.LeaseEnd)
	require.Contains(t, v.Error, "key disabled")
	require.Contains(t, body(t, fetch(h, "GET", "/", "text/html")), "Inaccessible, the engine is closed")

	plain := storerig.NewDB(t)
	h = blockhttp.DBHandler(plain.Open(), nil)
	require.NotContains(t, body(t, fetch(h, "GET", "/", "text/html")), "Key of the files")
}
