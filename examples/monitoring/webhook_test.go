package main

import (
	"bytes"
	"io"
	"log/slog"
	"net/http"
	"net/http/httptest"
	"sync/atomic"
	"testing"
	"time"

	"github.com/prometheus/client_golang/prometheus/testutil"
	"github.com/stretchr/testify/require"

	"github.com/blockseal/blockseal/keyring"
)

func discard() *slog.Logger { return slog.New(slog.DiscardHandler) }

// quick is a retry for tests.
func quick() retry {
	return retry{attempts: 3, timeout: 100 * time.Millisecond, first: time.Millisecond, most: 2 * time.Millisecond, drain: 5 * time.Second}
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
			var attempts atomic.Int64
			server := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
				c.answer(attempts.Add(1), w, r)
			}))
			defer server.Close()
			var log bytes.Buffer
			n := newNotifier(server.URL+"/token-4711", slog.New(slog.NewTextHandler(&log, nil)), quick())
			n.send(keyring.Event{Kind: keyring.StateChanged, To: keyring.Degraded})
			n.Close()
			require.Equal(t, c.want, results(n))
			require.Equal(t, c.attempts, attempts.Load())
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

// As long as the webhook does not answer, the newest messages wait, and Close ends
// in its time.
func TestWebhookDropsTheOldest(t *testing.T) {
	release := make(chan struct{})
	server := httptest.NewServer(http.HandlerFunc(func(http.ResponseWriter, *http.Request) { <-release }))
	defer server.Close()
	r := quick()
	r.timeout, r.drain = time.Minute, 20*time.Millisecond
	n := newNotifier(server.URL, discard(), r)
	for range 10 * waiting {
		n.send(keyring.Event{Kind: keyring.StateChanged})
	}
	got := results(n)
	require.GreaterOrEqual(t, got[2], 9*waiting-1)
	began := time.Now()
	n.Close()
	require.Less(t, time.Since(began), 5*time.Second)
	n.send(keyring.Event{Kind: keyring.StateChanged}) // to nobody
	close(release)
}
