package bench

import (
	"context"
	"errors"
	"fmt"
	"sync"
	"sync/atomic"
	"testing"

	"github.com/blockseal/blockseal/internal/engine"
)

// Contenders that all replace the keyring document once, as the processes of a fleet do when an epoch
// has begun and each reserves of it: an operation is all of them. It reports how often a swap was lost, and the
// most that one of them lost in a row, of which a keyring bears 256.
func BenchmarkPostgresDocument(b *testing.B) {
	for _, size := range []int{1 << 10, 64 << 10} {
		for _, contenders := range []int{1, 8, 64, 400} {
			b.Run(fmt.Sprintf("size=%d/contenders=%d", size, contenders), func(b *testing.B) {
				o := newPostgres(b, contenders)
				ctx := context.Background()
				document := random(size)
				if _, err := o.p.SwapMeta(ctx, engine.Swap{Name: "document", Value: document}); err != nil {
					b.Fatal(err)
				}
				var lost, most atomic.Int64
				each := make([]engine.Partition, contenders) // as other processes have it
				for i := range each {
					each[i] = o.e.Partition(1)
				}
				replace := func(p engine.Partition) error {
					for in := int64(0); ; in++ {
						_, revision, err := p.LoadMeta(ctx, "document")
						if err != nil {
							return err
						}
						if _, err = p.SwapMeta(ctx, engine.Swap{Name: "document", Revision: revision, Value: document}); !errors.Is(err, engine.ErrConflict) {
							for m := most.Load(); in > m && !most.CompareAndSwap(m, in); m = most.Load() {
							}
							return err
						}
						lost.Add(1)
					}
				}
				for b.Loop() {
					var all sync.WaitGroup
					failed := make(chan error, contenders)
					for i := range contenders {
						all.Go(func() { failed <- replace(each[i]) })
					}
					all.Wait()
					for range contenders {
						if err := <-failed; err != nil {
							b.Fatal(err)
						}
					}
				}
				b.ReportMetric(float64(lost.Load())/float64(b.N*contenders), "lost/swap")
				b.ReportMetric(float64(most.Load()), "lost-in-a-row")
			})
		}
	}
}
