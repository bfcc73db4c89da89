package block_test

import (
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"iter"
	"math/rand/v2"
	"runtime"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
	"go.uber.org/goleak"

	"github.com/blockseal/blockseal/block"
	"github.com/blockseal/blockseal/internal/test/race"
	"github.com/blockseal/blockseal/keyring"
)

// ahead makes walks read ahead on any machine.
func ahead(t *testing.T) {
	was := runtime.GOMAXPROCS(max(runtime.GOMAXPROCS(0), 2))
	t.Cleanup(func() { runtime.GOMAXPROCS(was) })
}

func walkID(i int) []byte { return fmt.Appendf(nil, "block %05d", i) }

// walkData is a block that is known by its number: mostly small, now and then larger, and
// once in a while more than a chunk holds, so that what follows it does not fit.
func walkData(i int) []byte {
	r := rand.New(rand.NewPCG(7, uint64(i)))
	n := r.IntN(500)
	switch {
	case i%293 == 5:
		n = 600_000
	case i%97 == 0:
		n = 100_000
	}
	data := make([]byte, 0, n+8)
	for len(data) < n {
		data = binary.LittleEndian.AppendUint64(data, r.Uint64())
	}
	return data[:n]
}

func fillForWalk(t *testing.T, g *rig, s *block.Store, n int) {
	t.Helper()
	for i := range n {
		require.NoError(t, s.Put(g.ctx, walkID(i), walkData(i)))
	}
}

func TestLongWalks(t *testing.T) {
	ahead(t)
	for _, w := range []keyring.Wrapping{keyring.ByKeyring, keyring.ByKEK} {
		t.Run(w.String(), func(t *testing.T) {
			g := newRig(t)
			g.opts.NoSync, g.opts.Keyring.Wrapping = true, w
			s := g.open()
			const n = 700
			fillForWalk(t, g, s, n)
			snap := s.Snapshot()
			defer snap.Close()
			for _, end := range []int{0, 1, 15, 16, 17, 271, 272, 273, 500, n} {
				for what, blocks := range map[string]iter.Seq2[block.Block, error]{
					"store":    s.Blocks(g.ctx, block.Range{End: walkID(end)}),
					"snapshot": snap.Blocks(g.ctx, block.Range{End: walkID(end)}),
				} {
					i := 0
					for b, err := range blocks {
						require.NoError(t, err)
						require.Equal(t, string(walkID(i)), string(b.ID), what)
						require.True(t, string(walkData(i)) == string(b.Data), "%s: block %d", what, i)
						i++
					}
					require.Equal(t, end, i, what)
				}
			}
		})
	}
}

func TestAWalkThatIsLeftLeavesNothing(t *testing.T) {
	ahead(t)
	g := newRig(t)
	g.opts.NoSync = true
	s := g.open()
	fillForWalk(t, g, s, 400)
	before := goleak.IgnoreCurrent()
	for _, stop := range []int{1, 16, 17, 30, 200, 399} {
		n := 0
		for _, err := range s.Blocks(g.ctx, block.Range{}) {
			require.NoError(t, err)
			if n++; n == stop {
				break
			}
		}
	}
	require.Panics(t, func() {
		n := 0
		for range s.Blocks(g.ctx, block.Range{}) {
			if n++; n == 100 {
				panic("in the loop's body")
			}
		}
	})
	ctx, cancel := context.WithCancel(g.ctx)
	defer cancel()
	n := 0
	for _, err := range s.Blocks(ctx, block.Range{}) {
		if n++; n == 100 {
			cancel()
		}
		if n > 100 {
			require.ErrorIs(t, err, context.Canceled)
		}
	}
	require.Equal(t, 101, n)
	// What the engine does meanwhile, such as a compaction, ends as well, and may take longer than
	// goleak waits.
	err := goleak.Find(before)
	for last := time.Now().Add(time.Minute); err != nil && time.Now().Before(last); {
		err = goleak.Find(before)
	}
	require.NoError(t, err)
}

// What is damaged ends the walk where it is, and not before.
func TestDamageAheadIsReportedInItsPlace(t *testing.T) {
	ahead(t)
	places := []int{0, 15, 16, 17, 271, 298, 299, 399}
	if race.Enabled {
		places = []int{0, 16, 298}
	}
	for _, at := range places {
		for _, space := range []byte{2, 3} {
			g := newRig(t)
			g.opts.NoSync = true
			s := g.open()
			fillForWalk(t, g, s, 400)
			for name, damage := range map[string]func(good []byte) []byte{
				"altered": func(good []byte) []byte { good[len(good)-1] ^= 1; return good },
				"missing": func([]byte) []byte { return nil },
			} {
				key := append([]byte{space, 0, 0, 0, 0}, walkID(at)...)
				good := s.Engine(key)
				s.SetEngine(key, damage(append([]byte(nil), good...)))
				n, failed := 0, false
				for b, err := range s.Blocks(g.ctx, block.Range{}) {
					require.False(t, failed, "an error ends the walk")
					if err != nil {
						require.ErrorIs(t, err, block.ErrCorrupt)
						require.ErrorContains(t, err, string(walkID(at)))
						require.Nil(t, b.Data)
						failed = true
						continue
					}
					require.True(t, string(walkData(n)) == string(b.Data))
					n++
				}
				require.True(t, failed, name)
				require.Equal(t, at, n, name)
				s.SetEngine(key, good)
			}
		}
	}
}

// Nothing that was opened ahead is handed out once the store is Inaccessible, or
// closed.
func TestNothingAheadOutlivesTheAccess(t *testing.T) {
	ahead(t)
	for what, end := range map[string]func(g *rig, s *block.Store){
		"lease over": func(g *rig, s *block.Store) { g.clock.Advance(keyring.DefaultLease + 1) },
		"closed":     func(g *rig, s *block.Store) { require.NoError(g.t, s.Close()) },
	} {
		for _, at := range []int{3, 20, 100} {
			t.Run(fmt.Sprint(what, at), func(t *testing.T) {
				g := newRig(t)
				g.opts.NoSync = true
				s := g.open()
				fillForWalk(t, g, s, 400)
				g.vault.SetOutage(errors.New("no route"))
				n := 0
				for _, err := range s.Blocks(g.ctx, block.Range{}) {
					if n++; n <= at {
						require.NoError(t, err)
					} else {
						require.Error(t, err)
					}
					if n == at {
						end(g, s)
					}
				}
				require.Equal(t, at+1, n)
			})
		}
	}
}
