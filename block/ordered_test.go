package block_test

import (
	"bytes"
	"errors"
	"fmt"
	"math/rand/v2"
	"runtime"
	"slices"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"
	"testing"

	"github.com/stretchr/testify/require"
	"pgregory.net/rapid"

	"github.com/blockseal/blockseal/block"
	"github.com/blockseal/blockseal/internal/test/seed"
	"github.com/blockseal/blockseal/keyring"
)

func TestPrefix(t *testing.T) {
	for p, want := range map[string]block.Range{
		"":           {},
		"a":          {Start: []byte("a"), End: []byte("b")},
		"a\x00":      {Start: []byte("a\x00"), End: []byte("a\x01")},
		"a\xff":      {Start: []byte("a\xff"), End: []byte("b")},
		"a\xff\xff":  {Start: []byte("a\xff\xff"), End: []byte("b")},
		"\xff":       {Start: []byte("\xff")},
		"\xff\xff":   {Start: []byte("\xff\xff")},
		"\xfe\xff":   {Start: []byte("\xfe\xff"), End: []byte("\xff")},
		"tenant/42/": {Start: []byte("tenant/42/"), End: []byte("tenant/420")},
	} {
		got := block.Prefix([]byte(p))
		require.True(t, bytes.Equal(want.Start, got.Start), "%q", p)
		require.Equal(t, want.End, got.End, "%q", p)
	}
	some := rapid.SliceOfN(rapid.SampledFrom([]byte{0, 1, 'a', 0xfe, 0xff}), 0, 4)
	seed.Rapid(t)
	rapid.Check(t, func(t *rapid.T) {
		p, id := some.Draw(t, "prefix"), some.Draw(t, "id")
		r := block.Prefix(p)
		in := bytes.Compare(id, r.Start) >= 0 && (r.End == nil || bytes.Compare(id, r.End) < 0)
		require.Equal(t, bytes.HasPrefix(id, p), in)
	})
}

// Walks have the blocks of their range, all of them once, in order and back, with and without
// their contents, also where they read ahead, and where they end early.
func TestWalksBothWays(t *testing.T) {
	was := runtime.GOMAXPROCS(max(runtime.GOMAXPROCS(0), 4))
	defer runtime.GOMAXPROCS(was)
	g := newRig(t)
	s := g.open()
	rnd := rand.New(rand.NewPCG(1, 2))
	model := map[string]string{}
	for i := range 700 {
		id := strconv.FormatInt(rnd.Int64N(1<<20), 16)
		data := strings.Repeat(id, rnd.IntN(40))
		if i%70 == 0 {
			data = strings.Repeat("x", 300<<10) // more than a chunk has room for
		}
		model[id] = data
		require.NoError(t, s.Put(g.ctx, []byte(id), []byte(data)))
	}
	sn := s.Snapshot()
	defer sn.Close()
	ids := slices.Sorted(func(yield func(string) bool) {
		for id := range model {
			if !yield(id) {
				return
			}
		}
	})
	bound := func() []byte {
		switch rnd.IntN(4) {
		case 0:
			return nil
		case 1:
			return []byte(ids[rnd.IntN(len(ids))])
		}
		return []byte(strconv.FormatInt(rnd.Int64N(1<<20), 16))
	}
	for range 150 {
		r := block.Range{Start: bound(), End: bound(), Reverse: rnd.IntN(2) == 0}
		if r.Start != nil && r.End != nil && bytes.Compare(r.Start, r.End) > 0 {
			r.Start, r.End = r.End, r.Start
		}
		var want []string
		for _, id := range ids {
			if id >= string(r.Start) && (r.End == nil || id < string(r.End)) {
				want = append(want, id)
			}
		}
		if r.Reverse {
			slices.Reverse(want)
		}
		if most := rnd.IntN(2 * len(ids)); most < len(want) {
			want = want[:most]
		}
		walk, list := s.Blocks(g.ctx, r), s.IDs(g.ctx, r)
		if rnd.IntN(2) == 0 {
			walk, list = sn.Blocks(g.ctx, r), sn.IDs(g.ctx, r)
		}
		var got, only []string
		for b, err := range walk {
			require.NoError(t, err)
			if len(got) == len(want) {
				break
			}
			got = append(got, string(b.ID))
			require.True(t, model[string(b.ID)] == string(b.Data), "%s", b.ID)
		}
		for id, err := range list {
			require.NoError(t, err)
			if len(only) == len(want) {
				break
			}
			only = append(only, string(id))
		}
		require.Equal(t, want, got, "%+v", r)
		require.Equal(t, want, only, "%+v", r)
	}
}

