package azure_test

import (
	"context"
	"net/http"
	"testing"
	"testing/synctest"
	"time"

	"github.com/Azure/azure-sdk-for-go/sdk/azcore/policy"
	"github.com/cockroachdb/pebble/v2/vfs"
	"github.com/stretchr/testify/require"

	"github.com/blockseal/blockseal/block"
	"github.com/blockseal/blockseal/internal/keyvaulttest"
	"github.com/blockseal/blockseal/kek"
	"github.com/blockseal/blockseal/keyring"
	"github.com/blockseal/blockseal/vault"
	"github.com/blockseal/blockseal/vault/azure"
)

// patient has azcore's own retries, which wait between tries.
func patient(o *azure.Options) { o.ClientOptions.Retry = policy.RetryOptions{} }

// troubles are what a call can be in the middle of when its caller gives up.
var troubles = map[string]keyvaulttest.Fault{
	"a hang":                   {Hang: true},
	"a 429":                    {Status: 429, Code: "Throttled"},
	"a 429 with a Retry-After": {Status: 429, Code: "Throttled", RetryAfter: "4"},
	"a 503":                    {Status: 503, Code: "ServiceUnavailable"},
	"a 503 with a Retry-After": {Status: 503, Code: "ServiceUnavailable", RetryAfter: "4"},
}

// A call ends in the moment in which its caller gives up, whatever it is in the middle
// of, and says why. In a bubble a moment is one.
func TestACallEndsWithItsCaller(t *testing.T) {
	for name, fault := range troubles {
		t.Run(name, func(t *testing.T) {
			bubble(t, keyvaulttest.Options{}, func(t *testing.T, r *rig) {
				v := r.client(patient)
				w, err := v.WrapKey(t.Context(), r.key, []byte("secret"))
				require.NoError(t, err)
				r.Inject(fault)
				for op, call := range map[string]func(context.Context) error{
					"get":       func(ctx context.Context) error { return second(v.GetKey(ctx, r.key)) },
					"wrapKey":   func(ctx context.Context) error { return second(v.WrapKey(ctx, r.key, []byte("secret"))) },
					"unwrapKey": func(ctx context.Context) error { return second(v.UnwrapKey(ctx, w)) },
				} {
					ctx, cancel := context.WithCancel(t.Context())
					before := r.Requests(op)
					done := make(chan error, 1)
					go func() { done <- call(ctx) }()
					time.Sleep(100 * time.Millisecond)
					start := time.Now()
					cancel()
					err := <-done
					require.Zero(t, time.Since(start), op)
					require.ErrorIs(t, err, context.Canceled, op)
					require.ErrorIs(t, err, vault.ErrUnavailable, op)
					sent := r.Requests(op) - before
					require.Equal(t, 1, sent, op)
					time.Sleep(20 * time.Second)
					require.Equal(t, sent, r.Requests(op)-before, "nothing goes on for nobody")
				}
			})
		})
	}
}

// stuck is a transport that does not notice when its caller gives up.
type stuck struct {
	*http.Client
	until chan struct{} // nil: it is not stuck
}

func (s *stuck) Do(r *http.Request) (*http.Response, error) {
	if s.until != nil {
		<-s.until
	}
	return s.Client.Do(r)
}

// So does one whose transport does not end it. WrapKey is made in the caller's goroutine
// and depends on the transport; a keyring leaves it behind.
func TestACallEndsWithItsCallerBeforeItsTransport(t *testing.T) {
	bubble(t, keyvaulttest.Options{}, func(t *testing.T, r *rig) {
		transport := &stuck{Client: r.Client()}
		v := r.client(func(o *azure.Options) { o.ClientOptions.Transport = transport })
		w, err := v.WrapKey(t.Context(), r.key, []byte("secret"))
		require.NoError(t, err)
		transport.until = make(chan struct{})
		for _, call := range []func(context.Context) error{
			func(ctx context.Context) error { return second(v.GetKey(ctx, r.key)) },
			func(ctx context.Context) error { return second(v.UnwrapKey(ctx, w)) },
		} {
			ctx, cancel := context.WithTimeout(t.Context(), time.Second)
			start := time.Now()
			require.ErrorIs(t, call(ctx), context.DeadlineExceeded)
			require.Equal(t, time.Second, time.Since(start))
			cancel()
		}
		close(transport.until)
		synctest.Wait()
		transport.until = nil
		require.NoError(t, second(v.UnwrapKey(t.Context(), w)))
	})
}

// So does one that waits for its turn.
func TestACallEndsInTheQueue(t *testing.T) {
	bubble(t, keyvaulttest.Options{}, func(t *testing.T, r *rig) {
		cold := r.wraps(8)
		v := r.client(func(o *azure.Options) { o.Budget = azure.MinBudget })
		require.NoError(t, second(v.GetKey(t.Context(), r.key)))
		time.Sleep(10 * time.Second)
		before := r.Requests("unwrapKey")
		ctx, cancel := context.WithCancel(t.Context())
		done := make(chan error, len(cold))
		for _, w := range cold {
			go func() { done <- second(v.UnwrapKey(ctx, w)) }()
		}
		time.Sleep(time.Second)
		sent := r.Requests("unwrapKey") - before
		require.Less(t, sent, 4)
		cancel()
		synctest.Wait()
		require.Len(t, done, len(cold))
		time.Sleep(time.Minute)
		require.Equal(t, sent, r.Requests("unwrapKey")-before)
	})
}

// A store closes in the moment in which it is told to, with whatever it and its callers
// are in the middle of at the vault.
func TestAStoreClosesAtOnce(t *testing.T) {
	for name, fault := range troubles {
		t.Run(name, func(t *testing.T) {
			bubble(t, keyvaulttest.Options{}, func(t *testing.T, r *rig) {
				ctx := t.Context()
				s, err := block.Open(ctx, "store", kek.New(r.client(patient), r.key.Versionless()), &block.Options{
					Pebble: block.PebbleOptions{FS: vfs.NewMem(), MemTable: 1 << 20, BlockCache: 1 << 20}, Keyring: keyring.Options{Clock: vault.SystemClock(), Wrapping: keyring.ByKEK, DEKCache: -1}})
				require.NoError(t, err)
				require.NoError(t, s.Put(ctx, []byte("a"), []byte("data")))
				r.Inject(fault)
				ended := make(chan error, 3)
				go func() { ended <- s.Revalidate(ctx) }()
				go func() { ended <- s.Put(ctx, []byte("b"), []byte("data")) }()
				go func() { ended <- second(s.Get(ctx, []byte("a"), nil)) }()
				time.Sleep(100 * time.Millisecond)
				require.Empty(t, ended)
				start := time.Now()
				require.NoError(t, s.Close())
				for range cap(ended) {
					require.Error(t, <-ended)
				}
				require.Zero(t, time.Since(start))
				sent := r.Requests("")
				time.Sleep(time.Minute)
				require.Equal(t, sent, r.Requests(""))
			})
		})
	}
}
