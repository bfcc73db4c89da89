package keyring_test

import (
	"bytes"
	"fmt"
	"log/slog"
	"slices"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/blockseal/blockseal/internal/inner"
	"github.com/blockseal/blockseal/kek"
	"github.com/blockseal/blockseal/keyring"
	"github.com/blockseal/blockseal/vault"
	"github.com/blockseal/blockseal/vault/vaulttest"
)

// ear collects events.
type ear struct {
	mu  sync.Mutex
	all []keyring.Event
}

func (g *rig) listen() *ear {
	e := &ear{}
	g.opts.OnEvent = func(ev keyring.Event) {
		e.mu.Lock()
		defer e.mu.Unlock()
		e.all = append(e.all, ev)
	}
	return e
}

// take returns the events of the given kinds, or all, since the last take.
func (e *ear) take(kinds ...keyring.EventKind) (out []keyring.Event) {
	synctest.Wait()
	e.mu.Lock()
	defer e.mu.Unlock()
	for _, ev := range e.all {
		for _, k := range kinds {
			if ev.Kind == k {
				out = append(out, ev)
			}
		}
		if len(kinds) == 0 {
			out = append(out, ev)
		}
	}
	e.all = nil
	return out
}

// The story of an outage and a revocation, told in order.
func TestEventsInOrder(t *testing.T) {
	bubble(t, func(t *testing.T, g *rig) {
		e := g.listen()
		r := g.create()
		story := func() (lines []string) {
			for _, ev := range e.take() {
				require.Equal(t, r.StoreID().String(), ev.Store)
				line := ev.Kind.String()
				if ev.Kind == keyring.StateChanged {
					line = fmt.Sprintf("%v to %v", ev.From, ev.To)
				}
				if kind := vault.Kind(ev.Err); kind != nil {
					line += ": " + kind.Error()
				}
				if !slices.Contains(lines, line) { // a check may have been repeated
					lines = append(lines, line)
				}
			}
			return lines
		}
		require.Equal(t, []string{"Inaccessible to Available"}, story())
		g.pass(3 * time.Minute)
		require.Equal(t, []string{"CheckSucceeded"}, story())
		g.vault.SetOutage(vaulttest.NetworkGone())
		g.pass(3 * time.Minute)
		require.Equal(t, []string{"CheckFailed: vault unavailable", "Available to Degraded: vault unavailable"}, story())
		g.pass(10 * time.Minute)
		require.Equal(t, []string{"CheckFailed: vault unavailable", "Degraded to Inaccessible: vault unavailable"}, story())
		g.vault.SetOutage(nil)
		g.pass(time.Minute)
		require.Equal(t, []string{"Inaccessible to Available", "CheckSucceeded"}, story())
		g.vault.SetEnabled(g.key, false)
		g.pass(time.Minute)
		require.Equal(t, []string{"CheckFailed: key disabled", "Available to Inaccessible: key disabled"}, story())
		g.vault.Delete(g.key.Name)
		g.pass(time.Minute)
		require.Equal(t, []string{"CheckFailed: key deleted", "Inaccessible to Inaccessible: key deleted"}, story(), "a new reason is news")
		require.NoError(t, r.Close())
		require.Equal(t, []string{"Inaccessible to Closed"}, story())
		require.Zero(t, r.State().DroppedEvents)
	})
}

// OnEvent is called by one goroutine at a time, may call the keyring, and gets what
// was sent before in the order in which it was sent.
func TestEventsFromManyGoroutines(t *testing.T) {
	bubble(t, func(t *testing.T, g *rig) {
		const senders, each = 4, 100
		var r *keyring.Keyring
		busy := make(chan struct{}, 1)
		next := map[string]int{}
		g.opts.OnEvent = func(ev keyring.Event) {
			select {
			case busy <- struct{}{}:
			default:
				t.Error("called while it runs")
				return
			}
			defer func() { <-busy }()
			if ev.Kind != keyring.Progressed {
				return
			}
			var who string
			var n int
			_, err := fmt.Sscanf(ev.Detail, "%s %d", &who, &n)
			if err != nil || n != next[who] {
				t.Errorf("%q after %d", ev.Detail, next[who])
			}
			next[who]++
			r.State()
			if h, err := r.Acquire(); err == nil {
				h.Release()
			}
		}
		r = g.create()
		synctest.Wait()
		var wg sync.WaitGroup
		for s := range senders {
			wg.Go(func() {
				for n := range each {
					r.For(inner.Block{}).Emit(keyring.Event{Kind: keyring.Progressed, Detail: fmt.Sprintf("s%d %d", s, n)})
				}
			})
		}
		wg.Wait()
		synctest.Wait()
		require.Len(t, next, senders)
		for who, n := range next {
			require.Equal(t, each, n, who)
		}
	})
}

