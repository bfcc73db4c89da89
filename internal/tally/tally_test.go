package tally

import (
	"sync"
	"testing"

	"github.com/stretchr/testify/require"
)

// Counts are exact, and never go back, also where a word is emptied into the sums.
func TestCountsAreExact(t *testing.T) {
	const workers, each, size = 4, 100, 1 << 34 // a word takes 32 of them
	var c Counts
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

	var small Counts
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
	var c Counts
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