// A block that lacks a half ends a walk at its place, whichever way it goes, and whether it reads
// ahead by then; its id is there as long as its DEK is.
func TestWalksFindHalves(t *testing.T) {
	const n = 60
	for _, space := range []byte{2, 3} {
		for _, at := range []int{0, 1, 14, 15, 16, 17, 30, n - 1} {
			for _, back := range []bool{false, true} {
				t.Run(fmt.Sprintf("without %d, at %d, back %t", space, at, back), func(t *testing.T) {
					g := newRig(t)
					s := g.open()
					for i := range n {
						require.NoError(t, s.Put(g.ctx, fmt.Appendf(nil, "%02d", i), []byte("data")))
					}
					s.SetEngine(fmt.Appendf(nil, "%s%02d", string([]byte{space, 0, 0, 0, 0}), at), nil)
					before := at
					if back {
						before = n - 1 - at
					}
					seen, last := 0, error(nil)
					for _, err := range s.Blocks(g.ctx, block.Range{Reverse: back}) {
						if last = err; err == nil {
							seen++
						}
					}
					require.ErrorIs(t, last, block.ErrCorrupt)
					require.ErrorContains(t, last, fmt.Sprintf(`"%02d"`, at))
					require.Equal(t, before, seen)
					listed := 0
					for _, err := range s.IDs(g.ctx, block.Range{Reverse: back}) {
						require.NoError(t, err)
						listed++
					}
					require.Equal(t, n-int(3-space), listed)
					s.SetEngine(fmt.Appendf(nil, "%s%02d", string([]byte{5 - space, 0, 0, 0, 0}), at), nil) // so that the rest is whole
				})
			}
		}
	}
}

// A walk over ids ends with the access, and with its context.
func TestIDsEndWithTheAccess(t *testing.T) {
	g := newRig(t)
	s := g.open()
	g.putMany(s, "block", 30)
	n := 0
	var last error
	for _, err := range s.IDs(g.ctx, block.Range{}) {
		if last = err; err != nil {
			break
		}
		if n++; n == 10 {
			g.vault.SetEnabled(g.key, false)
			require.Error(t, s.Revalidate(g.ctx))
		}
	}
	require.Equal(t, 10, n)
	require.ErrorIs(t, last, block.ErrInaccessible)
	for id, err := range s.IDs(g.ctx, block.Range{}) {
		require.Nil(t, id)
		require.ErrorIs(t, err, block.ErrInaccessible)
	}
	g.vault.SetEnabled(g.key, true)
	require.NoError(t, s.Revalidate(g.ctx))
	for id, err := range s.IDs(g.ctx, block.Range{Start: []byte("b"), End: []byte("a")}) {
		require.Nil(t, id)
		require.ErrorIs(t, err, block.ErrInvalidID)
	}
}

