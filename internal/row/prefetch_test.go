package row

import (
	"bytes"
	"context"
	"fmt"
	"runtime"
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/blockseal/blockseal/internal/inner"
	"github.com/blockseal/blockseal/internal/test/race"
	"github.com/blockseal/blockseal/keyring"
)

// What a walk has ahead is bounded over all of its chunks, whatever the blocks' sizes; the
// walk hands out all of them all the same.
func TestAheadIsBounded(t *testing.T) {
	was := runtime.GOMAXPROCS(max(runtime.GOMAXPROCS(0), 4))
	defer runtime.GOMAXPROCS(was)
	sizes := map[string]func(i int) int{
		"small":                 func(int) int { return 100 },
		"as a chunk":            func(int) int { return prefetchBytes },
		"of a few MiB":          func(int) int { return 3 << 20 },
		"larger than may be":    func(int) int { return prefetchMost + 1 },
		"small, and then large": func(i int) int { return 100 + i/10*(2<<20) },
		"of all sizes":          func(i int) int { return []int{10, 600 << 10, 100, 5 << 20, 0, 2 << 20}[i%6] },
	}
	for name, size := range sizes {
		t.Run(name, func(t *testing.T) {
			ctx := t.Context()
			table, keys := newTable(t, Config{})
			n := 36
			if race.Enabled && size(35) > prefetchBytes { // the detector looks at each byte that is copied
				n = 12
			}
			if race.Enabled && size(0) > prefetchMost { // 8 MiB each
				n = 6
			}
			data := func(i int) []byte { return bytes.Repeat([]byte{byte(i)}, size(i)) }
			for i := range n {
				table.put(t, ctx, fmt.Sprintf("%03d", i), data(i))
			}
			h, err := keys.Acquire()
			require.NoError(t, err)
			session := h.For(inner.Block{}).Session()
			c, err := table.Cursor(ctx, table.Part, nil, nil, false)
			require.NoError(t, err)
			defer c.Finish()
			_, _, ok, err := c.next(ctx, &h)
			h.Release()
			require.NoError(t, err)
			require.True(t, ok)
			p, err := table.newPrefetch(ctx, c, session, size(0))
			require.NoError(t, err)
			seen := 1
			one := func(id, block []byte) {
				require.Equal(t, fmt.Sprintf("%03d", seen), string(id))
				require.True(t, bytes.Equal(data(seen), block))
				require.LessOrEqual(t, p.ahead.n.Load(), int64(prefetchMost+len(p.all)*prefetchBytes))
				seen++
			}
			for {
				ch, err := p.next()
				require.NoError(t, err)
				if ch == nil {
					break
				}
				for _, b := range ch.blocks {
					one(b.id, b.plain)
				}
				for i := ch.rest; i < len(ch.records); i++ {
					one(openRest(t, ctx, keys, session, c, ch, i))
				}
				require.NoError(t, ch.err)
				p.release(ch)
			}
			p.stop()
			require.Equal(t, n, seen)
			held := 0
			for _, ch := range p.all {
				held += cap(ch.plain)
			}
			require.EqualValues(t, held, p.ahead.n.Load(), "what is counted is what there is")
		})
	}
}

func openRest(t *testing.T, ctx context.Context, keys *keyring.Keyring, session uint64, c *Cursor, ch *chunk, i int) (id, data []byte) {
	h, err := keys.For(inner.Block{}).AcquireSession(session)
	require.NoError(t, err)
	defer func() { h.Release() }()
	id, data, err = c.rest(ctx, &h, ch, i)
	require.NoError(t, err)
	return id, data
}

// Memory of a chunk that is exchanged, for more or for less, is overwritten: what the chunk
// held before is in it. Memory that is kept is not, nor is any while there is a block in it.
func TestAChunkOverwritesWhatItLetsGo(t *testing.T) {
	for _, c := range []struct {
		name          string
		had, in, want int // bytes: of memory, of blocks in it, of the next block
		fits, goes    bool
	}{
		{"the first", 0, 0, 100, true, true},
		{"as before", prefetchBytes, 0, prefetchBytes, true, false},
		{"one more", prefetchBytes, 100, 100, true, false},
		{"no room", prefetchBytes, prefetchBytes - 10, 11, false, false},
		{"a large one", prefetchBytes, 0, prefetchBytes + 1, true, true},
		{"a large one again", 2 * prefetchBytes, 0, prefetchBytes + 1, true, false},
		{"small again", 2 * prefetchBytes, 0, 100, true, true},
		{"too much", prefetchBytes, 0, prefetchMost + 1, false, false},
	} {
		t.Run(c.name, func(t *testing.T) {
			var ahead aheadBytes
			require.True(t, ahead.exchange(0, c.had))
			had := bytes.Repeat([]byte{1}, c.had)
			ch := &chunk{plain: had[:c.in:c.had]}
			require.Equal(t, c.fits, ch.fits(c.want, &ahead))
			if c.goes {
				require.Equal(t, make([]byte, c.had), had, "overwritten")
				require.GreaterOrEqual(t, cap(ch.plain), c.want)
			} else {
				require.Equal(t, bytes.Repeat([]byte{1}, c.had), had)
			}
			require.EqualValues(t, cap(ch.plain), ahead.n.Load(), "what is accounted for is what there is")
		})
	}
}

// A buffer of a walk that is too small is overwritten; one that is large enough is kept.
func TestRoomFor(t *testing.T) {
	had := bytes.Repeat([]byte{1}, 10)
	got := RoomFor(had, make([]byte, 10))
	require.Empty(t, got)
	require.Same(t, &had[0], &got[:1][0])
	require.Equal(t, bytes.Repeat([]byte{1}, 10), had)
	got = RoomFor(had[:3], make([]byte, 11))
	require.Empty(t, got)
	require.GreaterOrEqual(t, cap(got), 11)
	require.Equal(t, make([]byte, 10), had, "all of it")
	require.GreaterOrEqual(t, cap(RoomFor(nil, make([]byte, 5))), 5)
}
