package blockhttp_test

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"html"
	"regexp"
	"strings"
	"sync"
	"sync/atomic"
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

// state is the JSON of the state, as a client of it would read it.
type state struct {
	Status, Cause, Kind, Headline, Do, Runbook, RunbookLink string
}

func lookAtState(t *testing.T, s *block.Store, opts *blockhttp.Options) state {
	t.Helper()
	var v struct{ State state }
	require.NoError(t, json.Unmarshal([]byte(body(t, fetch(blockhttp.Handler(s, opts), "GET", "/status.json"))), &v))
	return v.State
}

// seen is what somebody who looks at the page reads, without opening anything.
func seen(t *testing.T, s *block.Store, opts *blockhttp.Options) string {
	t.Helper()
	page := body(t, fetch(blockhttp.Handler(s, opts), "GET", "/"))
	_, page, ok := strings.Cut(page, "<body>")
	require.True(t, ok)
	page = regexp.MustCompile(`(?s)<summary>.*?</details>`).ReplaceAllString(page, "")
	page = regexp.MustCompile(`<[^>]*>`).ReplaceAllString(page, "")
	return strings.Join(strings.Fields(html.UnescapeString(page)), " ")
}

// fullAnchor is an anchor whose disk is full while it is said to be.
type fullAnchor struct {
	full atomic.Bool
	mu   sync.Mutex
	at   keyring.Point
}

var errFull = errors.New("no space left on the anchor's disk")

func (a *fullAnchor) Load(context.Context) (keyring.Point, error) {
	a.mu.Lock()
	defer a.mu.Unlock()
	return a.at, nil
}

func (a *fullAnchor) Advance(_ context.Context, to keyring.Point) error {
	if a.full.Load() {
		return errFull
	}
	a.mu.Lock()
	defer a.mu.Unlock()
	a.at = to
	return nil
}

// leaveBehind has the store change while its anchor cannot be written. The cleanup lets it be
// written again.
func leaveBehind(g *storerig.Rig, s *block.Store) {
	a := g.Opts.Keyring.Anchor.(*fullAnchor)
	a.full.Store(true)
	g.T.Cleanup(func() { a.full.Store(false) }) // before the store is closed
	require.NoError(g.T, s.RotateEpoch(g.Ctx, nil))
	require.Eventually(g.T, func() bool { return s.State().AnchorErr != nil }, time.Minute, time.Millisecond)
}

// The page has what the anchor holds, and why it lags, once.
func TestAnchorOnThePage(t *testing.T) {
	g := storerig.New(t)
	s := g.Open()
	require.NotContains(t, seen(t, s, nil), "Anchor", "there is none")

	g = storerig.New(t)
	g.Opts.Keyring.Anchor = &fullAnchor{}
	s = g.Open()
	look := func() (v struct {
		Anchor struct {
			Lags                 *bool
			Error                string
			Generation, Sequence uint64
		}
	}) {
		require.NoError(t, json.Unmarshal([]byte(body(t, fetch(blockhttp.Handler(s, nil), "GET", "/status.json"))), &v))
		return v
	}
	require.NoError(t, s.RotateEpoch(g.Ctx, nil))
	require.Eventually(t, func() bool { return s.State().Anchor.Generation == s.State().Generation }, time.Minute, time.Millisecond)
	v := look()
	require.NotNil(t, v.Anchor.Lags)
	require.False(t, *v.Anchor.Lags)
	require.Equal(t, s.State().Generation, v.Anchor.Generation)
	require.Regexp(t, fmt.Sprintf("Anchor advanced keyring ?generation %d writes ?sequence number", v.Anchor.Generation), seen(t, s, nil))

	leaveBehind(g, s)
	v = look()
	require.True(t, *v.Anchor.Lags)
	require.Contains(t, v.Anchor.Error, errFull.Error())
	require.Less(t, v.Anchor.Generation, s.State().Generation)
	page := seen(t, s, nil)
	require.Contains(t, page, "Runbook: “A lagging anchor” in docs/operations.md")
	require.Contains(t, page, "Anchor lags")
	require.Equal(t, 1, strings.Count(page, errFull.Error()), page)
}

