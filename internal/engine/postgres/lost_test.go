package postgres

import (
	"context"
	"errors"
	"flag"
	"fmt"
	"math/rand/v2"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/blockseal/blockseal/internal/engine"
	"github.com/blockseal/blockseal/internal/test/pgserver"
	"github.com/blockseal/blockseal/internal/test/seed"
)

var ends = flag.Int("ends", 3, "how often the server is killed while there is a load on it")

// ledger is what is known of a row that one writer writes: each value is a number that is one more.
type ledger struct {
	acknowledged, tried int
}

// Writers go on while connections are cut, delayed and half closed, and while the server is killed
// and started again: what was acknowledged is there, and nothing is there that was not tried.
func TestNothingAcknowledgedIsLost(t *testing.T) {
	own := newRig(t, newServer(t))
	proxy := newProxy(t, own.s)
	r := own.through(proxy, "pool_max_conns=8", "connect_timeout=5")
	var mu sync.Mutex
	rng := rand.New(rand.NewPCG(seed.Of(t), 0))
	dice := func(n int) int { mu.Lock(); defer mu.Unlock(); return rng.IntN(n) }
	trouble := func(bool, []byte) pgserver.Verdict {
		switch dice(100) {
		case 0:
			return pgserver.Cut
		case 1:
			return pgserver.HalfClose
		case 2, 3:
			time.Sleep(time.Duration(dice(3000)) * time.Microsecond)
		}
		return pgserver.Forward
	}
	const writers = 6
	var of [writers]ledger
	var acknowledged, unknown, failed atomic.Int64
	ctx, stop := context.WithCancel(r.ctx)
	var all sync.WaitGroup
	surprise := make(chan error, writers)
	for w := range writers {
		all.Add(1)
		go func() {
			defer all.Done()
			id := fmt.Sprint("row ", w)
			for ctx.Err() == nil {
				of[w].tried++
				ids := []string{id, id + " too"}
				if w%2 == 0 {
					ids = ids[:1]
				}
				b := r.batch(fmt.Sprint(of[w].tried), ids...)
				g := r.guard()
				if w >= 4 { // a transaction
					g.Was = []engine.Was{{ID: []byte("nobody's")}}
				}
				err := r.p.Apply(r.ctx, b, g, true)
				_ = b.Close()
				switch {
				case err == nil:
					of[w].acknowledged = of[w].tried
					acknowledged.Add(1)
				case errors.Is(err, engine.ErrOutcomeUnknown):
					unknown.Add(1)
				case isFloor(err), errors.Is(err, engine.ErrChanged):
					surprise <- err
					return
				default:
					failed.Add(1) // the server is away
				}
			}
		}()
	}
	progress := func() {
		before := acknowledged.Load()
		require.Eventually(t, func() bool { return acknowledged.Load() >= before+100 || len(surprise) > 0 }, long, short)
	}
	progress()
	proxy.Judge(trouble)
	for range *ends {
		progress()
		require.NoError(t, own.s.Kill())
		require.NoError(t, own.s.Restart())
	}
	progress()
	stop()
	all.Wait()
	proxy.Judge(nil)
	close(surprise)
	for err := range surprise {
		require.NoError(t, err)
	}
	for w, l := range of {
		var value, too int
		_, err := fmt.Sscan(own.value(fmt.Sprint("row ", w)), &value)
		require.NoError(t, err)
		require.GreaterOrEqual(t, value, l.acknowledged, "writer %d: lost", w)
		require.LessOrEqual(t, value, l.tried)
		if w%2 != 0 {
			_, err = fmt.Sscan(own.value(fmt.Sprint("row ", w, " too")), &too)
			require.NoError(t, err)
			require.Equal(t, value, too, "half of a batch")
		}
	}
	require.Positive(t, unknown.Load(), "there was no trouble")
	t.Logf("%d acknowledged, of %d it was not known, %d failed", acknowledged.Load(), unknown.Load(), failed.Load())
}
