package keyring_test

import (
	"context"
	"errors"
	"log/slog"
	"os"
	"regexp"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/blockseal/blockseal/internal/inner"
	"github.com/blockseal/blockseal/keyring"
)

// attributes is a slog.Handler that notes the names of attributes.
type attributes struct {
	mu    sync.Mutex
	names []string
	last  string
}

func (h *attributes) Enabled(context.Context, slog.Level) bool { return true }
func (h *attributes) WithAttrs([]slog.Attr) slog.Handler       { return h }
func (h *attributes) WithGroup(string) slog.Handler            { return h }

func (h *attributes) Handle(_ context.Context, r slog.Record) error {
	h.mu.Lock()
	defer h.mu.Unlock()
	h.last, h.names = r.Message, nil
	r.Attrs(func(a slog.Attr) bool {
		h.names = append(h.names, a.Key)
		return true
	})
	return nil
}

// docs/metrics.md lists the kinds of events and the attributes of their records,
// and no others.
func TestEveryLogRecordIsDocumented(t *testing.T) {
	file, err := os.ReadFile("../docs/metrics.md")
	require.NoError(t, err)
	_, doc, ok := strings.Cut(string(file), "## Log records")
	require.True(t, ok)
	doc, _, _ = strings.Cut(doc, "\n## ")
	kinds, attrs, ok := strings.Cut(doc, "| attribute |")
	require.True(t, ok)

	var want []string
	for k := keyring.EventKind(1); !strings.HasPrefix(k.String(), "EventKind("); k++ {
		want = append(want, k.String())
	}
	var have []string
	for _, m := range regexp.MustCompile("(?m)^\\| `([A-Za-z]+)` \\|").FindAllStringSubmatch(kinds, -1) {
		have = append(have, m[1])
	}
	require.Equal(t, want, have)

	g := newRig(t)
	h := &attributes{}
	g.opts.Logger = slog.New(h)
	r := g.create()
	r.For(inner.Block{}).Emit(keyring.Event{Kind: keyring.Progressed, From: keyring.Available, To: keyring.Degraded, Err: errors.New("e"),
		Key: g.key, Epoch: 1, Left: time.Hour, Duration: time.Second, Detail: "d"})
	require.Eventually(t, func() bool {
		h.mu.Lock()
		defer h.mu.Unlock()
		return h.last == "blockseal: Progressed"
	}, time.Minute, time.Millisecond)
	h.mu.Lock()
	want = slices.Sorted(slices.Values(h.names))
	h.mu.Unlock()
	have = nil
	for _, line := range strings.Split(attrs, "\n") {
		if cell, _, ok := strings.Cut(strings.TrimPrefix(line, "| "), " |"); ok && strings.HasPrefix(line, "| `") {
			for _, m := range regexp.MustCompile("`([a-z]+)`").FindAllStringSubmatch(cell, -1) {
				have = append(have, m[1])
			}
		}
	}
	require.Equal(t, want, slices.Sorted(slices.Values(have)))
}
