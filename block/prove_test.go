package block

import (
	"fmt"
	"testing"
	"time"

	"github.com/cockroachdb/pebble/v2/vfs"
	"github.com/stretchr/testify/require"
)

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

// BenchmarkProve is what opening a store costs for it.
func BenchmarkProve(b *testing.B) {
	for _, records := range []int{1000, 100_000, 1_000_000} {
		b.Run(fmt.Sprint(records), func(b *testing.B) {
			o := goldenOptions(nil)
			o.NoSync, o.Pebble.MemTable, o.Keyring.Lease = true, 0, 10*time.Minute
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
				s.proven.Store(false)
				require.NoError(b, s.prove(b.Context(), &h))
			}
		})
	}
}
