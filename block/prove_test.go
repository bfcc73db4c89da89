package block

import (
	"encoding/binary"
	"fmt"
	"testing"
	"time"

	"github.com/cockroachdb/pebble/v2/vfs"
	"github.com/stretchr/testify/require"

	"github.com/blockseal/blockseal/internal/test/race"
	"github.com/blockseal/blockseal/keyring"
)

// epochRecord is a DEK record as far as prove's walk looks at it.
func epochRecord(epoch uint32) []byte {
	r := make([]byte, keyring.RecordSize)
	r[0] = 1
	binary.BigEndian.PutUint32(r[1:], epoch)
	return r
}

// The sample is of the records, whatever their ids: each place in the order has the same
// chance, and what stands alone in the space of ids has no more than what stands close.
func TestProofSamplesByRank(t *testing.T) {
	const records, rounds = 1000, 400
	counts := make([]int, records)
	for range rounds {
		p := proof{epochs: map[uint32]bool{1: true}}
		for i := range records {
			require.NoError(t, p.take(fmt.Appendf(nil, "%04d", i), epochRecord(1)))
		}
		require.Len(t, p.sample, proofSamples)
		for _, r := range p.sample {
			var i int
			_, err := fmt.Sscanf(string(r.id), "%d", &i)
			require.NoError(t, err)
			counts[i]++
		}
	}
	// Of each tenth of the records about a tenth of the samples: 2,560, with a standard
	// deviation of 48; a thousand fewer or more is no chance.
	for tenth := range 10 {
		sum := 0
		for _, n := range counts[tenth*records/10 : (tenth+1)*records/10] {
			sum += n
		}
		require.InDelta(t, rounds*proofSamples/10, sum, 1000, "tenth %d", tenth)
	}
	p := proof{epochs: map[uint32]bool{1: true}}
	id := []byte("id")
	require.ErrorIs(t, p.take(id, epochRecord(2)), ErrCorrupt)
	require.Empty(t, p.sample)
	require.NoError(t, p.take(id, nil), "what is no record is for the sample to judge")
}

// One good record and a bad one say nothing, and that is not enough; two good ones are.
func TestProofNeedsMoreGoodThanBad(t *testing.T) {
	for name, c := range map[string]struct {
		good, bad int
		ok        bool
	}{
		"none": {0, 0, true}, "one good": {1, 0, true}, "one bad": {0, 1, false}, "a tie": {1, 1, false},
		"a larger tie": {5, 5, false}, "most good": {2, 1, true}, "most bad": {2, 3, false},
	} {
		t.Run(name, func(t *testing.T) {
			fs := vfs.NewMem()
			s, err := Open(t.Context(), "store", goldenKEK(t), goldenOptions(fs))
			require.NoError(t, err)
			for i := range c.good + c.bad {
				id := fmt.Appendf(nil, "%02d", i)
				require.NoError(t, s.Put(t.Context(), id, nil))
				if i >= c.good {
					key := appendKey(nil, spaceDEK, 0, id)
					record := s.Engine(key)
					record[len(record)-1] ^= 1
					s.SetEngine(key, record)
				}
			}
			require.NoError(t, s.Close())
			s, err = Open(t.Context(), "store", goldenKEK(t), goldenOptions(fs))
			if c.ok {
				require.NoError(t, err)
				require.NoError(t, s.Close())
			} else {
				require.ErrorIs(t, err, ErrCorrupt)
			}
		})
	}
}

// A store larger than what is walked from the start is opened after a bounded walk, and
// one of its records far from there that names an epoch which there is not can be missed;
// of those that are walked none is.
func TestProofOfALargeStore(t *testing.T) {
	if race.Enabled {
		t.Skip("one goroutine does the same 160,000 times")
	}
	fs := vfs.NewMem()
	o := goldenOptions(fs)
	o.NoSync = true
	s, err := Open(t.Context(), "store", goldenKEK(t), o)
	require.NoError(t, err)
	const records = proofFirst + 2*proofRun
	id := func(i int) []byte { return fmt.Appendf(nil, "page/%06d", i) }
	b := s.NewBatch()
	for i := range records {
		require.NoError(t, b.Put(t.Context(), id(i), nil))
	}
	require.NoError(t, b.Commit(t.Context()))
	h, err := s.keys.Acquire()
	require.NoError(t, err)
	s.proven.Store(false)
	require.NoError(t, s.prove(t.Context(), &h))
	require.True(t, s.proven.Load())
	key := appendKey(nil, spaceDEK, 0, id(proofFirst-1))
	record := s.Engine(key)
	binary.BigEndian.PutUint32(record[1:], 99)
	s.SetEngine(key, record)
	s.proven.Store(false)
	err = s.prove(t.Context(), &h)
	require.ErrorIs(t, err, ErrCorrupt)
	require.ErrorContains(t, err, "names epoch 99, which the keyring does not have")
	require.False(t, s.proven.Load())
	h.Release()
	require.NoError(t, s.Close())
}

// BenchmarkProve is what opening a store costs for it.
func BenchmarkProve(b *testing.B) {
	for _, records := range []int{1000, 100_000, 1_000_000} {
		b.Run(fmt.Sprint(records), func(b *testing.B) {
			o := goldenOptions(nil)
			o.NoSync, o.MemTable, o.Keyring.Lease = true, 0, 10*time.Minute
			s, err := Open(b.Context(), b.TempDir()+"/store", goldenKEK(b), o)
			require.NoError(b, err)
			defer s.Close()
			for i := 0; i < records; {
				batch := s.NewBatch()
				for range min(records-i, 10_000) {
					require.NoError(b, batch.Put(b.Context(), fmt.Appendf(nil, "page/%09d", i), nil))
					i++
				}
				require.NoError(b, batch.Commit(b.Context()))
			}
			h, err := s.keys.Acquire()
			require.NoError(b, err)
			defer h.Release()
			for b.Loop() {
				require.NoError(b, s.prove(b.Context(), &h))
			}
		})
	}
}
