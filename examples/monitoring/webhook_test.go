package main

import (
	"bytes"
	"encoding/json"
	"errors"
	"io"
	"log/slog"
	"net/http"
	"net/http/httptest"
	"sync/atomic"
	"testing"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/client_golang/prometheus/testutil"
	"github.com/stretchr/testify/require"

	"github.com/blockseal/blockseal/keyring"
	"github.com/blockseal/blockseal/vault"
	"github.com/blockseal/blockseal/vault/audit"
)

func discard() *slog.Logger { return slog.New(slog.DiscardHandler) }

// quick is a retry for tests. What a busy machine makes slow does not time out.
func quick() retry {
	return retry{attempts: 3, timeout: time.Minute, first: time.Millisecond, most: 2 * time.Millisecond, drain: time.Minute}
}

// counted counts requests where they are made: one that times out may not get anywhere.
type counted struct{ n atomic.Int64 }

func (c *counted) RoundTrip(r *http.Request) (*http.Response, error) {
	c.n.Add(1)
	return http.DefaultTransport.RoundTrip(r)
}

// results are what a notifier has counted: delivered, failed, dropped.
func results(n *notifier) [3]int {
	count := func(result string) int { return int(testutil.ToFloat64(n.counts.WithLabelValues(result))) }
	return [3]int{count("delivered"), count("failed"), count("dropped")}
}

func TestWebhookTriesAgainWithinBounds(t *testing.T) {
	for _, c := range []struct {
		name     string
		answer   func(attempt int64, w http.ResponseWriter, r *http.Request)
		attempts int64
		want     [3]int
	}{
		{"at once", func(int64, http.ResponseWriter, *http.Request) {}, 1, [3]int{1, 0, 0}},
		{"after two errors", func(n int64, w http.ResponseWriter, _ *http.Request) {
			if n < 3 {
				w.WriteHeader(http.StatusBadGateway)
			}
		}, 3, [3]int{1, 0, 0}},
		{"throttled once", func(n int64, w http.ResponseWriter, _ *http.Request) {
			if n == 1 {
				w.WriteHeader(http.StatusTooManyRequests)
			}
		}, 2, [3]int{1, 0, 0}},
		{"never", func(_ int64, w http.ResponseWriter, _ *http.Request) { w.WriteHeader(http.StatusInternalServerError) }, 3, [3]int{0, 1, 0}},
		{"refused", func(_ int64, w http.ResponseWriter, _ *http.Request) { w.WriteHeader(http.StatusForbidden) }, 1, [3]int{0, 1, 0}},
		{"sent elsewhere", func(_ int64, w http.ResponseWriter, r *http.Request) {
			http.Redirect(w, r, "/elsewhere", http.StatusTemporaryRedirect)
		}, 1, [3]int{0, 1, 0}},
		{"no answer", func(_ int64, _ http.ResponseWriter, r *http.Request) {
			io.Copy(io.Discard, r.Body) // only then is the end of the connection noticed
			<-r.Context().Done()
		}, 3, [3]int{0, 1, 0}},
	} {
		t.Run(c.name, func(t *testing.T) {
			var attempts counted
			server := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
				c.answer(attempts.n.Load(), w, r)
			}))
			defer server.Close()
			var log bytes.Buffer
			limits := quick()
			if c.name == "no answer" {
				limits.timeout = 100 * time.Millisecond
			}
			n := newNotifier(server.URL+"/token-4711", slog.New(slog.NewTextHandler(&log, nil)), limits)
			n.client.Transport = &attempts
			n.send(keyring.Event{Kind: keyring.StateChanged, To: keyring.Degraded})
			n.Close()
			require.Equal(t, c.want, results(n))
			require.Equal(t, c.attempts, attempts.n.Load())
			require.NotContains(t, log.String(), "4711", "the URL is a secret")
			if c.want[1] > 0 {
				require.Contains(t, log.String(), "was not delivered")
			}
		})
	}
}

