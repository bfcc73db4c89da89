package row

import (
	"bytes"
	"fmt"
	"math/rand/v2"
	"runtime"
	"sync"
	"sync/atomic"
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/blockseal/blockseal/keyring"
)

// rowRig is a row cache over an engine of one number a block.
type rowRig struct {
	t *testing.T
	c *rowCache
}

func newRowRig(t *testing.T, bytes int64) *rowRig {
	c := newRowCache(bytes)
	require.NotNil(t, c)
	g := &rowRig{t, c}
	t.Cleanup(g.consistent)
	return g
}

// consistent checks that what the shards say of themselves is so.
func (g *rowRig) consistent() {
	for i := range g.c.shards {
		s := &g.c.shards[i]
		require.Len(g.t, s.ring, len(s.rows))
		bytes := 0
		for at, r := range s.ring {
			require.Equal(g.t, at, r.at)
			require.Same(g.t, r, s.rows[r.hash])
			bytes += len(r.data) + rowOverhead
		}
		require.Equal(g.t, bytes, s.bytes)
		require.LessOrEqual(g.t, s.bytes, g.c.limit)
		require.Zero(g.t, s.underWay)
	}
}

func testRow(n int, fill byte) (record, sealed []byte) {
	return bytes.Repeat([]byte{fill}, keyring.RecordSize), bytes.Repeat([]byte{fill ^ 0xff}, n)
}

// read is what Get does: it returns what the cache has of a block, or adds what
// the engine has.
func (g *rowRig) read(id string, engine byte) (cached bool, value byte) {
	r, t := g.c.get(0, []byte(id))
	if r != nil {
		return true, r.record()[0]
	}
	record, sealed := testRow(100, engine)
	g.c.add(t, record, sealed)
	return false, engine
}

func TestRowCacheKeepsWhatIsReadTwice(t *testing.T) {
	g := newRowRig(t, 1<<20)
	for i, want := range []bool{false, false, true, true} {
		cached, _ := g.read("a", 1)
		require.Equal(t, want, cached, "read %d", i)
	}
	r, _ := g.c.get(0, []byte("a"))
	record, sealed := testRow(100, 1)
	require.Equal(t, record, r.record())
	require.Equal(t, sealed, r.sealed())
	st := g.c.stats()
	require.EqualValues(t, 3, st.Hits)
	require.EqualValues(t, 2, st.Misses)
	require.Equal(t, 1, st.Entries)
}

func TestRowCacheForgetsWhatChanges(t *testing.T) {
	g := newRowRig(t, 1<<20)
	id := []byte("a")
	g.read("a", 1)
	g.read("a", 1)
	change := g.c.announce(0, id)
	cached, _ := g.read("a", 1)
	require.False(t, cached, "as soon as the change is announced")
	g.read("a", 1)
	cached, _ = g.read("a", 2)
	require.False(t, cached, "nothing is added while a change is under way")
	g.c.report(change)
	g.read("a", 2)
	cached, value := g.read("a", 2)
	require.True(t, cached)
	require.EqualValues(t, 2, value)

	// A reader that looked before the change does not add the old block after it.
	g.read("b", 1)
	_, ticket := g.c.get(0, []byte("b"))
	require.True(t, ticket.valid)
	g.c.report(g.c.announce(0, []byte("b")))
	record, sealed := testRow(100, 1)
	g.c.add(ticket, record, sealed)
	r, _ := g.c.get(0, []byte("b"))
	require.Nil(t, r)
}

func TestRowCacheDrop(t *testing.T) {
	g := newRowRig(t, 1<<20)
	g.read("a", 1)
	g.read("a", 1)
	r, _ := g.c.get(0, []byte("a"))
	g.c.drop(r)
	g.c.drop(r)
	again, _ := g.c.get(0, []byte("a"))
	require.Nil(t, again)
}

