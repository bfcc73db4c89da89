package tally

import (
	"sync"
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/blockseal/blockseal/keyring"
)

func begun() *Counts {
	c := new(Counts)
	c.Begin(nil)
	return c
}

// Sums add up, and what did not authenticate is counted whatever the operation was.
func TestSumsAddUp(t *testing.T) {
	a, b := begun(), begun()
	a.Got(10, nil)
	b.Got(5, nil)
	b.Put(7, nil)
	a.Fail(Get, keyring.ErrCorrupt)
	b.Fail(Verify, keyring.ErrCorrupt)
	b.Fail(Get, keyring.ErrInaccessible)
	var all Total
	all.Add(a)
	all.Add(b)
	s := all.Sums()
	require.Equal(t, "corrupt", Kind(keyring.ErrCorrupt))
	require.EqualValues(t, []uint64{2, 15, 1, 7}, []uint64{s.Gets, s.ReadBytes, s.Puts, s.WrittenBytes})
	require.EqualValues(t, 1, s.Failures["get"]["corrupt"])
	require.EqualValues(t, 1, s.Failures["get"]["inaccessible"])
	require.EqualValues(t, 1, s.Failures["verify"]["corrupt"])
	require.EqualValues(t, 1, a.Corrupt())
	require.EqualValues(t, 1, b.Corrupt())
	require.Zero(t, begun().Corrupt())
}

// Counts are exact, and never go back, also where a word is emptied into the sums.
func TestCountsAreExact(t *testing.T) {
	const workers, each, size = 4, 100, 1 << 34 // a word takes 32 of them
	c := begun()
	var wg sync.WaitGroup
	for range workers {
		wg.Go(func() {
			for range each {
				c.Got(size, nil)
			}
		})
	}
	done := make(chan struct{})
	go func() { wg.Wait(); close(done) }()
	var last uint64
	for ended := false; !ended; {
		select {
		case <-done:
			ended = true
		default:
		}
		s := c.Sums()
		n, bytes := s.Gets, s.ReadBytes
		require.GreaterOrEqual(t, n, last)
		require.Equal(t, n*size, bytes)
		last = n
	}
	require.EqualValues(t, workers*each, last)

	small := begun()
	const many = 1<<23 + 1000 // half a word's count, and some
	for range many {
		small.Got(1, nil)
	}
	s := small.Sums()
	require.EqualValues(t, many, s.Gets)
	require.EqualValues(t, many, s.ReadBytes)
}

// BenchmarkCount is what counting adds to a Get or a Put.
func BenchmarkCount(b *testing.B) {
	c := begun()
	b.Run("get", func(b *testing.B) {
		for b.Loop() {
			c.Got(100, nil)
		}
	})
	b.Run("get, parallel", func(b *testing.B) {
		b.RunParallel(func(pb *testing.PB) {
			for pb.Next() {
				c.Got(100, nil)
			}
		})
	})
}