// Whatever the vault says or does not say, the headline is what it means and what to do.
func TestHeadlineOfEachCause(t *testing.T) {
	start := storerig.Start()
	refuse := func(kind error) func(*storerig.Rig, *block.Store) {
		return func(g *storerig.Rig, s *block.Store) {
			g.Vault.SetOutage(kind)
			require.ErrorIs(g.T, s.Revalidate(g.Ctx), kind)
		}
	}
	for _, c := range []struct {
		name    string
		happens func(*storerig.Rig, *block.Store)
		kind    string
		says    string
		runbook string
	}{
		{"nothing", func(*storerig.Rig, *block.Store) {}, "",
			"Available: the vault agreed at the last check. Nothing is to be done.", ""},
		{"near expiry", func(g *storerig.Rig, s *block.Store) {
			g.Vault.SetDates(g.Key, time.Time{}, start.Add(20*24*time.Hour))
			require.NoError(g.T, s.Revalidate(g.Ctx))
		}, "key_near_expiry", "Available: the key expires in 20 d 0 h. Rotate it in the vault before.", "Rotation"},
		{"the anchor lags", func(g *storerig.Rig, s *block.Store) { leaveBehind(g, s) }, "anchor_lags",
			"Available: the anchor lags, so that an older copy of the store would be accepted. Make it writable again; the store advances it by itself.", "A lagging anchor"},
		{"the anchor lags, and the key is near its expiry", func(g *storerig.Rig, s *block.Store) {
			g.Vault.SetDates(g.Key, time.Time{}, start.Add(20*24*time.Hour))
			require.NoError(g.T, s.Revalidate(g.Ctx))
			leaveBehind(g, s)
		}, "anchor_lags", "Available: the anchor lags, so that an older copy of the store would be accepted. Make it writable again; the store advances it by itself.", "A lagging anchor"},
		{"the anchor lags, and the key is disabled", func(g *storerig.Rig, s *block.Store) {
			leaveBehind(g, s)
			g.Vault.SetEnabled(g.Key, false)
			require.Error(g.T, s.Revalidate(g.Ctx))
		}, "key_disabled", "Inaccessible: the key is disabled. Enable it in the vault.", "Causes"},
		{"closed", func(g *storerig.Rig, s *block.Store) { require.NoError(g.T, s.Close()) }, "",
			"Closed: the program closed the store. Nothing is to be done.", ""},
		{"disabled", func(g *storerig.Rig, s *block.Store) {
			g.Vault.SetEnabled(g.Key, false)
			require.Error(g.T, s.Revalidate(g.Ctx))
		}, "key_disabled", "Inaccessible: the key is disabled. Enable it in the vault.", "Causes"},
		{"expired", func(g *storerig.Rig, s *block.Store) {
			g.Vault.SetDates(g.Key, time.Time{}, start.Add(-time.Hour))
			require.Error(g.T, s.Revalidate(g.Ctx))
		}, "key_expired", "Inaccessible: the key has expired. Rotate it in the vault, if this machine's clock is right.", "An expired key"},
		{"not yet valid", func(g *storerig.Rig, s *block.Store) {
			g.Vault.SetDates(g.Key, start.Add(time.Hour), time.Time{})
			require.Error(g.T, s.Revalidate(g.Ctx))
		}, "key_not_yet_valid", "Inaccessible: the key is not valid yet. Correct its dates in the vault, or this machine's clock.", "An expired key"},
		{"deleted", func(g *storerig.Rig, s *block.Store) {
			g.Vault.Delete("customer")
			require.Error(g.T, s.Revalidate(g.Ctx))
		}, "key_deleted", "Inaccessible: the key is deleted. Recover it in the vault before its retention ends.", "Causes"},
		{"purged", func(g *storerig.Rig, s *block.Store) {
			g.Vault.Delete("customer")
			g.Vault.Purge("customer")
			require.Error(g.T, s.Revalidate(g.Ctx))
		}, "key_not_found", "Inaccessible: the vault has no such key or version. Restore it from its backup, or correct the vault's address.", "Lost key and escrow"},
		{"access denied", refuse(vault.ErrAccessDenied), "access_denied",
			"Inaccessible: the vault denies access. Give the program's identity get, wrapKey and unwrapKey, and look at the vault's firewall.", "Causes"},
		{"wrong tenant", refuse(vault.ErrWrongTenant), "wrong_tenant",
			"Inaccessible: the program's identity is of another directory than the vault. Correct the identity's tenant.", "Causes"},
		{"another kind of key", refuse(vault.ErrUnsupportedKey), "unsupported_key",
			"Inaccessible: the vault's key is not the one it was, or of a kind that cannot serve. Restore the key that it was.", "Causes"},
		{"another key", refuse(vault.ErrBadCiphertext), "bad_ciphertext",
			"Inaccessible: the vault's key is not the one that wrapped the keyring. Restore the key that did.", "Causes"},
		{"throttled", refuse(vault.ErrThrottled), "throttled",
			"Degraded: the vault has had too many requests. The store serves until 12:10:00 UTC. Have fewer made to it.", "Vault outage"},
		{"unavailable", refuse(vault.ErrUnavailable), "unavailable",
			"Degraded: the vault does not answer. The store serves until 12:10:00 UTC. Look at the vault, and at what is between it and the program.", "Vault outage"},
		{"the lease ended", func(g *storerig.Rig, s *block.Store) {
			g.Vault.SetOutage(vault.ErrUnavailable)
			g.Clock.Advance(keyring.DefaultLease)
			require.Error(g.T, s.Revalidate(g.Ctx))
		}, "lease_ended", "Inaccessible: the lease ended before the vault agreed again. Find out why the vault did not answer.", "Vault outage"},
	} {
		t.Run(c.name, func(t *testing.T) {
			g := storerig.New(t)
			g.Opts.Keyring.Anchor = &fullAnchor{}
			s := g.Open()
			c.happens(g, s)
			st := lookAtState(t, s, nil)
			require.Equal(t, c.says, st.Headline+" "+st.Do)
			require.Equal(t, c.kind, st.Kind)
			require.Equal(t, c.runbook, st.Runbook)
			require.Contains(t, seen(t, s, nil), c.says)
		})
	}
}

