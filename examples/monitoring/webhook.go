package main

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net/http"
	"net/url"
	"sync"
	"time"

	"github.com/prometheus/client_golang/prometheus"

	"github.com/blockseal/blockseal/keyring"
)

// message is what the webhook gets. It has no secrets: an event has none.
type message struct {
	Event     string    `json:"event"` // the kind, such as StateChanged
	Time      time.Time `json:"time"`
	Store     string    `json:"store"`
	From      string    `json:"from,omitempty"`
	To        string    `json:"to,omitempty"`
	Key       string    `json:"key,omitempty"`
	LeftHours float64   `json:"leftHours,omitempty"` // to the key's expiry
	Detail    string    `json:"detail,omitempty"`    // the copy, for one that could not be moved
	Reason    string    `json:"reason,omitempty"`
}

func newMessage(e keyring.Event) message {
	m := message{Event: e.Kind.String(), Time: e.Time.UTC(), Store: e.Store, LeftHours: e.Left.Hours(), Detail: e.Detail}
	if e.To != 0 {
		m.From, m.To = e.From.String(), e.To.String()
	}
	if e.Key.Name != "" {
		m.Key = e.Key.String()
	}
	if e.Err != nil {
		m.Reason = e.Err.Error()
	}
	return m
}

// retry bounds how hard a notifier tries.
type retry struct {
	attempts int           // for one message
	timeout  time.Duration // of one attempt
	first    time.Duration // the pause after the first attempt; it doubles
	most     time.Duration // the longest pause
	drain    time.Duration // how long Close goes on trying
}

func defaultRetry() retry {
	return retry{attempts: 6, timeout: 5 * time.Second, first: time.Second, most: 30 * time.Second, drain: 5 * time.Second}
}

// waiting is how many messages wait while the webhook does not answer. The oldest
// are dropped: what is news is what the state is now.
const waiting = 64

// notifier posts messages, one at a time and in order, on a goroutine of its own. It
// is safe for concurrent use, and is itself the collector of its metrics.
//
// The URL of a webhook often has a token in it. It is in no log record and no error.
type notifier struct {
	url    string
	client *http.Client
	retry  retry
	log    *slog.Logger
	counts *prometheus.CounterVec

	mu    sync.Mutex
	queue []message
	wake  chan struct{} // has one element if there may be something in the queue
	over  bool          // closed: nothing more comes

	ctx    context.Context
	cancel context.CancelFunc
	done   chan struct{}
}

func newNotifier(url string, log *slog.Logger, r retry) *notifier {
	n := &notifier{url: url, retry: r, log: log, wake: make(chan struct{}, 1), done: make(chan struct{}),
		client: &http.Client{Timeout: r.timeout,
			// A redirect would take the message to somebody else.
			CheckRedirect: func(*http.Request, []*http.Request) error { return http.ErrUseLastResponse }},
		counts: prometheus.NewCounterVec(prometheus.CounterOpts{Name: "monitoring_webhook_messages_total",
			Help: "Messages to the webhook, by what became of them: delivered, failed, or dropped before they were tried."}, []string{"result"}),
	}
	for _, result := range []string{"delivered", "failed", "dropped"} {
		n.counts.WithLabelValues(result)
	}
	n.ctx, n.cancel = context.WithCancel(context.Background())
	go n.run()
	return n
}

// Describe implements [prometheus.Collector].
func (n *notifier) Describe(ch chan<- *prometheus.Desc) { n.counts.Describe(ch) }

// Collect implements [prometheus.Collector].
func (n *notifier) Collect(ch chan<- prometheus.Metric) { n.counts.Collect(ch) }

// send queues a message. It never waits.
func (n *notifier) send(e keyring.Event) {
	n.mu.Lock()
	defer n.mu.Unlock()
	if n.over {
		n.counts.WithLabelValues("dropped").Inc()
		return
	}
	if len(n.queue) == waiting {
		n.queue = n.queue[1:]
		n.counts.WithLabelValues("dropped").Inc()
	}
	n.queue = append(n.queue, newMessage(e))
	n.signal()
}

func (n *notifier) signal() {
	select {
	case n.wake <- struct{}{}:
	default:
	}
}

// Close delivers what waits, for a moment, and ends. What is left is dropped.
func (n *notifier) Close() {
	n.mu.Lock()
	n.over = true
	n.signal()
	n.mu.Unlock()
	select {
	case <-n.done:
	case <-time.After(n.retry.drain):
	}
	n.cancel()
	<-n.done
	n.mu.Lock()
	defer n.mu.Unlock()
	if left := len(n.queue); left > 0 {
		n.queue = nil
		n.counts.WithLabelValues("dropped").Add(float64(left))
		// Nobody may come for the counter any more.
		n.log.Warn("webhook: closed before all messages were tried", "dropped", left)
	}
}

func (n *notifier) run() {
	defer close(n.done)
	for {
		n.mu.Lock()
		over := n.over
		var next *message
		if len(n.queue) > 0 {
			next = &n.queue[0]
			n.queue = n.queue[1:]
		}
		n.mu.Unlock()
		switch {
		case next != nil:
			n.deliver(*next)
		case over:
			return
		default:
			<-n.wake // Close signals too
		}
		if n.ctx.Err() != nil {
			return
		}
	}
}

// deliver tries as often as it may.
func (n *notifier) deliver(m message) {
	body, err := json.Marshal(m)
	pause := n.retry.first
	for attempt := 1; err == nil; attempt++ {
		var again bool
		if again, err = n.post(body); err == nil {
			n.counts.WithLabelValues("delivered").Inc()
			return
		}
		if !again || attempt >= n.retry.attempts {
			break
		}
		select {
		case <-time.After(pause):
		case <-n.ctx.Done():
			err = context.Cause(n.ctx)
			continue
		}
		pause, err = min(2*pause, n.retry.most), nil
	}
	n.counts.WithLabelValues("failed").Inc()
	n.log.Warn("webhook: a message was not delivered", "event", m.Event, "error", err)
}

// post makes one attempt, and says whether another makes sense.
func (n *notifier) post(body []byte) (again bool, err error) {
	r, err := http.NewRequestWithContext(n.ctx, http.MethodPost, n.url, bytes.NewReader(body))
	if err != nil {
		return false, errors.New("the URL cannot be used")
	}
	r.Header.Set("Content-Type", "application/json")
	resp, err := n.client.Do(r)
	if err != nil {
		var u *url.Error
		if errors.As(err, &u) {
			err = u.Err // without the URL
		}
		return n.ctx.Err() == nil, err
	}
	defer resp.Body.Close()
	io.Copy(io.Discard, io.LimitReader(resp.Body, 64<<10)) // so that the connection is used again
	switch {
	case resp.StatusCode/100 == 2:
		return false, nil
	case resp.StatusCode/100 == 5, resp.StatusCode == http.StatusTooManyRequests, resp.StatusCode == http.StatusRequestTimeout:
		return true, fmt.Errorf("the webhook answered %d", resp.StatusCode)
	}
	return false, fmt.Errorf("the webhook answered %d", resp.StatusCode)
}