func TestRowCacheBounds(t *testing.T) {
	require.Nil(t, newRowCache(-1))
	require.Nil(t, newRowCache(0))
	var none *rowCache
	r, ticket := none.get(0, []byte("a"))
	require.Nil(t, r)
	none.add(ticket, nil, nil)
	none.report(none.announce(0, []byte("a")))
	require.Zero(t, none.stats())

	g := newRowRig(t, 64*4096)
	for i := range 20_000 {
		id := fmt.Sprint(i % 1000)
		g.read(id, 1)
		if i%100 == 0 {
			g.read("hot", 1)
		}
	}
	st := g.c.stats()
	require.Positive(t, st.Entries)
	require.LessOrEqual(t, st.Bytes, st.Limit)
	require.EqualValues(t, 64*4096, st.Limit)
	cached, _ := g.read("hot", 1)
	require.True(t, cached, "what is used stays when others come and go")

	// Larger than a shard, and of another kind: not kept.
	for range 3 {
		_, ticket := g.c.get(0, []byte("large"))
		record, sealed := testRow(1<<20, 1)
		g.c.add(ticket, record, sealed)
		_, ticket = g.c.get(0, []byte("by KEK"))
		g.c.add(ticket, make([]byte, keyring.RecordSizeByKEK), sealed[:10])
	}
	for _, id := range []string{"large", "by KEK"} {
		r, _ := g.c.get(0, []byte(id))
		require.Nil(t, r, id)
	}
}

// Under any interleaving, a read that begins after a write has returned sees that
// write or a later one, and reads of one goroutine never go back.
func TestRowCacheIsNeverBehind(t *testing.T) {
	g := newRowRig(t, 64*2048)
	const blocks, writers, readers, each = 8, 2, 3, 4000
	var engine, returned [blocks]atomic.Uint64
	id := func(b int) []byte { return []byte{byte(b)} }
	var wg, writing sync.WaitGroup
	var locks [blocks]sync.Mutex // the engine orders the writes of a block
	var stop atomic.Bool
	var hits atomic.Uint64
	writing.Add(writers)
	for w := range writers {
		wg.Go(func() {
			defer writing.Done()
			rnd := rand.New(rand.NewPCG(1, uint64(w)))
			// On a busy machine readers may have had no turn between two writes until then.
			for i := 0; i < each || hits.Load() == 0; i++ {
				if i >= each {
					runtime.Gosched()
				}
				b := rnd.IntN(blocks)
				change := g.c.announce(0, id(b))
				if rnd.IntN(3) == 0 {
					runtime.Gosched()
				}
				locks[b].Lock()
				v := engine[b].Add(1)
				locks[b].Unlock()
				if v%3 == 0 {
					runtime.Gosched()
				}
				g.c.report(change)
				for { // returned is the highest that has
					old := returned[b].Load()
					if old >= v || returned[b].CompareAndSwap(old, v) {
						break
					}
				}
			}
		})
	}
	for i := range readers {
		wg.Go(func() {
			rnd := rand.New(rand.NewPCG(2, uint64(i)))
			var last [blocks]uint64
			for !stop.Load() {
				b := rnd.IntN(blocks)
				least := max(returned[b].Load(), last[b])
				r, ticket := g.c.get(0, id(b))
				var v uint64
				if r != nil {
					hits.Add(1)
					for _, d := range r.sealed() {
						v = v<<8 | uint64(d)
					}
				} else {
					v = engine[b].Load()
					if rnd.IntN(3) == 0 {
						runtime.Gosched()
					}
					g.c.add(ticket, make([]byte, keyring.RecordSize), []byte{byte(v >> 16), byte(v >> 8), byte(v)})
				}
				if v < least {
					t.Errorf("block %d: read %d after %d", b, v, least)
					return
				}
				last[b] = v
			}
		})
	}
	writing.Wait()
	stop.Store(true)
	wg.Wait()
	require.Positive(t, hits.Load())
}
