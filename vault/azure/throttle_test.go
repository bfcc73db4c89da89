package azure_test

import (
	"context"
	"net/http"
	"slices"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/Azure/azure-sdk-for-go/sdk/azcore/policy"
	"github.com/stretchr/testify/require"

	"github.com/blockseal/blockseal/internal/keyvaulttest"
	"github.com/blockseal/blockseal/vault"
	"github.com/blockseal/blockseal/vault/azure"
)

// sends notes when each request is sent. change, which may be nil, is done to answers.
type sends struct {
	*http.Client
	change func(*http.Request, *http.Response)
	mu     sync.Mutex
	at     []time.Time
}

func (s *sends) Do(r *http.Request) (*http.Response, error) {
	s.mu.Lock()
	s.at = append(s.at, time.Now())
	s.mu.Unlock()
	resp, err := s.Client.Do(r)
	if err == nil && s.change != nil {
		s.change(r, resp)
	}
	return resp, err
}

// between returns how many requests were sent after from and before to.
func (s *sends) between(from, to time.Time) (n int) {
	s.mu.Lock()
	defer s.mu.Unlock()
	for _, t := range s.at {
		if t.After(from) && t.Before(to) {
			n++
		}
	}
	return n
}

// storm is a client with azcore's own retries.
func storm(s *sends) func(*azure.Options) {
	return func(o *azure.Options) {
		o.ClientOptions.Transport = s
		o.ClientOptions.Retry = policy.RetryOptions{}
		o.Budget = 0
	}
}

// When the vault throttles, those that are under way find out, and nobody else asks: not
// while the pause lasts, whoever comes, and not all at once after it. Then all are
// served.
func TestNoRetryStorm(t *testing.T) {
	for _, retryAfter := range []string{"", "2"} {
		t.Run("Retry-After "+retryAfter, func(t *testing.T) {
			bubble(t, keyvaulttest.Options{}, func(t *testing.T, r *rig) {
				ctx := t.Context()
				cold := r.wraps(96)
				transport := &sends{Client: r.Client()}
				v := r.client(storm(transport))
				_, err := v.GetKey(ctx, r.key)
				require.NoError(t, err)
				time.Sleep(10 * time.Second)

				pause := time.Second
				if retryAfter != "" {
					pause = 2 * time.Second
				}
				remove := r.Inject(keyvaulttest.Fault{Op: "unwrapKey", Status: 429, Code: "Throttled", RetryAfter: retryAfter})
				before := r.Requests("unwrapKey")
				start := time.Now()
				var wg sync.WaitGroup
				read := func(i int) {
					if _, err := v.UnwrapKey(ctx, cold[i]); err != nil {
						t.Error(err)
					}
				}
				for i := range 64 {
					wg.Go(func() { read(i) })
				}
				time.Sleep(pause / 2)
				for i := 64; i < 96; i++ { // they come while it lasts
					wg.Go(func() { read(i) })
				}
				synctest.Wait()
				refused := r.Requests("unwrapKey") - before
				require.NotZero(t, refused)
				require.LessOrEqual(t, refused, azure.DefaultBudget/100, "what the bucket held")
				time.Sleep(pause/2 - time.Millisecond)
				require.Zero(t, transport.between(start, time.Now()), "requests during the pause")
				remove()
				wg.Wait()
				require.LessOrEqual(t, transport.between(start.Add(-time.Millisecond), start.Add(pause+time.Millisecond)),
					refused+azure.DefaultBudget/100, "a bucket when it begins, and at most one when it is over")
				require.Equal(t, 96+refused, r.Requests("unwrapKey")-before, "each that was refused asked once more")
				slices.SortFunc(transport.at, time.Time.Compare)
				last := transport.at[len(transport.at)-1]
				require.LessOrEqual(t, last.Sub(start), pause+4*time.Second)
			})
		})
	}
}

// A pause that is longer than a caller would wait is told at once, with the time that
// the vault said, and without asking.
func TestALongPauseIsTold(t *testing.T) {
	bubble(t, keyvaulttest.Options{}, func(t *testing.T, r *rig) {
		v, ctx := r.client(patient), t.Context()
		r.Inject(keyvaulttest.Fault{Op: "get", Times: 1, Status: 429, Code: "Throttled", RetryAfter: "60"})
		start := time.Now()
		_, err := v.GetKey(ctx, r.key)
		require.ErrorIs(t, err, vault.ErrThrottled)
		require.Equal(t, time.Minute, vault.RetryAfter(err))
		before := r.Requests("")
		time.Sleep(10 * time.Second)
		_, err = v.WrapKey(ctx, r.key, []byte("secret"))
		require.ErrorIs(t, err, vault.ErrThrottled)
		require.Equal(t, 50*time.Second, vault.RetryAfter(err))
		_, err = v.GetKey(vault.WithPriority(ctx), r.key)
		require.ErrorIs(t, err, vault.ErrThrottled, "nobody goes first at a closed gate")
		require.Equal(t, before, r.Requests(""))
		require.Equal(t, 10*time.Second, time.Since(start), "each at once")
		time.Sleep(20 * time.Second)
		_, err = v.GetKey(ctx, r.key)
		require.NoError(t, err, "half a minute is believed, and not more")
	})
}