func TestPutIf(t *testing.T) {
	for _, w := range []keyring.Wrapping{keyring.ByKeyring, keyring.ByKEK} {
		t.Run(w.String(), func(t *testing.T) {
			g := newRig(t)
			g.opts.Keyring.Wrapping = w
			s := g.open()
			id := []byte("id")
			is := func(want []byte) {
				t.Helper()
				got, err := s.Get(g.ctx, id, nil)
				if want == nil {
					require.ErrorIs(t, err, block.ErrNotFound)
					return
				}
				require.NoError(t, err)
				require.Equal(t, string(want), string(got))
			}
			now := []byte(nil)
			for i, c := range []struct {
				old, data []byte
				ok        bool
			}{
				{[]byte("a"), []byte("1"), false}, // there is none
				{[]byte{}, []byte("1"), false},
				{nil, []byte{}, true},
				{nil, []byte("1"), false}, // there is one
				{[]byte("a"), []byte("1"), false},
				{[]byte{}, []byte("1"), true},
				{[]byte{}, []byte("2"), false},
				{[]byte("11"), []byte("2"), false},
				{[]byte("1"), []byte("1"), true}, // the same again
				{[]byte("1"), []byte("2"), true},
			} {
				before := s.Sequence()
				err := s.PutIf(g.ctx, id, c.old, c.data)
				if c.ok {
					require.NoError(t, err, "%d", i)
					now = c.data
					require.Equal(t, before+1, s.Sequence())
				} else {
					require.ErrorIs(t, err, block.ErrChanged, "%d", i)
					require.Equal(t, before, s.Sequence())
				}
				is(now)
			}
			require.Zero(t, s.Stats().Failures["put"]["other"], "an answer is no failure")
			require.NoError(t, s.Delete(g.ctx, id))
			require.ErrorIs(t, s.PutIf(g.ctx, id, []byte("2"), nil), block.ErrChanged)
			require.ErrorIs(t, s.PutIf(g.ctx, nil, nil, nil), block.ErrInvalidID)
			require.ErrorIs(t, s.PutIf(g.ctx, id, nil, make([]byte, block.MaxBlock+1)), block.ErrTooLarge)
			require.NoError(t, s.Put(g.ctx, id, []byte("whole")))
			key := append([]byte{3, 0, 0, 0, 0}, id...)
			good := s.Engine(key)
			s.SetEngine(key, good[:len(good)-1])
			require.ErrorIs(t, s.PutIf(g.ctx, id, []byte("whole"), nil), block.ErrCorrupt)
			require.ErrorIs(t, s.PutIf(g.ctx, id, nil, nil), block.ErrCorrupt)
			s.SetEngine(key, good)
			g.vault.SetEnabled(g.key, false)
			require.Error(t, s.Revalidate(g.ctx))
			require.ErrorIs(t, s.PutIf(g.ctx, id, []byte("whole"), nil), block.ErrInaccessible)
			g.vault.SetEnabled(g.key, true)
			require.NoError(t, s.Revalidate(g.ctx))
			is([]byte("whole"))
		})
	}
}

// Callers that count with PutIf count every one, also while everything that there is to
// rewrite is rewritten under them.
func TestPutIfLosesNothing(t *testing.T) {
	for _, w := range []keyring.Wrapping{keyring.ByKeyring, keyring.ByKEK} {
		t.Run(w.String(), func(t *testing.T) {
			g := newRig(t)
			g.opts.Keyring.Wrapping, g.opts.VaultRate = w, 1<<30
			s := g.open()
			id := []byte("counter")
			var done, lost atomic.Int64
			var stop atomic.Bool
			var wg sync.WaitGroup
			for range 3 {
				wg.Go(func() {
					for !stop.Load() {
						old, err := s.Get(g.ctx, id, nil)
						n := 0
						if errors.Is(err, block.ErrNotFound) {
							old, err = nil, nil
						} else if err == nil {
							n, err = strconv.Atoi(string(old))
						}
						if err == nil {
							err = s.PutIf(g.ctx, id, old, []byte(strconv.Itoa(n+1)))
						}
						switch {
						case err == nil:
							done.Add(1)
						case errors.Is(err, block.ErrChanged):
							lost.Add(1)
						default:
							t.Error(err)
							return
						}
					}
				})
			}
			more := func(by int64) {
				for from := done.Load(); done.Load() < from+by && !t.Failed(); {
					runtime.Gosched()
				}
			}
			more(1)
			for range 5 {
				require.NoError(t, s.RotateEpoch(g.ctx, nil))
				more(5)
				require.NoError(t, s.Rekey(g.ctx, block.Range{}, nil))
				more(5)
				g.vault.Rotate("customer")
				require.NoError(t, s.RotateKEK(g.ctx))
				require.NoError(t, s.RewrapDEKs(g.ctx, nil))
				more(5)
			}
			stop.Store(true)
			wg.Wait()
			got, err := s.Get(g.ctx, id, nil)
			require.NoError(t, err)
			require.Equal(t, strconv.FormatInt(done.Load(), 10), string(got))
		})
	}
}