// A store that nobody asks for says that Revalidate is to be called; the others say when
// the vault is asked next.
func TestPageSaysWhenTheNextCheckComes(t *testing.T) {
	g := storerig.New(t)
	s := g.Open()
	g.Vault.SetEnabled(g.Key, false)
	require.Error(t, s.Revalidate(g.Ctx))
	next := s.State().NextCheck
	require.NotZero(t, next)
	require.Contains(t, seen(t, s, nil), "The next check comes by "+next.UTC().Format("15:04:05")+" UTC, in ")
	require.Contains(t, body(t, fetch(blockhttp.Handler(s, nil), "GET", "/status.json")),
		`"next": "`+next.UTC().Truncate(time.Millisecond).Format(time.RFC3339Nano))

	const none = "No check comes by itself."
	g = storerig.New(t)
	g.Opts.Keyring.ManualRevalidation = true
	s = g.Open()
	require.NotContains(t, seen(t, s, nil), none)
	g.Vault.SetEnabled(g.Key, false)
	require.Error(t, s.Revalidate(g.Ctx))
	require.Contains(t, seen(t, s, nil), none)
	require.Contains(t, seen(t, s, nil), "Enable it in the vault. Then call Revalidate.")
	require.NotContains(t, body(t, fetch(blockhttp.Handler(s, nil), "GET", "/status.json")), `"next"`)

	g = storerig.New(t)
	require.NoError(t, g.Open().Checkpoint(g.Ctx, "copy"))
	g.Dir = "copy"
	s = g.Open()
	st := lookAtState(t, s, nil)
	require.Equal(t, "awaits_revalidate", st.Kind)
	require.Equal(t, "Inaccessible: it waits to be revalidated, as a copy of a store does. Call Revalidate.",
		st.Headline+" "+st.Do)
	require.Contains(t, seen(t, s, nil), none)
}