// An OnEvent that does not come back holds up nothing; what does not fit into the
// queue meanwhile is counted, and the rest comes in order.
func TestSlowListener(t *testing.T) {
	bubble(t, func(t *testing.T, g *rig) {
		const n = 5000
		release := make(chan struct{})
		var got []int
		g.opts.OnEvent = func(ev keyring.Event) {
			<-release
			if ev.Kind == keyring.Progressed {
				got = append(got, int(ev.Epoch))
			}
		}
		r := g.create()
		synctest.Wait() // it has the first event, and holds on to it
		for i := range n {
			r.For(inner.Block{}).Emit(keyring.Event{Kind: keyring.Progressed, Epoch: uint32(i)})
		}
		lost := r.State().DroppedEvents
		require.EqualValues(t, n-1024, lost)
		began := time.Now()
		g.vault.SetEnabled(g.key, false)
		g.pass(time.Minute)
		require.False(t, usable(t, r), "it locks all the same")
		g.vault.SetEnabled(g.key, true)
		require.NoError(t, r.Revalidate(t.Context()))
		require.Greater(t, r.State().DroppedEvents, lost, "and these were lost too")
		require.NoError(t, r.Close())
		require.Zero(t, time.Since(began))
		close(release)
		synctest.Wait()
		require.Len(t, got, n-int(lost))
		for i := range got {
			require.Equal(t, i, got[i], "the newest are those that are dropped")
		}
	})
}

// The logger gets what OnEvent gets, at a level that fits, on one line that says what
// to look at.
func TestEventLog(t *testing.T) {
	bubble(t, func(t *testing.T, g *rig) {
		var out bytes.Buffer
		g.opts.Logger = slog.New(slog.NewTextHandler(&out, &slog.HandlerOptions{ReplaceAttr: func(_ []string, a slog.Attr) slog.Attr {
			if a.Key == slog.TimeKey {
				return slog.Attr{}
			}
			return a
		}}))
		r := g.create()
		g.vault.SetOutage(vaulttest.NetworkGone())
		g.pass(time.Minute)
		g.vault.SetOutage(nil)
		g.vault.Revoke(vault.OpUnwrapKey)
		g.pass(time.Minute)
		require.NoError(t, r.Close())
		synctest.Wait()
		text := strings.ReplaceAll(out.String(), r.StoreID().String(), "ID")
		text = strings.ReplaceAll(text, g.key.String(), "KEY")
		text = strings.ReplaceAll(text, g.key.Versionless().String(), "KEY")
		gone := `error="vault: get KEY: vault unavailable: the vault cannot be reached, check the network: dial tcp: network is unreachable"`
		denied := `error="vault: unwrapKey KEY: access denied: the caller's identity has no role that permits it; assign one, ` +
			`such as Key Vault Crypto Service Encryption User, on the key or its vault [Forbidden/ForbiddenByRbac]"`
		require.Equal(t, strings.Join([]string{
			`level=INFO msg="blockseal: StateChanged" store=ID from=Inaccessible to=Available`,
			`level=WARN msg="blockseal: CheckFailed" store=ID key=KEY ` + gone,
			`level=WARN msg="blockseal: StateChanged" store=ID from=Available to=Degraded ` + gone,
			`level=WARN msg="blockseal: CheckFailed" store=ID key=KEY ` + denied,
			`level=ERROR msg="blockseal: StateChanged" store=ID from=Degraded to=Inaccessible ` + denied,
			`level=INFO msg="blockseal: StateChanged" store=ID from=Inaccessible to=Closed`,
		}, "\n")+"\n", text)
	})
}

// A key that is about to expire is announced 30, 7 and 1 days before, once each time.
func TestExpiryWarnings(t *testing.T) {
	const day = 24 * time.Hour
	bubble(t, func(t *testing.T, g *rig) {
		e := g.listen()
		expires := start.Add(32 * day)
		g.vault.SetDates(g.key, time.Time{}, expires)
		r := g.create()
		var left []time.Duration
		for g.clock.Now().Before(expires.Add(-time.Hour)) {
			g.clock.Step(time.Hour)
			require.NoError(t, r.Revalidate(t.Context()))
			for _, ev := range e.take(keyring.KeyNearExpiry) {
				require.Equal(t, g.key, ev.Key)
				require.Equal(t, expires.Sub(ev.Time), ev.Left)
				left = append(left, ev.Left)
			}
		}
		require.Equal(t, []time.Duration{30 * day, 7 * day, day}, left)
		// Another date is another matter.
		g.vault.SetDates(g.key, time.Time{}, g.clock.Now().Add(3*day))
		for range 5 {
			require.NoError(t, r.Revalidate(t.Context()))
		}
		warned := e.take(keyring.KeyNearExpiry)
		require.Len(t, warned, 1, "for the seven days alone: the thirty are over as well")
		require.Equal(t, 3*day, warned[0].Left)
		g.vault.SetDates(g.key, time.Time{}, g.clock.Now().Add(60*day))
		require.NoError(t, r.Revalidate(t.Context()))
		require.Empty(t, e.take(keyring.KeyNearExpiry))
		require.Equal(t, g.clock.Now().Add(60*day), r.State().KEKExpires)
	})
}