func TestWebhookThatIsNotThere(t *testing.T) {
	var log bytes.Buffer
	n := newNotifier("http://127.0.0.1:1/token-4711", slog.New(slog.NewTextHandler(&log, nil)), quick())
	n.send(keyring.Event{Kind: keyring.StateChanged})
	n.Close()
	require.Equal(t, [3]int{0, 1, 0}, results(n))
	require.Contains(t, log.String(), "refused")
	require.NotContains(t, log.String(), "4711")
}

// As long as the webhook does not answer, the newest messages wait; Close ends without
// an answer, and what it cuts off is counted.
func TestWebhookDropsTheOldest(t *testing.T) {
	release, asked := make(chan struct{}), make(chan struct{}, 1)
	server := httptest.NewServer(http.HandlerFunc(func(http.ResponseWriter, *http.Request) {
		asked <- struct{}{}
		<-release
	}))
	defer server.Close()
	defer close(release)
	r := quick()
	r.timeout, r.drain = time.Hour, time.Millisecond
	var log bytes.Buffer
	n := newNotifier(server.URL, slog.New(slog.NewTextHandler(&log, nil)), r)
	n.send(keyring.Event{Kind: keyring.StateChanged})
	<-asked // the first is not in the queue any more
	for range 10 * waiting {
		n.send(keyring.Event{Kind: keyring.StateChanged})
	}
	require.Equal(t, [3]int{0, 0, 9 * waiting}, results(n))
	n.Close()
	require.Equal(t, [3]int{0, 1, 10 * waiting}, results(n))
	require.Contains(t, log.String(), "dropped=64")
	n.send(keyring.Event{Kind: keyring.StateChanged}) // to nobody
	require.Equal(t, [3]int{0, 1, 10*waiting + 1}, results(n))
}

// A message says what an engineer on call has to know of its event.
func TestMessages(t *testing.T) {
	at := time.Date(2026, 3, 1, 13, 0, 0, 0, time.FixedZone("", 3600))
	key := vault.KeyID{Vault: "v", Name: "k", Version: "1"}
	for _, c := range []struct {
		event keyring.Event
		want  string
	}{
		{keyring.Event{Kind: keyring.StateChanged, Time: at, Store: "s", From: keyring.Available, To: keyring.Degraded, Err: errors.New("no answer")},
			`{"event":"StateChanged","time":"2026-03-01T12:00:00Z","store":"s","from":"Available","to":"Degraded","reason":"no answer"}`},
		{keyring.Event{Kind: keyring.KeyNearExpiry, Time: at, Store: "s", Key: key, Left: 36 * time.Hour},
			`{"event":"KeyNearExpiry","time":"2026-03-01T12:00:00Z","store":"s","key":"` + key.String() + `","leftHours":36}`},
		{keyring.Event{Kind: keyring.CopyKEKNotChanged, Time: at, Store: "s", Key: key, Detail: "/copies/monday", Err: errors.New("not there")},
			`{"event":"CopyKEKNotChanged","time":"2026-03-01T12:00:00Z","store":"s","key":"` + key.String() + `","detail":"/copies/monday","reason":"not there"}`},
	} {
		got, err := json.Marshal(newMessage(c.event))
		require.NoError(t, err)
		require.JSONEq(t, c.want, string(got))
	}
}

func TestMetricsFollowConventions(t *testing.T) {
	log, err := audit.OpenDir(t.TempDir(), nil)
	require.NoError(t, err)
	defer log.Close()
	n := newNotifier("http://127.0.0.1:1/", discard(), quick())
	defer n.Close()
	for want, c := range map[string]prometheus.Collector{"blockseal_audit_lost_records_total": auditCollector{log}, "monitoring_webhook_messages_total": n} {
		require.Positive(t, testutil.CollectAndCount(c, want))
		problems, err := testutil.CollectAndLint(c)
		require.NoError(t, err)
		require.Empty(t, problems)
	}
}
