package postgres_test

import (
	"errors"
	"fmt"
	"math/rand/v2"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/blockseal/blockseal/block"
	"github.com/blockseal/blockseal/internal/test/pgserver"
	"github.com/blockseal/blockseal/internal/test/seed"
)

// Writers go on through a network that cuts connections, delays them and closes them halfway, at seeded
// moments, within a commit too, while the epoch is rotated and the sequence number is saved. Each call ends; what
// was acknowledged is there, what was refused is not, and only of what is ErrOutcomeUnknown it may be either.
func TestNetworkThatCuts(t *testing.T) {
	g := newRig(t)
	g.store.AnchorEvery = time.Hour // it is saved when the test says so
	proxy, err := pgserver.NewProxy(g.server)
	require.NoError(t, err)
	t.Cleanup(func() { require.NoError(t, proxy.Close()) })
	db := g.dbOf(newPool(t, proxy.Conn("program", "pool_max_conns=8", "connect_timeout=5")))
	s := g.create(db, "store")
	var mu sync.Mutex
	rng := rand.New(rand.NewPCG(seed.Of(t), 0))
	dice := func(n int) int { mu.Lock(); defer mu.Unlock(); return rng.IntN(n) }
	const writers, each = 6, 80
	var unknown, refused atomic.Int64
	for id := range writers {
		put(t, s, fmt.Sprint("writer ", id), "0")
		put(t, s, fmt.Sprint("writer ", id, " too"), "0")
	}
	defer proxy.Judge(nil) // so that a failure does not hang
	proxy.Judge(func(bool, []byte) pgserver.Verdict {
		switch dice(60) {
		case 0:
			return pgserver.Cut
		case 1:
			return pgserver.HalfClose
		case 2, 3:
			time.Sleep(time.Duration(dice(3000)) * time.Microsecond)
		}
		return pgserver.Forward
	})
	var all sync.WaitGroup
	may := make([]map[string]bool, writers) // what each writer's block may be
	for w := range writers {
		id, too := fmt.Appendf(nil, "writer %d", w), fmt.Appendf(nil, "writer %d too", w)
		may[w] = map[string]bool{"0": true}
		all.Go(func() {
			for n := 1; n <= each; n++ {
				data := []byte(strconv.Itoa(n))
				var err error
				switch w % 3 {
				case 0:
					err = s.Put(g.ctx, id, data)
				case 1:
					b := s.NewBatch()
					if err = errors.Join(b.Put(g.ctx, id, data), b.Put(g.ctx, too, data)); err == nil {
						err = b.Commit(g.ctx)
					}
				default: // a transaction
					b := s.NewBatch()
					if err = errors.Join(b.Put(g.ctx, id, data), b.Put(g.ctx, too, data), b.Delete(g.ctx, []byte("nobody's"))); err == nil {
						err = b.Commit(g.ctx)
					}
				}
				switch {
				case err == nil:
					may[w] = map[string]bool{string(data): true}
				case errors.Is(err, block.ErrOutcomeUnknown):
					may[w][string(data)] = true
					unknown.Add(1)
				default:
					refused.Add(1) // it is not there
				}
			}
		})
	}
	written := make(chan struct{})
	go func() { all.Wait(); close(written) }()
	var rotations, saves int
	for running := true; running; {
		select {
		case <-written:
			running = false
		default:
			if s.RotateEpoch(g.ctx, nil) == nil {
				rotations++
			}
			if _, err := s.AnchorPoint(g.ctx); err == nil {
				saves++
			}
		}
	}
	proxy.Judge(nil)
	require.NoError(t, s.RotateEpoch(g.ctx, nil))
	for w := range writers {
		got, err := s.Get(g.ctx, fmt.Appendf(nil, "writer %d", w), nil)
		require.NoError(t, err)
		require.Contains(t, may[w], string(got), "writer %d", w)
		if w%3 != 0 {
			requireData(t, s, fmt.Sprintf("writer %d too", w), string(got)) // not half of a batch
		}
	}
	require.Len(t, requireWhole(t, s).DEKs, 1)
	require.Equal(t, 1, s.State().Epochs)
	require.Positive(t, unknown.Load(), "nothing was cut")
	t.Logf("%d unknown, %d refused, %d rotations, %d saves of the sequence number", unknown.Load(), refused.Load(), rotations, saves)
}

// A save of the sequence number whose answer is lost counts each write once.
func TestSequenceCountsOnce(t *testing.T) {
	for name, lost := range map[string]struct {
		question bool
		at       int64
	}{"the answer to the commit": {false, 2}, "the commit": {true, 2}, "the first answer": {false, 1}} {
		t.Run(name, func(t *testing.T) {
			g := newRig(t)
			g.store.AnchorEvery, g.deaf = time.Hour, true
			proxy, err := pgserver.NewProxy(g.server)
			require.NoError(t, err)
			t.Cleanup(func() { require.NoError(t, proxy.Close()) })
			s := g.create(g.dbOf(newPool(t, proxy.Conn("program", "pool_max_conns=3"))), "store")
			p, err := s.AnchorPoint(g.ctx)
			require.NoError(t, err)
			for range 10 {
				put(t, s, "id", "data")
			}
			var named, n, cuts atomic.Int64
			defer proxy.Judge(nil)
			proxy.Judge(func(toServer bool, chunk []byte) pgserver.Verdict {
				// The first question with the record's name reads it, the second begins to replace it.
				if toServer && strings.Contains(string(chunk), "sequence") {
					named.Add(1)
				}
				if named.Load() >= 2 && toServer == lost.question && n.Add(1) == lost.at && cuts.Add(1) == 1 {
					return pgserver.Cut
				}
				return pgserver.Forward
			})
			q, err := s.AnchorPoint(g.ctx)
			require.NoError(t, err)
			require.EqualValues(t, 1, cuts.Load(), "nothing was lost")
			require.Equal(t, p.Sequence+10, q.Sequence)
			proxy.Judge(nil)
			q, err = s.AnchorPoint(g.ctx)
			require.NoError(t, err)
			require.Equal(t, p.Sequence+10, q.Sequence)
		})
	}
}
