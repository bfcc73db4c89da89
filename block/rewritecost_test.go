package block

import (
	"fmt"
	"testing"

	"github.com/cockroachdb/pebble/v2/vfs"
	"github.com/stretchr/testify/require"

	"github.com/blockseal/blockseal/kek"
	"github.com/blockseal/blockseal/keyring"
	"github.com/blockseal/blockseal/vault/vaulttest"
)

// costRig is a store of n blocks that was just opened, so that nothing is cached.
func costRig(t *testing.T, n int, o Options) *Store {
	v := vaulttest.New(nil)
	k := kek.New(v, v.CreateKey("customer").Versionless())
	o.FS, o.MemTable = vfs.NewMem(), 1<<20
	s, err := Open(t.Context(), "store", k, &o)
	require.NoError(t, err)
	for i := range n {
		require.NoError(t, s.Put(t.Context(), fmt.Appendf(nil, "%03d", i), []byte("data")))
	}
	require.NoError(t, s.Close())
	s, err = Open(t.Context(), "store", k, &o)
	require.NoError(t, err)
	t.Cleanup(func() { require.NoError(t, s.Close()) })
	return s
}

// What rewrites all records leaves the cache to those that are read, and keeps them right.
func TestRewritesDoNotFloodTheRecordCache(t *testing.T) {
	s := costRig(t, 300, Options{RowCache: -1})
	read := func() {
		for i := range 5 {
			_, err := s.Get(t.Context(), fmt.Appendf(nil, "%03d", 50*i), nil)
			require.NoError(t, err)
		}
	}
	read()
	before := s.records.stats()
	require.Equal(t, 5, before.Entries)
	require.NoError(t, s.RotateEpoch(t.Context(), nil))
	require.NoError(t, s.Rekey(t.Context(), Range{}, nil))
	require.Equal(t, 5, s.records.stats().Entries)
	read()
	after := s.records.stats()
	require.Equal(t, before.Hits+5, after.Hits)
	require.Equal(t, before.Misses, after.Misses)
	for i := range 5 {
		id := fmt.Sprintf("%03d", 50*i)
		record, ok := s.records.get(nil, []byte(id))
		require.True(t, ok)
		require.Equal(t, s.Records()[id], string(record), "it is the one of now")
	}
}

// RewrapDEKs gives the turn away after some records, also when it finds none to rewrap.
func TestRewrapLooksAtAFewRecordsInATurn(t *testing.T) {
	s := costRig(t, 200, Options{ManualRewrap: true, Keyring: keyring.Options{Wrapping: keyring.ByKEK}})
	s.steps.records = 1
	_, active := s.keys.KEKs()
	mt := s.meter(workRewrap, nil, 1, nil)
	defer mt.end(nil)
	var left leftRecords
	turns := 0
	for next, more := []byte(nil), true; more; turns++ {
		from := next
		var err error
		next, more, err = s.rewrapChunk(t.Context(), from, active, false, mt, &left)
		require.NoError(t, err)
		if more {
			require.Equal(t, fmt.Sprintf("%03d", 64*(turns+1)), string(next))
		}
	}
	require.Equal(t, 4, turns)
}
