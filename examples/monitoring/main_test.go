package main

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"net/http"
	"net/http/httptest"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/cockroachdb/pebble/v2/vfs"
	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/client_golang/prometheus/promhttp"
	"github.com/stretchr/testify/require"

	"github.com/blockseal/blockseal/block"
	"github.com/blockseal/blockseal/block/blockprom"
	"github.com/blockseal/blockseal/examples/internal/cli"
	"github.com/blockseal/blockseal/examples/internal/clitest"
	"github.com/blockseal/blockseal/kek"
	"github.com/blockseal/blockseal/vault/audit"
	"github.com/blockseal/blockseal/vault/vaulttest"
)

// hook is a webhook that keeps what it gets.
type hook struct {
	mu       sync.Mutex
	messages []message
}

func (h *hook) ServeHTTP(_ http.ResponseWriter, r *http.Request) {
	var m message
	if err := json.NewDecoder(r.Body).Decode(&m); err != nil {
		panic(err)
	}
	h.mu.Lock()
	defer h.mu.Unlock()
	h.messages = append(h.messages, m)
}

func (h *hook) got() []message {
	h.mu.Lock()
	defer h.mu.Unlock()
	return slices.Clone(h.messages)
}

// The whole program: the key is taken away and given back, and page, JSON and metrics
// say so.
func TestRehearsal(t *testing.T) {
	server := httptest.NewServer(&hook{})
	defer server.Close()
	dir := t.TempDir()
	var out clitest.Output
	err := run(t.Context(), []string{"-for", "600ms", "-listen", "127.0.0.1:0", "-dir", dir, "-webhook", server.URL + "/token-4711"}, &out)
	require.NoError(t, err, out.String())
	require.Contains(t, out.String(), "rehearsed     the key was disabled and enabled")
	require.NotContains(t, out.String(), "token-4711", "the webhook's URL is a secret")
	require.NotContains(t, out.String(), passphrase)

	// The directory is there still, and opens again.
	require.NoError(t, run(t.Context(), []string{"-for", "300ms", "-listen", "127.0.0.1:0", "-dir", dir}, &out))
}

// Webhook and audit log say it too. The store tells them on a goroutine of its own, and
// closing it does not wait for what is on its way.
func TestChangesOfAccessAreTold(t *testing.T) {
	h := &hook{}
	server := httptest.NewServer(h)
	defer server.Close()
	dir := t.TempDir()
	m, err := start(t.Context(), options{listen: "127.0.0.1:0", dir: dir, webhook: server.URL}, discard())
	require.NoError(t, err)
	err = m.takeAndGiveBack(t.Context(), 0)
	if err == nil {
		require.Eventually(t, func() bool { return len(h.got()) >= 3 }, time.Minute, time.Millisecond)
	}
	require.NoError(t, errors.Join(err, m.Close()))

	var states []string
	for _, m := range h.got()[:3] {
		require.Equal(t, "StateChanged", m.Event)
		require.Len(t, m.Store, 32)
		states = append(states, m.To)
	}
	require.Equal(t, []string{"Available", "Inaccessible", "Available"}, states)
	require.Contains(t, h.got()[1].Reason, "disabled")

	log, err := audit.ReadDir(filepath.Join(dir, "audit"))
	require.NoError(t, err)
	defer log.Close()
	var events []string
	for r, err := range audit.Records(log, nil) {
		require.NoError(t, err)
		if r.Event == audit.EventState {
			events = append(events, r.Detail)
		}
	}
	require.Contains(t, events, "Available to Inaccessible")
}

// stopper is output that calls stop when it gets a text.
type stopper struct {
	text string
	stop func()
}

func (s stopper) Write(p []byte) (int, error) {
	if strings.Contains(string(p), s.text) {
		s.stop()
	}
	return len(p), nil
}

func TestItEndsWhenInterrupted(t *testing.T) {
	ctx, cancel := context.WithCancel(t.Context())
	require.NoError(t, run(ctx, []string{"-listen", "127.0.0.1:0"}, stopper{"metrics  ", cancel}))
	require.Error(t, ctx.Err())
}

