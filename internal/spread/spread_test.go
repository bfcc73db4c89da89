package spread

import (
	"runtime"
	"slices"
	"sync"
	"sync/atomic"
	"testing"
	"unsafe"

	"github.com/stretchr/testify/require"
)

type line struct {
	n atomic.Int64
	_ [56]byte
}

func reset(l *line) { l.n.Store(0) }

// owner is what has lines, in memory of its own.
type owner struct {
	lines Lines[line]
	_     [64]byte
}

func take(r *Room[line]) *owner {
	o := new(owner)
	o.lines = Take(r, o)
	return o
}

func sum(l *Lines[line]) (n int64) {
	for c := range l.All() {
		n += c.n.Load()
	}
	return n
}

// Nothing that goroutines count at the same time is lost, and all of it is the owner's.
func TestLines(t *testing.T) {
	r := NewRoom(reset)
	alone := New[line]()
	owners := []*Lines[line]{&alone}
	for range 100 {
		owners = append(owners, &take(r).lines)
	}
	seen := map[*line]bool{}
	for _, l := range owners {
		require.Len(t, slices.Collect(l.All()), Shards)
		for c := range l.All() {
			require.False(t, seen[c], "two have the same line")
			seen[c] = true
		}
		require.Contains(t, slices.Collect(l.All()), l.Mine())
	}
	var wg sync.WaitGroup
	for range 8 {
		wg.Go(func() {
			for i, l := range owners {
				for range i + 1 {
					l.Mine().n.Add(1)
				}
			}
		})
	}
	wg.Wait()
	for i, l := range owners {
		require.EqualValues(t, 8*(i+1), sum(l))
	}
}

// The same line of owners that follow one another lies together, and the first owners do not have the memory of
// many.
func TestOwnersLieTogether(t *testing.T) {
	r := NewRoom(reset)
	made := []int{}
	var owners []*owner
	for range 4 * most {
		owners = append(owners, take(r))
		made = append(made, r.made)
	}
	require.Equal(t, []int{1, 2, 4, 4, 8, 8, 8, 8, 16}, made[:9])
	require.Equal(t, 4*most, r.made)
	near := func(a, b *line) bool {
		return uintptr(unsafe.Pointer(b))-uintptr(unsafe.Pointer(a)) == unsafe.Sizeof(line{})
	}
	last := owners[len(owners)-most:]
	for i := range most - 1 {
		a, b := slices.Collect(last[i].lines.All()), slices.Collect(last[i+1].lines.All())
		for shard := range Shards {
			require.True(t, near(a[shard], b[shard]))
		}
	}
}

// Lines of owners that are garbage become others', and nothing that was counted in them is left.
func TestLinesOfGarbage(t *testing.T) {
	r := NewRoom(reset)
	kept := take(r)
	kept.lines.Mine().n.Add(7)
	func() {
		for range most - 1 {
			o := take(r)
			o.lines.Mine().n.Add(1)
			runtime.KeepAlive(o)
		}
	}()
	free := func() int {
		r.mu.Lock()
		defer r.mu.Unlock()
		return len(r.free)
	}
	for free() < most-1 {
		runtime.GC()
		runtime.Gosched()
	}
	for range most - 1 {
		o := take(r)
		require.Zero(t, sum(&o.lines))
		defer runtime.KeepAlive(o)
	}
	require.Equal(t, most, r.made, "no more memory than before")
	require.EqualValues(t, 7, sum(&kept.lines))
}