// The headers that say how long, whichever of them the vault sends.
func TestRetryAfterHeaders(t *testing.T) {
	bubble(t, keyvaulttest.Options{}, func(t *testing.T, r *rig) {
		for _, tt := range []struct {
			name, value string
			want        time.Duration
		}{
			{"Retry-After", "7", 7 * time.Second},
			{"Retry-After", time.Now().Add(90 * time.Second).UTC().Format(http.TimeFormat), 90 * time.Second},
			{"retry-after-ms", "1500", 1500 * time.Millisecond},
			{"x-ms-retry-after-ms", "250", 250 * time.Millisecond},
			{"retry-after-ms", "99999999999", 24 * time.Hour},
			{"Retry-After", "99999999999", 24 * time.Hour},
			{"Retry-After", "-1", 0},
			{"retry-after-ms", "soon", 0},
			{"Retry-After", time.Now().Add(-time.Hour).UTC().Format(http.TimeFormat), 0},
		} {
			transport := &sends{Client: r.Client(), change: func(_ *http.Request, resp *http.Response) {
				if resp.StatusCode == http.StatusTooManyRequests {
					resp.Header.Set(tt.name, tt.value)
				}
			}}
			remove := r.Inject(keyvaulttest.Fault{Status: 429, Code: "Throttled"})
			_, err := r.client(func(o *azure.Options) { o.ClientOptions.Transport = transport }).GetKey(t.Context(), r.key)
			require.ErrorIs(t, err, vault.ErrThrottled)
			require.Equal(t, tt.want, vault.RetryAfter(err), "%s: %s", tt.name, tt.value)
			remove()
		}
	})
}

// Each call ends when its time is up, with what is known of why.
func TestTimeout(t *testing.T) {
	for name, tt := range map[string]struct {
		faults []keyvaulttest.Fault
		says   string
		kind   error
		code   string
	}{
		"a hang":             {[]keyvaulttest.Fault{{Hang: true}}, "no answer within 3s: context deadline exceeded", vault.ErrUnavailable, ""},
		"503, and no better": {[]keyvaulttest.Fault{{Status: 503, Code: "ServiceUnavailable"}}, "the vault service failed, try again later", vault.ErrUnavailable, "ServiceUnavailable"},
		"503, then a hang":   {[]keyvaulttest.Fault{{Status: 503, Code: "ServiceUnavailable", Times: 1}, {Hang: true}}, "the vault service failed", vault.ErrUnavailable, "ServiceUnavailable"},
		"429, then a hang":   {[]keyvaulttest.Fault{{Status: 429, Code: "Throttled", RetryAfter: "1", Times: 1}, {Hang: true}}, "too many requests to this vault", vault.ErrThrottled, "Throttled"},
	} {
		t.Run(name, func(t *testing.T) {
			bubble(t, keyvaulttest.Options{}, func(t *testing.T, r *rig) {
				v := r.client(func(o *azure.Options) {
					o.Timeout = 3 * time.Second
					o.ClientOptions.Retry = policy.RetryOptions{MaxRetries: 100, MaxRetryDelay: time.Second}
				})
				w, err := v.WrapKey(t.Context(), r.key, []byte("secret"))
				require.NoError(t, err)
				for op, call := range map[string]func(context.Context) error{
					"get":       func(ctx context.Context) error { return second(v.GetKey(ctx, r.key)) },
					"wrapKey":   func(ctx context.Context) error { return second(v.WrapKey(ctx, r.key, []byte("secret"))) },
					"unwrapKey": func(ctx context.Context) error { return second(v.UnwrapKey(ctx, w)) },
				} {
					var remove []func()
					for _, f := range tt.faults {
						remove = append(remove, r.Inject(f))
					}
					start := time.Now()
					err := call(t.Context())
					require.Equal(t, 3*time.Second, time.Since(start), op)
					require.ErrorIs(t, err, tt.kind, op)
					require.ErrorContains(t, err, tt.says, op)
					var e *vault.Error
					require.ErrorAs(t, err, &e)
					require.Equal(t, tt.code, e.Code, op)
					for _, f := range remove {
						f()
					}
					time.Sleep(time.Minute)
				}
			})
		})
	}
}