func TestArguments(t *testing.T) {
	for _, args := range [][]string{
		{"-for", "-1s"}, {"-for", "soon"}, {"extra"}, {"-webhook", "ftp://host/x"}, {"-webhook", "/token"}, {"-webhook", "http://token\x7f"},
	} {
		err := run(t.Context(), args, &bytes.Buffer{})
		require.True(t, errors.Is(err, cli.ErrUsage), "%v: %v", args, err)
		require.NotContains(t, err.Error(), "token")
	}
	err := run(t.Context(), []string{"-listen", "nowhere:port"}, &bytes.Buffer{})
	require.Error(t, err)
}

// sealedMetrics are those of a DB whose files are sealed under a KEK that expires.
func sealedMetrics(t *testing.T) string {
	v := vaulttest.New(nil)
	key := v.CreateKey("files")
	v.SetDates(key, time.Time{}, time.Now().Add(240*time.Hour))
	db, err := block.OpenDB(t.Context(), "db", &block.DBOptions{FileKEK: kek.New(v, key.Versionless()), Pebble: block.PebbleOptions{FS: vfs.NewMem()}})
	require.NoError(t, err)
	defer db.Close()
	registry := prometheus.NewRegistry()
	registry.MustRegister(blockprom.NewDB(db, nil))
	w := httptest.NewRecorder()
	promhttp.HandlerFor(registry, promhttp.HandlerOpts{}).ServeHTTP(w, httptest.NewRequest("GET", "/metrics", nil))
	return w.Body.String()
}

// Each metric that a rule names is one that the program has, so that no rule waits
// for what never comes.
func TestRulesNameMetricsThatExist(t *testing.T) {
	m, err := start(t.Context(), options{listen: "127.0.0.1:0", dir: t.TempDir()}, discard())
	require.NoError(t, err)
	defer m.Close()
	_, err = m.store.Verify(t.Context(), nil) // so that there is a work that has ended
	require.NoError(t, err)
	require.NoError(t, m.store.Revalidate(t.Context())) // and a check
	metrics, err := m.fetch(t.Context(), "/metrics")
	require.NoError(t, err)
	metrics += sealedMetrics(t)
	rules, err := os.ReadFile("alerts.yml")
	require.NoError(t, err)
	exprs := regexp.MustCompile(`(?m)^\s+expr: (.+)$`).FindAllStringSubmatch(string(rules), -1)
	require.Len(t, exprs, strings.Count(string(rules), "- alert:"))
	for _, e := range exprs {
		names := regexp.MustCompile(`(blockseal_[a-z_]+)(\{[^}]*\})?`).FindAllStringSubmatch(e[1], -1)
		require.NotEmpty(t, names, e[1])
		for _, n := range names {
			require.Regexp(t, `(?m)^`+n[1]+`(\{| )`, metrics, "alerts.yml: %s", e[1])
			for _, label := range regexp.MustCompile(`[a-z]+="[a-z_]+"`).FindAllString(n[2], -1) {
				require.Regexp(t, `(?m)^`+n[1]+`\{[^}]*`+label, metrics, "alerts.yml: %s", e[1])
			}
		}
	}
}

// Each rule fires when it has to, and does not when it does not.
func TestRules(t *testing.T) {
	promtool, err := exec.LookPath("promtool")
	if err != nil {
		t.Skip("NOT TESTED: the alerting rules, because promtool is not installed (apt-get install prometheus)")
	}
	ctx, cancel := context.WithTimeout(t.Context(), 10*time.Minute)
	defer cancel()
	for _, args := range [][]string{{"check", "rules", "alerts.yml"}, {"test", "rules", "alerts_test.yml"}} {
		out, err := exec.CommandContext(ctx, promtool, args...).CombinedOutput()
		require.NoError(t, err, "%s", out)
		require.Contains(t, string(out), "SUCCESS")
	}
	// Every rule is in the test.
	rules, err := os.ReadFile("alerts.yml")
	require.NoError(t, err)
	tests, err := os.ReadFile("alerts_test.yml")
	require.NoError(t, err)
	for _, m := range regexp.MustCompile(`- alert: (\w+)`).FindAllStringSubmatch(string(rules), -1) {
		require.Regexp(t, `alertname: `+m[1]+`\n\s+exp_alerts:\s+(\[\{|- \{)`, string(tests), "%s is never seen to fire", m[1])
	}
}