// A cause is read once, without the vault and the digits of ids, which are elsewhere on the
// page and whole on demand.
func TestPageHasTheCauseOnceAndIDsCut(t *testing.T) {
	g := storerig.New(t)
	g.Vault = vaulttest.New(&vaulttest.Options{Clock: g.Clock, Name: "https://contoso.vault.azure.net"})
	g.Key = g.Vault.CreateKey("orders")
	g.KEK = kek.New(g.Vault, g.Key.Versionless())
	s := g.Open()
	g.Vault.SetOutage(&vault.Error{Op: vault.OpUnwrapKey, Key: g.Key, Kind: vault.ErrAccessDenied, Detail: "the role is missing"})
	require.Error(t, s.Revalidate(g.Ctx))
	require.Eventually(t, func() bool { return strings.Contains(seen(t, s, nil), "Available to Inaccessible") },
		time.Minute, time.Millisecond)

	text := seen(t, s, nil)
	require.Equal(t, 1, strings.Count(text, "the role is missing"), text)
	require.Contains(t, text, "Cause: vault: unwrapKey orders/"+g.Key.Version[:8]+"…: access denied: the role is missing")
	require.Contains(t, text, "Available to Inaccessible: the vault denies access (above)")
	require.Equal(t, 1, strings.Count(text, "https://contoso.vault.azure.net"), "the vault is named once")
	require.NotRegexp(t, "[0-9a-f]{32}", text)

	page := body(t, fetch(blockhttp.Handler(s, nil), "GET", "/"))
	for _, whole := range []string{s.StoreID().String(), s.Instance(), g.Key.String(), html.EscapeString(s.State().Cause.Error())} {
		require.Regexp(t, "</summary>(?s:.*)<dd>(<code>)?"+regexp.QuoteMeta(whole)+"<", page, "in full, below")
	}
	require.Equal(t, s.State().Cause.Error(), lookAtState(t, s, nil).Cause, "the JSON has all of it")
}

// Pages of several stores are told apart by title and heading.
func TestPageHasAName(t *testing.T) {
	g := storerig.New(t)
	s := g.Open()
	for _, c := range []struct {
		opts *blockhttp.Options
		name string
	}{
		{nil, s.Instance()[:8]},
		{&blockhttp.Options{Name: "orders <eu>"}, "orders &lt;eu&gt;"},
	} {
		page := body(t, fetch(blockhttp.Handler(s, c.opts), "GET", "/"))
		require.Contains(t, page, "<title>"+c.name+": Available - blockseal</title>")
		require.Contains(t, page, "<h1>"+c.name+"</h1>")
	}
}

// The runbook is a link where somebody said where runbooks are, and a name where not. What
// is no address of a page is no link that does something.
func TestPageLinksToTheRunbook(t *testing.T) {
	g := storerig.New(t)
	s := g.Open()
	g.Vault.SetDates(g.Key, time.Time{}, storerig.Start().Add(-time.Hour))
	require.Error(t, s.Revalidate(g.Ctx))
	for _, c := range []struct{ base, page string }{
		{"", "“An expired key” in docs/operations.md"},
		{"https://wiki.example/blockseal/operations.md", `<a href="https://wiki.example/blockseal/operations.md#an-expired-key" rel="noreferrer">An expired key</a>`},
		{"/runbooks", `<a href="/runbooks#an-expired-key" rel="noreferrer">An expired key</a>`},
		{"javascript:alert(1)", "“An expired key” in docs/operations.md"},
		{"https://wiki.example/%zz", "“An expired key” in docs/operations.md"},
	} {
		require.Contains(t, body(t, fetch(blockhttp.Handler(s, &blockhttp.Options{Runbooks: c.base}), "GET", "/")), c.page)
	}
	require.Equal(t, "https://wiki.example/#an-expired-key", lookAtState(t, s, &blockhttp.Options{Runbooks: "https://wiki.example/"}).RunbookLink)
	require.Empty(t, lookAtState(t, s, nil).RunbookLink)
	require.Empty(t, lookAtState(t, s, &blockhttp.Options{Runbooks: "javascript:alert(1)"}).RunbookLink)
}

// The page loads anew by itself, and stops where somebody wants to read.
func TestPageStandsStill(t *testing.T) {
	h := blockhttp.Handler(storerig.New(t).Open(), nil)
	const refresh = `http-equiv="refresh"`
	require.Contains(t, body(t, fetch(h, "GET", "/")), refresh)
	require.NotContains(t, body(t, fetch(h, "GET", "/?still")), refresh)
}
