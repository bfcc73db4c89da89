package azure_test

import (
	"context"
	"errors"
	"fmt"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/cockroachdb/pebble/v2/vfs"
	"github.com/stretchr/testify/require"

	"github.com/blockseal/blockseal/block"
	"github.com/blockseal/blockseal/internal/keyvaulttest"
	"github.com/blockseal/blockseal/kek"
	"github.com/blockseal/blockseal/keyring"
	"github.com/blockseal/blockseal/vault"
	"github.com/blockseal/blockseal/vault/azure"
	"github.com/blockseal/blockseal/vault/vaulttest"
)

func TestBudgetsOptions(t *testing.T) {
	r := newRig(t, nil)
	b := azure.NewBudgets(nil)
	share := func(budget int) func(*azure.Options) {
		return func(o *azure.Options) { o.Budgets, o.Budget = b, budget }
	}
	open := func(url string, change ...func(*azure.Options)) error {
		_, err := azure.New(url, r.Credential(store), r.options(change...))
		return err
	}
	require.NoError(t, open(r.URL(), share(100)))
	require.NoError(t, open(r.URL()+"/", share(100)))
	require.NoError(t, open("https://another.vault.azure.net", share(50)))
	require.ErrorContains(t, open(r.URL(), share(200)), "the budget of "+r.URL()+" is 100, not 200")
	_, err := azure.NewAdmin(r.URL(), r.Credential(store), r.options(share(200)))
	require.ErrorContains(t, err, "is 100, not 200", "an Admin's calls are the vault's too")
	require.ErrorContains(t, open(r.URL(), share(100), func(o *azure.Options) { o.Clock = vaulttest.NewClock(longAgo) }),
		"Options.Clock is that of Options.Budgets")
}

// Clients with identities of their own, as tenants have, send together what one of them may: the
// vault, whose limit that is, throttles nobody. With a budget each they would be throttled.
func TestClientsShareABudget(t *testing.T) {
	const limit, clients = 100, 10
	for _, shared := range []bool{true, false} {
		t.Run(fmt.Sprint("shared ", shared), func(t *testing.T) {
			bubble(t, keyvaulttest.Options{Limit: limit}, func(t *testing.T, r *rig) {
				count := &statuses{RoundTripper: r.Client().Transport}
				budgets := azure.NewBudgets(nil)
				w := r.wraps(1)[0]
				end := time.Now().Add(30 * time.Second)
				var served atomic.Int64
				var said atomic.Value // the last refusal
				var all sync.WaitGroup
				for range clients {
					v := r.client(func(o *azure.Options) {
						o.ClientOptions.Transport, o.Budget = count, limit
						if shared {
							o.Budgets = budgets
						}
					})
					all.Go(func() {
						for time.Now().Before(end) {
							_, err := v.UnwrapKey(t.Context(), w)
							switch {
							case err == nil:
								served.Add(1)
							case errors.Is(err, vault.ErrThrottled):
								said.Store(err)
								time.Sleep(100 * time.Millisecond)
							default:
								t.Error(err)
								return
							}
						}
					})
				}
				all.Wait()
				t.Logf("served %d, throttled %d", served.Load(), count.throttled.Load())
				if !shared {
					require.NotZero(t, count.throttled.Load(), "the vault would have noticed")
					return
				}
				require.Zero(t, count.throttled.Load())
				require.ErrorContains(t, said.Load().(error), "the budget that this program's clients of it share, of 100 operations")
				// A client takes two units while it does not know the key, and was challenged first.
				require.GreaterOrEqual(t, served.Load(), int64(3*limit*4/10))
			})
		})
	}
}

// The stores of a DB, each with a client of its own, whose blocks are wanted more often than the vault
// serves: their checks go first, whosever they are, and no store's access is lost, nor throttled.
func TestStoresOfADBShareABudget(t *testing.T) {
	const (
		limit   = 300
		stores  = 20
		blocks  = 50
		readers = 5 // of each store that is read
	)
	bubble(t, keyvaulttest.Options{Limit: limit}, func(t *testing.T, r *rig) {
		ctx := t.Context()
		count := &statuses{RoundTripper: r.Client().Transport}
		budgets := azure.NewBudgets(nil)
		var lost atomic.Int64
		opts := &block.Options{Keyring: keyring.Options{Wrapping: keyring.ByKEK, Lease: 20 * time.Second, CheckEvery: 5 * time.Second, DEKCache: -1,
			OnEvent: func(e keyring.Event) {
				if e.Kind == keyring.StateChanged && (e.To == keyring.Degraded || e.To == keyring.Inaccessible) {
					lost.Add(1)
					t.Logf("%v: %v", e.To, e.Err)
				}
			}}}
		db, err := block.OpenDB(ctx, "db", &block.DBOptions{
			Pebble: block.PebbleOptions{FS: vfs.NewMem(), MemTable: 1 << 20, BlockCache: 1 << 20},
			Resolve: func(context.Context, string) (*kek.KEK, *block.Options, error) {
				v, err := azure.New(r.URL(), r.Credential(store), r.options(func(o *azure.Options) {
					o.ClientOptions.Transport, o.Budget, o.Budgets = count, limit, budgets
				}))
				return kek.New(v, r.key.Versionless()), opts, err
			},
		})
		require.NoError(t, err)
		defer func() { require.NoError(t, db.Close()) }()
		writer := r.client(func(o *azure.Options) { o.WrapLocally = true })
		name := func(i int) string { return fmt.Sprint("tenant ", i) }
		for i := range stores {
			s, err := db.Create(ctx, name(i), kek.New(writer, r.key.Versionless()), opts)
			require.NoError(t, err)
			b := s.NewBatch()
			for n := range blocks {
				require.NoError(t, b.Put(ctx, fmt.Appendf(nil, "%d", n), []byte("data")))
			}
			require.NoError(t, b.Commit(ctx))
			require.NoError(t, s.Close())
		}
		time.Sleep(10 * time.Second) // what that asked for is out of the window

		var all sync.WaitGroup
		var served atomic.Int64
		end := time.Now().Add(40 * time.Second)
		for i := range stores {
			s, release, err := db.Acquire(ctx, name(i))
			require.NoError(t, err)
			defer release()
			require.Equal(t, keyring.Available, s.State().Status, "%v", s.State().Cause)
			if i%2 == 1 {
				continue // its checks alone
			}
			for n := range readers {
				all.Go(func() {
					for n := n; time.Now().Before(end); n++ {
						_, err := s.Get(ctx, fmt.Appendf(nil, "%d", n%blocks), nil)
						switch {
						case err == nil:
							served.Add(1)
						case errors.Is(err, vault.ErrThrottled):
							time.Sleep(100 * time.Millisecond)
						default:
							t.Error(err)
							return
						}
					}
				})
			}
		}
		all.Wait()
		t.Logf("served %d, answers %d", served.Load(), count.ok.Load())
		require.Zero(t, count.throttled.Load())
		require.Zero(t, lost.Load())
		for i := range stores {
			s, release, err := db.Acquire(ctx, name(i))
			require.NoError(t, err)
			require.Equal(t, keyring.Available, s.State().Status)
			release()
		}
		require.GreaterOrEqual(t, count.ok.Load(), int64(40/10*limit*8/10), "what there is is not wasted")
	})
}
