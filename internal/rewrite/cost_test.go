package rewrite

import (
	"fmt"
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/blockseal/blockseal/internal/row"
	"github.com/blockseal/blockseal/keyring"
)

// What rewrites all records leaves the cache to those that are read, and keeps them right.
func TestRewritesDoNotFloodTheRecordCache(t *testing.T) {
	g := newRig(t, keyring.Options{}, 32<<20)
	ctx := t.Context()
	for i := range 300 {
		g.put(fmt.Sprintf("%03d", i), "data")
	}
	// As after it was opened: nothing is in the cache.
	caches := row.NewCommon(row.Engine{}, 32<<20, 0)
	g.Table = row.New(row.Config{Part: g.Table.Part, Keys: g.Keys, Use: g.Use, Common: caches, Wrote: func() {}})
	read := func() {
		g.held(func(h *keyring.Hold) {
			for i := range 5 {
				_, err := g.Table.Get(ctx, h, fmt.Appendf(nil, "%03d", 50*i), nil)
				require.NoError(t, err)
			}
		})
	}
	read()
	before, _ := caches.Stats()
	require.Equal(t, 5, before.Entries)
	_, err := g.RotateEpoch(ctx, nil)
	require.NoError(t, err)
	require.NoError(t, g.Rekey(ctx, nil, nil, nil))
	now, _ := caches.Stats()
	require.Equal(t, 5, now.Entries)
	read() // what is in the cache opens, or it would be a miss
	after, _ := caches.Stats()
	require.Equal(t, before.Hits+5, after.Hits)
	require.Equal(t, before.Misses, after.Misses)
}

// RewrapDEKs gives the turn away after some records, also when it finds none to rewrap.
func TestRewrapLooksAtAFewRecordsInATurn(t *testing.T) {
	g := newRig(t, keyring.Options{Wrapping: keyring.ByKEK}, 0)
	for i := range 200 {
		g.put(fmt.Sprintf("%03d", i), "data")
	}
	g.Steps.Records = 1
	mt := g.Board.Meter(WorkRewrap, nil, 1, nil)
	defer mt.End(nil)
	var left leftRecords
	turns := 0
	for next, more := []byte(nil), true; more; turns++ {
		var err error
		next, more, err = g.rewrapChunk(t.Context(), next, func(keyring.RecordInfo) bool { return false }, mt, &left)
		require.NoError(t, err)
		if more {
			require.Equal(t, fmt.Sprintf("%03d", 64*(turns+1)), string(next))
		}
	}
	require.Equal(t, 4, turns)
}
