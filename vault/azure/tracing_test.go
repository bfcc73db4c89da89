package azure_test

import (
	"context"
	"fmt"
	"strings"
	"sync"
	"testing"

	"github.com/Azure/azure-sdk-for-go/sdk/azcore/tracing"
	"github.com/stretchr/testify/require"

	"github.com/blockseal/blockseal/internal/keyvaulttest"
	"github.com/blockseal/blockseal/vault"
	"github.com/blockseal/blockseal/vault/azure"
)

// spans records what a tracer is told.
type spans struct {
	mu    sync.Mutex
	begun []string // name and, later, attributes and status
	ended int
	lost  int // spans that were begun without what the caller's context carries
}

// callers is the key of what the test puts into its context, as a span would be.
type callers struct{}

func (s *spans) provider() tracing.Provider {
	return tracing.NewProvider(func(name, version string) tracing.Tracer {
		return tracing.NewTracer(func(ctx context.Context, name string, o *tracing.SpanOptions) (context.Context, tracing.Span) {
			s.mu.Lock()
			defer s.mu.Unlock()
			i := len(s.begun)
			s.begun = append(s.begun, name)
			if ctx.Value(callers{}) != "span" {
				s.lost++
			}
			note := func(text string) {
				s.mu.Lock()
				defer s.mu.Unlock()
				s.begun[i] += " " + text
			}
			return ctx, tracing.NewSpan(tracing.SpanImpl{
				End:           func() { s.mu.Lock(); defer s.mu.Unlock(); s.ended++ },
				SetAttributes: func(attrs ...tracing.Attribute) { note(fmt.Sprint(attrs)) },
				AddEvent:      func(event string, attrs ...tracing.Attribute) { note(event + fmt.Sprint(attrs)) },
				SetStatus:     func(status tracing.SpanStatus, text string) { note(fmt.Sprint(status, text)) },
			})
		}, nil)
	}, nil)
}

// With a tracing provider in the client's options there is a span for each operation and
// each request, retries too, and no secret in any.
func TestTracing(t *testing.T) {
	t.Parallel()
	r := newRig(t, nil)
	s := &spans{}
	v := r.client(retries, func(o *azure.Options) { o.ClientOptions.TracingProvider = s.provider() })
	ctx := context.WithValue(t.Context(), callers{}, "span")
	const secret = "do not trace this secret"
	w, err := v.WrapKey(ctx, r.key.Versionless(), []byte(secret))
	require.NoError(t, err)
	r.Inject(keyvaulttest.Fault{Op: "unwrapKey", Times: 1, Status: 503, Code: "ServiceUnavailable"})
	got, err := v.UnwrapKey(ctx, w)
	require.NoError(t, err)
	require.Equal(t, secret, string(got))
	r.setEnabled(false)
	_, err = v.UnwrapKey(ctx, w)
	require.ErrorIs(t, err, vault.ErrKeyDisabled)

	s.mu.Lock()
	defer s.mu.Unlock()
	require.Equal(t, len(s.begun), s.ended)
	require.Zero(t, s.lost, "each span is a child of the caller's")
	names := map[string]int{}
	for _, span := range s.begun {
		name, _, _ := strings.Cut(strings.TrimPrefix(span, "HTTP "), " ")
		names[name]++
		for _, no := range []string{secret, "eyJ", "Bearer", "ZG8gbm90IHRyYWNl"} {
			require.NotContains(t, span, no)
		}
	}
	require.Equal(t, 1, names["Client.WrapKey"], s.begun)
	require.Equal(t, 2, names["Client.UnwrapKey"], s.begun)
	require.GreaterOrEqual(t, names["POST"], 4, "with a request for each retry")
	require.Contains(t, strings.Join(s.begun, "\n"), "403", "the status of the one that failed")
}
