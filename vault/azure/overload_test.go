package azure_test

import (
	"context"
	"errors"
	"fmt"
	"net/http"
	"sync"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"github.com/cockroachdb/pebble/v2/vfs"
	"github.com/stretchr/testify/require"

	"github.com/blockseal/blockseal/block"
	"github.com/blockseal/blockseal/internal/keyvaulttest"
	"github.com/blockseal/blockseal/kek"
	"github.com/blockseal/blockseal/keyring"
	"github.com/blockseal/blockseal/vault"
	"github.com/blockseal/blockseal/vault/azure"
)

// wraps returns n secrets that the vault's key wrapped, at no cost to any budget.
func (r *rig) wraps(n int) (all []vault.Wrapped) {
	r.t.Helper()
	v := r.client(func(o *azure.Options) { o.WrapLocally = true })
	for i := range n {
		w, err := v.WrapKey(r.t.Context(), r.key, fmt.Appendf(nil, "secret %d", i))
		require.NoError(r.t, err)
		all = append(all, w)
	}
	return all
}

// With twice the demand that the budget permits, and callers that wait half a second,
// nearly all of the budget is of use to somebody: who would wait in vain is told so at
// once, and who gives up leaves nothing behind. The calls that keep access alive get
// through, all of them. And the vault, whose limit is the budget, throttles nobody.
func TestOverload(t *testing.T) {
	const (
		budget = 100 // in 10 seconds
		lasts  = 60  // seconds
		has    = 500 * time.Millisecond
	)
	bubble(t, keyvaulttest.Options{Limit: budget}, func(t *testing.T, r *rig) {
		ctx := t.Context()
		cold := r.wraps(64)
		v := r.client(func(o *azure.Options) { o.Budget = budget })
		_, err := v.GetKey(ctx, r.key)
		require.NoError(t, err)
		time.Sleep(10 * time.Second)
		r.Inject(keyvaulttest.Fault{Delay: 40 * time.Millisecond}) // the way there
		before := r.Requests("")

		var served, refused, late, kept atomic.Int64
		var said atomic.Value // the last refusal
		read := func(i int) {
			c, cancel := context.WithTimeout(ctx, has)
			defer cancel()
			_, err := v.UnwrapKey(c, cold[i%len(cold)])
			switch {
			case err == nil:
				served.Add(1)
			case errors.Is(err, vault.ErrThrottled):
				refused.Add(1)
				said.Store(err)
			case errors.Is(err, context.DeadlineExceeded):
				late.Add(1)
			default:
				t.Error(err)
			}
		}
		var wg sync.WaitGroup
		wg.Go(func() {
			urgent := vault.WithPriority(ctx)
			for range lasts / 5 {
				time.Sleep(5 * time.Second)
				for _, call := range []func(context.Context) error{
					func(ctx context.Context) error { return second(v.GetKey(ctx, r.key)) },
					func(ctx context.Context) error { return second(v.WrapKey(ctx, r.key, []byte("probe"))) },
					func(ctx context.Context) error { return second(v.UnwrapKey(ctx, cold[0])) },
				} {
					c, cancel := context.WithTimeout(urgent, has)
					if err := call(c); err != nil {
						t.Errorf("a call that keeps access alive: %v", err)
					}
					cancel()
					kept.Add(1)
				}
			}
		})
		for i := range lasts * 2 * budget / 10 {
			wg.Go(func() { read(i) })
			time.Sleep(time.Second * 10 / (2 * budget))
		}
		wg.Wait()
		sent := int64(r.Requests("") - before)
		t.Logf("served %d, refused %d, too late %d, kept %d, sent %d", served.Load(), refused.Load(), late.Load(), kept.Load(), sent)
		require.EqualValues(t, 3*lasts/5, kept.Load())
		require.GreaterOrEqual(t, served.Load()+kept.Load(), int64(lasts*budget/10*9/10), "of the budget")
		require.LessOrEqual(t, sent-served.Load()-kept.Load(), int64(lasts/5), "requests that nobody waited for")
		require.Less(t, late.Load(), refused.Load()/10, "most are told before")
		err = said.Load().(error)
		require.ErrorContains(t, err, "throttled: not by the vault: this client's own budget of 100 operations in 10 seconds is spent")
		require.ErrorContains(t, err, "raise Options.Budget if the vault has room")
		require.Zero(t, vault.RetryAfter(err), "the vault said nothing")
	})
}

