package azure_test

import (
	"fmt"
	"net/http"
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
)

// statuses counts what a transport's answers were.
type statuses struct {
	http.RoundTripper
	ok, throttled, other atomic.Int64
}

func (s *statuses) Do(r *http.Request) (*http.Response, error) {
	resp, err := s.RoundTrip(r)
	switch {
	case err != nil:
		s.other.Add(1)
	case resp.StatusCode == http.StatusOK:
		s.ok.Add(1)
	case resp.StatusCode == http.StatusTooManyRequests:
		s.throttled.Add(1)
	}
	return resp, err
}

// 64 goroutines open cold blocks, each with a DEK that the vault has wrapped, beside a
// server that serves 400 operations in any 10 seconds and throttles what is above. The
// budget is just that: nothing is throttled, nobody sees an error, and everybody gets a
// fair share of what there is. In a bubble no other load on the machine decides who is
// late.
func TestLoadUnderALimit(t *testing.T) {
	const (
		limit      = 400
		goroutines = 64
		each       = 12
	)
	bubble(t, keyvaulttest.Options{Limit: limit}, func(t *testing.T, r *rig) {
		ctx := t.Context()
		opts := &block.Options{Pebble: block.PebbleOptions{FS: vfs.NewMem(), MemTable: 1 << 20, BlockCache: 1 << 20},
			Keyring: keyring.Options{Clock: vault.SystemClock(), Wrapping: keyring.ByKEK}}
		id := func(g, n int) []byte { return fmt.Appendf(nil, "%02d/%02d", g, n) }

		writer := r.client(func(o *azure.Options) { o.WrapLocally = true })
		s, err := block.Open(ctx, "store", kek.New(writer, r.key.Versionless()), opts)
		require.NoError(t, err)
		for g := range goroutines {
			b := s.NewBatch()
			for n := range each {
				require.NoError(t, b.Put(ctx, id(g, n), id(g, n)))
			}
			require.NoError(t, b.Commit(ctx))
		}
		require.NoError(t, s.Close())
		time.Sleep(10 * time.Second) // what the writer asked for is out of the window

		count := &statuses{RoundTripper: r.Client().Transport}
		reader := r.client(retries, func(o *azure.Options) {
			o.ClientOptions.Transport = count
			o.Budget = limit
		})
		s, err = block.Open(ctx, "store", kek.New(reader, r.key.Versionless()), opts)
		require.NoError(t, err)
		defer func() { require.NoError(t, s.Close()) }()
		start := time.Now()
		var done [goroutines]atomic.Int64
		var total atomic.Int64
		var half [goroutines]int64 // done by each when half of all is
		var once sync.Once
		var wg sync.WaitGroup
		for g := range goroutines {
			wg.Go(func() {
				for n := range each {
					got, err := s.Get(ctx, id(g, n), nil)
					if err != nil || string(got) != string(id(g, n)) {
						t.Errorf("block %s: %q, %v", id(g, n), got, err)
						return
					}
					done[g].Add(1)
					if total.Add(1) == goroutines*each/2 {
						once.Do(func() {
							for i := range done {
								half[i] = done[i].Load()
							}
						})
					}
				}
			})
		}
		wg.Wait()
		require.EqualValues(t, goroutines*each, total.Load())
		require.Zero(t, count.throttled.Load(), "the limit was exceeded")
		require.Zero(t, count.other.Load())
		require.GreaterOrEqual(t, count.ok.Load(), int64(goroutines*each))
		require.Greater(t, time.Since(start), 10*time.Second, "there was more to do than the limit permits at once")
		for g, n := range half {
			require.InDelta(t, each/2, n, 1, "goroutine %d has more or less than its share: %v", g, half)
		}
	})
}
