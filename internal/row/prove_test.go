package row

import (
	"bytes"
	"context"
	"encoding/binary"
	"fmt"
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/blockseal/blockseal/internal/engine"
	"github.com/blockseal/blockseal/internal/inner"
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
			require.NoError(t, p.offer(fmt.Appendf(nil, "%04d", i), epochRecord(1)))
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
	require.ErrorIs(t, p.offer(id, epochRecord(2)), keyring.ErrCorrupt)
	require.Empty(t, p.sample)
	require.NoError(t, p.offer(id, nil), "what is no record is for the sample to judge")
}

// A store larger than what is walked from the start is opened after a bounded walk, and
// one of its records far from there that names an epoch which there is not can be missed;
// of those that are walked none is.
func TestProofOfALargeStore(t *testing.T) {
	if race.Enabled {
		t.Skip("one goroutine does the same 160,000 times")
	}
	ctx := t.Context()
	table, keys := newTable(t, Config{})
	const records = proofFirst + 2*proofRun
	id := func(i int) []byte { return fmt.Appendf(nil, "page/%06d", i) }
	h, err := keys.Acquire()
	require.NoError(t, err)
	defer func() { h.Release() }()
	b := table.Part.NewBatch()
	for i := range records {
		_, err := table.Add(ctx, &h, b, id(i), nil)
		require.NoError(t, err)
	}
	require.NoError(t, table.Commit(ctx, &h, b, h.For(inner.Block{}).CurrentEpoch()))
	require.NoError(t, Prove(ctx, table.Part, &h))
	var r engine.Row
	require.NoError(t, table.Part.Get(ctx, id(proofFirst-1), engine.Record, &r))
	was := engine.Was{ID: id(proofFirst - 1), Record: bytes.Clone(r.Record)}
	b = table.Part.NewBatch()
	record := bytes.Clone(was.Record)
	binary.BigEndian.PutUint32(record[1:], 99)
	require.NoError(t, b.PutRecord(was.ID, record))
	lost, err := table.Replace(ctx, b, []engine.Was{was})
	require.NoError(t, err)
	require.Zero(t, lost)
	err = Prove(ctx, table.Part, &h)
	require.ErrorIs(t, err, keyring.ErrCorrupt)
	require.ErrorContains(t, err, "names epoch 99, which the keyring does not have")
}

// What a ctx that has ended says of records is nothing.
func TestProofThatIsCutOff(t *testing.T) {
	table, keys := newTable(t, Config{})
	table.put(t, t.Context(), "a", nil)
	ctx, cancel := context.WithCancel(t.Context())
	held(t, keys, func(h *keyring.Hold) {
		cut := &cutReader{Partition: table.Part, cut: cancel}
		err := Prove(ctx, cut, h)
		require.ErrorIs(t, err, context.Canceled)
		require.NotErrorIs(t, err, keyring.ErrCorrupt)
	})
}

// cutReader ends a context when a cursor is asked for.
type cutReader struct {
	engine.Partition
	cut func()
}

func (c *cutReader) Cursor(ctx context.Context, part engine.Parts, lower, upper []byte) (engine.Cursor, error) {
	it, err := c.Partition.Cursor(ctx, part, lower, upper)
	c.cut()
	return it, err
}
