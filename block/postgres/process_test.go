package postgres_test

import (
	"fmt"
	"strconv"
	"strings"
	"testing"

	"github.com/stretchr/testify/require"
)

// What one process makes, writes and rotates the other has.
func TestTwoProcesses(t *testing.T) {
	g := newProcesses(t)
	a, b := g.start(), g.start()
	a.do("create store")
	b.do("open store")
	a.do("put id 1")
	require.Equal(t, "1", b.do("get id"))
	b.do("put id 2")
	require.Equal(t, "2", a.do("get id"))
	a.do("rotate")
	b.do("put id 3") // by the one that is behind
	require.Equal(t, "3", a.do("get id"))
	b.do("rotate")
	a.do("put more 4")
	require.Equal(t, "4", b.do("get more"))
	b.tell("create store")
	require.Contains(t, b.answer(), "error")
	a.end()
	require.Equal(t, "3", b.do("get id"))
	b.end()
	s := g.open(g.here(), "store")
	requireData(t, s, "id", "3")
	require.Len(t, requireWhole(t, s).DEKs, 1)
}

// A process that is killed while it writes has lost nothing that it acknowledged, keeps nobody from
// anything, and its store goes on elsewhere at once.
func TestWriterIsKilled(t *testing.T) {
	g := newProcesses(t)
	s := g.create(g.here(), "store")
	for n := range 4 {
		p := g.start()
		p.do("open store")
		p.tell("write killed-%d", n)
		last := -1
		for last < 60+10*n {
			said := p.answer()
			text, ok := strings.CutPrefix(said, "put ")
			require.True(t, ok, said)
			i, err := strconv.Atoi(text)
			require.NoError(t, err)
			last = i
			if i == 30 {
				require.NoError(t, s.RotateEpoch(g.ctx, nil), "while it writes")
			}
		}
		p.kill()
		for i := max(0, last-49); i <= last; i++ {
			got, err := s.Get(g.ctx, fmt.Appendf(nil, "killed-%d %02d", n, i%50), nil)
			require.NoError(t, err)
			is, err := strconv.Atoi(string(got))
			require.NoError(t, err)
			require.GreaterOrEqual(t, is, i, "what was acknowledged, or what it wrote after that")
		}
		put(t, s, "after", fmt.Sprint(n))
		require.NoError(t, s.RotateEpoch(g.ctx, nil))
		require.Len(t, requireWhole(t, s).DEKs, 1)
	}
}

// A process that is killed while it rotates has the turn no longer: another one rotates, and
// finishes what it left.
func TestRotatorIsKilled(t *testing.T) {
	g := newProcesses(t)
	s := g.create(g.here(), "store")
	for i := range 200 {
		put(t, s, fmt.Sprintf("block %03d", i), strconv.Itoa(i))
	}
	for n := range 4 {
		p := g.start()
		p.do("open store")
		p.tell("rotate-until-killed")
		for range 1 + n {
			require.Contains(t, p.answer(), "rotated")
			put(t, s, "between", strconv.Itoa(n))
		}
		p.kill()
		require.NoError(t, s.RotateEpoch(g.ctx, nil))
		requireData(t, s, "between", strconv.Itoa(n))
		require.Len(t, requireWhole(t, s).DEKs, 1)
		require.Equal(t, 1, s.State().Epochs)
	}
	for i := range 200 {
		requireData(t, s, fmt.Sprintf("block %03d", i), strconv.Itoa(i))
	}
}
