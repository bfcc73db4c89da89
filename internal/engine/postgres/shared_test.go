package postgres

import (
	"errors"
	"fmt"
	"strconv"
	"sync"
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/blockseal/blockseal/internal/engine"
)

// What one process was told is done every other one reads, from then on.
func TestOthersSeeWhatWasApplied(t *testing.T) {
	a := newRig(t, shared(t))
	b := a.another("pool_max_conns=4")
	for i := range 100 {
		text := fmt.Sprint(i)
		a.put(text, "a")
		require.Equal(t, text, b.value("a"))
		require.NoError(t, engine.SetMeta(b.ctx, b.p, "name", []byte(text)))
		got, err := engine.ReadMeta(a.ctx, a.p, "name")
		require.NoError(t, err)
		require.Equal(t, text, string(got))
	}
	v, err := b.p.View(b.ctx)
	require.NoError(t, err)
	a.put("later", "a")
	var row engine.Row
	require.NoError(t, v.Get(b.ctx, []byte("a"), engine.Both, &row))
	require.Equal(t, "99", string(row.Record), "a view is one state")
	require.NoError(t, v.Close())
	require.Equal(t, "later", b.value("a"))
}

// Processes that each add one to the same row, and to the same meta record, lose none: neither of
// those that only write, nor of those that replace what they have read.
func TestProcessesLoseNoUpdate(t *testing.T) {
	const processes, each = 4, 25
	r := newRig(t, shared(t))
	r.put("0", "row", "replaced")
	require.NoError(t, engine.SetMeta(r.ctx, r.p, "meta", []byte("0")))
	more := func(text string) string {
		n, err := strconv.Atoi(text)
		require.NoError(t, err)
		return strconv.Itoa(n + 1)
	}
	counts := map[string]func(p *rig) (done bool, err error){
		"row": func(p *rig) (bool, error) {
			was := p.value("row")
			b := p.batch(more(was), "row")
			defer b.Close()
			g := p.guard()
			g.Was = []engine.Was{{ID: []byte("row"), Record: []byte(was)}}
			err := p.p.Apply(p.ctx, b, g, true)
			if errors.Is(err, engine.ErrChanged) || isFloor(err) {
				return false, nil
			}
			return true, err
		},
		"replaced": func(p *rig) (bool, error) {
			was := p.value("replaced")
			b := p.batch(more(was), "replaced")
			defer b.Close()
			lost, err := p.p.Replace(p.ctx, b, []engine.Was{{ID: []byte("replaced"), Record: []byte(was)}})
			return lost == 0, err
		},
		"meta": func(p *rig) (bool, error) {
			value, revision, err := p.p.LoadMeta(p.ctx, "meta")
			if err == nil {
				_, err = p.p.SwapMeta(p.ctx, engine.Swap{Name: "meta", Revision: revision, Value: []byte(more(string(value)))})
			}
			if errors.Is(err, engine.ErrConflict) {
				return false, nil
			}
			return true, err
		},
	}
	var all sync.WaitGroup
	failed := make(chan error, processes*len(counts))
	for range processes {
		p := r.another("pool_max_conns=4")
		for _, count := range counts {
			all.Add(1)
			go func() {
				defer all.Done()
				for n := 0; n < each; {
					done, err := count(p)
					if err != nil {
						failed <- err
						return
					}
					if done {
						n++
					}
				}
			}()
		}
	}
	all.Wait()
	close(failed)
	for err := range failed {
		require.NoError(t, err)
	}
	want := strconv.Itoa(processes * each)
	require.Equal(t, want, r.value("row"))
	require.Equal(t, want, r.value("replaced"))
	got, err := engine.ReadMeta(r.ctx, r.p, "meta")
	require.NoError(t, err)
	require.Equal(t, want, string(got))
}