// Readers of cold blocks that want more than the budget do not cost the store its
// access, whose checks go first, and get what there is: whether they wait for half a
// second or for as long as the store does, which fills the queue with seconds of calls.
func TestOverloadedStoreStaysAvailable(t *testing.T) {
	const (
		budget  = 100
		readers = 40
		waiters = 160
		blocks  = 400
	)
	bubble(t, keyvaulttest.Options{Limit: budget}, func(t *testing.T, r *rig) {
		ctx := t.Context()
		opts := &block.Options{Pebble: block.PebbleOptions{FS: vfs.NewMem(), MemTable: 1 << 20, BlockCache: 1 << 20},
			Keyring: keyring.Options{Clock: vault.SystemClock(), Wrapping: keyring.ByKEK, Lease: 20 * time.Second, CheckEvery: 5 * time.Second, DEKCache: -1}}
		id := func(n int64) []byte { return fmt.Appendf(nil, "%03d", n%blocks) }
		writer := r.client(func(o *azure.Options) { o.WrapLocally = true })
		s, err := block.Open(ctx, "store", kek.New(writer, r.key.Versionless()), opts)
		require.NoError(t, err)
		b := s.NewBatch()
		for n := range int64(blocks) {
			require.NoError(t, b.Put(ctx, id(n), []byte("data")))
		}
		require.NoError(t, b.Commit(ctx))
		require.NoError(t, s.Close())
		time.Sleep(10 * time.Second)

		var lost atomic.Int64
		opts.Keyring.OnEvent = func(e keyring.Event) {
			if e.Kind == keyring.StateChanged && (e.To == keyring.Degraded || e.To == keyring.Inaccessible) {
				lost.Add(1)
				t.Logf("%v: %v", e.To, e.Err)
			}
		}
		reader := r.client(func(o *azure.Options) { o.Budget = budget })
		s, err = block.Open(ctx, "store", kek.New(reader, r.key.Versionless()), opts)
		require.NoError(t, err)
		defer func() { require.NoError(t, s.Close()) }()
		r.Inject(keyvaulttest.Fault{Delay: 40 * time.Millisecond})
		end := time.Now().Add(time.Minute)
		var next, served atomic.Int64
		var wg sync.WaitGroup
		for n := range readers + waiters {
			has := 500 * time.Millisecond
			if n >= readers {
				has = time.Hour
			}
			wg.Go(func() {
				for time.Now().Before(end) {
					c, cancel := context.WithTimeout(ctx, has)
					_, err := s.Get(c, id(next.Add(1)), nil)
					cancel()
					if err == nil {
						served.Add(1)
						continue
					}
					time.Sleep(100 * time.Millisecond) // a thousand attempts a second, for 10 that there are
				}
			})
		}
		wg.Wait()
		require.Zero(t, lost.Load())
		require.Equal(t, keyring.Available, s.State().Status)
		t.Logf("served %d", served.Load())
		checks := 60 / 5 * 3
		require.GreaterOrEqual(t, served.Load(), int64((6*budget-checks)*9/10))
	})
}

// The vault's challenge to a new client is answered before others get their turn: the
// operation has had its own.
func TestAChallengeIsAnsweredFirst(t *testing.T) {
	bubble(t, keyvaulttest.Options{}, func(t *testing.T, r *rig) {
		cold := r.wraps(10)
		slow := &sends{Client: r.Client(), change: func(_ *http.Request, resp *http.Response) {
			if resp.StatusCode == http.StatusUnauthorized {
				time.Sleep(50 * time.Millisecond)
			}
		}}
		v := r.client(func(o *azure.Options) { o.Budget, o.ClientOptions.Transport = 100, slow })
		before := r.Requests("")
		first := make(chan int, 1)
		var wg sync.WaitGroup
		wg.Go(func() {
			if _, err := v.GetKey(t.Context(), r.key); err != nil {
				t.Error(err)
			}
			first <- r.Requests("") - before
		})
		synctest.Wait()
		for _, w := range cold {
			wg.Go(func() {
				if _, err := v.UnwrapKey(t.Context(), w); err != nil {
					t.Error(err)
				}
			})
		}
		wg.Wait()
		require.Equal(t, 1, <-first)
	})
}
