package postgres_test

import (
	"fmt"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/blockseal/blockseal/block"
	"github.com/blockseal/blockseal/keyring"
)

// Eight processes write while another one rotates at each level: the epoch, the DEKs, the KEK's version
// with the DEKs that it wraps itself, and the KEK. All that was acknowledged is there, under what was rotated to.
func TestEightProcessesWriteWhileEachLevelRotates(t *testing.T) {
	g := newProcesses(t)
	g.store.Keyring.Wrapping, g.store.ManualRewrap, g.store.VaultRate = keyring.ByKEK, true, 1_000_000
	s := g.create(g.here(), "store")
	for i := range 50 {
		put(t, s, fmt.Sprint("old ", i), strconv.Itoa(i))
	}
	const writers = 8
	var last [writers]atomic.Int64
	var all sync.WaitGroup
	procs := make([]*process, writers)
	for w := range writers {
		procs[w] = g.start()
		procs[w].tell("open store")
	}
	for w, p := range procs {
		require.Contains(t, p.answer(), "ok")
		p.tell("write w%d 60ms", w)
		all.Go(func() {
			for p.from.Scan() {
				n, err := strconv.ParseInt(strings.TrimPrefix(p.from.Text(), "put "), 10, 64)
				if err != nil {
					t.Errorf("writer %d: %s", w, p.from.Text())
					return
				}
				last[w].Store(n)
			}
		})
	}
	step := func(name string, f func() error) {
		require.NoError(t, f(), name)
		var from [writers]int64
		for w := range writers {
			from[w] = last[w].Load()
		}
		for w := range writers { // each goes on with what is there now
			require.Eventually(t, func() bool { return last[w].Load() > from[w]+1 || t.Failed() }, long, short, "%s: writer %d", name, w)
		}
		require.False(t, t.Failed())
	}
	step("nothing", func() error { return nil })
	step("the epoch", func() error { return s.RotateEpoch(g.ctx, nil) })
	step("the DEKs", func() error { return s.Rekey(g.ctx, block.Range{}, nil) })
	version, err := g.own.RotateKey(g.ctx, "customer")
	require.NoError(t, err)
	step("the KEK's version", func() error { return s.RotateKEK(g.ctx) })
	require.Equal(t, version.ID, s.State().KEK)
	step("what it wraps", func() error { return s.RewrapDEKs(g.ctx, nil) })
	step("the epoch again", func() error { return s.RotateEpoch(g.ctx, nil) })
	for _, p := range procs {
		p.kill()
	}
	all.Wait()
	require.NoError(t, s.RotateEpoch(g.ctx, nil))
	require.NoError(t, s.RewrapDEKs(g.ctx, nil))
	require.Len(t, requireWhole(t, s).DEKs, 1)
	uses, err := s.KeyUsage(g.ctx)
	require.NoError(t, err)
	for _, u := range uses {
		require.True(t, !u.Needed() || u.Key == version.ID, "%v is needed", u.Key)
	}
	for w := range writers {
		end := int(last[w].Load())
		for i := max(0, end-49); i <= end; i++ {
			got, err := s.Get(g.ctx, fmt.Appendf(nil, "w%d %02d", w, i%50), nil)
			require.NoError(t, err)
			n, err := strconv.Atoi(string(got))
			require.NoError(t, err)
			require.GreaterOrEqual(t, n, i, "what was acknowledged, or what it wrote after that")
		}
	}
	for i := range 50 {
		requireData(t, s, fmt.Sprint("old ", i), strconv.Itoa(i))
	}
}