// A new version of the key is taken up by the next check; a keyring that was told to
// stay on a version stays.
func TestNewVersionIsTakenUp(t *testing.T) {
	for name, tt := range map[string]struct {
		pin, exact bool
	}{
		"by default":  {},
		"PinVersion":  {pin: true},
		"a versioned": {exact: true},
	} {
		t.Run(name, func(t *testing.T) {
			bubble(t, func(t *testing.T, g *rig) {
				e := g.listen()
				g.opts.PinVersion = tt.pin
				if tt.exact {
					g.kek = kek.New(g.vault, g.key)
				}
				r := g.create()
				generation := r.State().Generation
				g.pass(10 * time.Minute)
				require.Empty(t, e.take(keyring.KEKChanged, keyring.KEKNotChanged))
				newest := g.vault.Rotate(g.key.Name)
				g.pass(time.Minute + time.Second)
				changed := e.take(keyring.KEKChanged, keyring.KEKNotChanged)
				if tt.pin || tt.exact {
					require.Empty(t, changed)
					require.Equal(t, g.key, r.State().KEK)
					require.Equal(t, generation, r.State().Generation)
					g.vault.SetEnabled(g.key, false)
					g.pass(time.Minute)
					require.False(t, usable(t, r), "the version that it stays on is what counts")
					return
				}
				require.Len(t, changed, 1)
				require.Equal(t, keyring.KEKChanged, changed[0].Kind)
				require.Equal(t, newest, changed[0].Key)
				require.Equal(t, "a newer version", changed[0].Detail)
				require.Greater(t, changed[0].Duration, 50*time.Second, "since the check before")
				require.LessOrEqual(t, changed[0].Duration, 62*time.Second)
				require.Equal(t, newest, r.State().KEK)
				require.Equal(t, generation+1, r.State().Generation)
				g.vault.DestroyVersion(g.key)
				g.pass(20 * time.Minute)
				require.True(t, usable(t, r), "the old version is not needed")
				require.Empty(t, e.take(keyring.KEKChanged, keyring.KEKNotChanged))
				require.NoError(t, r.Close())
				r = g.open()
				require.Equal(t, keyring.Available, r.State().Status)
				require.Equal(t, newest, r.State().KEK)
			})
		})
	}
}

// A new version that will not do changes nothing but is news.
func TestNewVersionThatIsNotTakenUp(t *testing.T) {
	for name, spoil := range map[string]func(g *rig, newest vault.KeyID){
		"disabled":         func(g *rig, newest vault.KeyID) { g.vault.SetEnabled(newest, false) },
		"expired":          func(g *rig, newest vault.KeyID) { g.vault.SetDates(newest, time.Time{}, start) },
		"not yet valid":    func(g *rig, newest vault.KeyID) { g.vault.SetDates(newest, start.Add(9*time.Hour), time.Time{}) },
		"may not wrap":     func(g *rig, newest vault.KeyID) { g.vault.SetOperations(newest, vault.OpGet, vault.OpUnwrapKey) },
		"does not unwrap":  func(g *rig, newest vault.KeyID) { g.vault.SetOperations(newest, vault.OpGet, vault.OpWrapKey) },
		"cannot be stored": func(g *rig, _ vault.KeyID) { g.storage.fail = true },
	} {
		t.Run(name, func(t *testing.T) {
			bubble(t, func(t *testing.T, g *rig) {
				e := g.listen()
				r := g.create()
				newest := g.vault.Rotate(g.key.Name)
				spoil(g, newest)
				for range 3 {
					g.pass(time.Minute)
					require.Equal(t, keyring.Available, r.State().Status)
					require.Equal(t, g.key, r.State().KEK)
				}
				news := e.take(keyring.KEKChanged, keyring.KEKNotChanged)
				require.Len(t, news, 1, "once, and not at each check")
				require.Equal(t, keyring.KEKNotChanged, news[0].Kind)
				require.Equal(t, newest, news[0].Key)
				require.Error(t, news[0].Err)
				require.NoError(t, r.Close())
				require.Equal(t, keyring.Available, g.open().State().Status)
			})
		})
	}
}
