package block_test

import (
	"bytes"
	"encoding/binary"
	"fmt"
	"sync"
	"sync/atomic"
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/blockseal/blockseal/block"
)

// After RotateEpoch every record is under the new epoch, and the old one is gone.
func TestRotateEpoch(t *testing.T) {
	g := newRig(t)
	s := g.open()
	for i := range 1000 {
		require.NoError(t, s.Put(g.ctx, fmt.Appendf(nil, "%04d", i), fmt.Appendf(nil, "data %d", i)))
	}
	batch := s.NewBatch() // begun under the old epoch, committed after it has gone
	require.NoError(t, batch.Put(g.ctx, []byte("batch"), []byte("late")))
	snap := s.Snapshot()
	defer snap.Close()

	g.vault.ResetCalls()
	require.NoError(t, s.RotateEpoch(g.ctx, nil))
	require.Zero(t, g.vault.Calls().Total(), "no vault call, whatever the data")
	require.NoError(t, batch.Commit(g.ctx))

	rep, err := s.Verify(g.ctx, nil)
	require.NoError(t, err)
	require.Equal(t, map[uint32]uint64{2: 1001}, rep.DEKs)
	require.Equal(t, 1, s.State().Epochs)
	got, err := s.Get(g.ctx, []byte("batch"), nil)
	require.NoError(t, err)
	require.Equal(t, "late", string(got))

	// What was taken before still reads the records of its moment.
	got, err = snap.Get(g.ctx, []byte("0500"), nil)
	require.NoError(t, err)
	require.Equal(t, "data 500", string(got))
	_, err = snap.Get(g.ctx, []byte("batch"), nil)
	require.ErrorIs(t, err, block.ErrNotFound)
}

// Rekey gives every block in the range another DEK, and no other block.
func TestRekey(t *testing.T) {
	g := newRig(t)
	s := g.open()
	for i := range 300 {
		require.NoError(t, s.Put(g.ctx, fmt.Appendf(nil, "%04d", i), bytes.Repeat([]byte{byte(i)}, 10_000)))
	}
	before := s.Records()
	r := block.Range{Start: []byte("0100"), End: []byte("0200")}
	var last block.Step
	require.NoError(t, s.Rekey(g.ctx, r, func(p block.Step) { last = p }))
	require.EqualValues(t, 100, last.Done)
	require.EqualValues(t, 1_000_000, last.Bytes)
	after := s.Records()
	for id, record := range before {
		inside := id >= "0100" && id < "0200"
		require.Equal(t, inside, record != after[id], id)
	}
	for i := range 300 {
		got, err := s.Get(g.ctx, fmt.Appendf(nil, "%04d", i), nil)
		require.NoError(t, err)
		require.Equal(t, bytes.Repeat([]byte{byte(i)}, 10_000), got)
	}
}

// Writers win over every rotation: no counter ever goes back.
func TestRewritingLosesNoUpdate(t *testing.T) {
	g := newRig(t)
	g.opts.NoSync = true
	s := g.open()
	const keys, writers = 64, 4
	id := func(k int) []byte { return fmt.Appendf(nil, "counter %02d", k) }
	var stop atomic.Bool
	var wg sync.WaitGroup
	last := make([]uint64, keys)
	for w := range writers {
		wg.Go(func() {
			for n := uint64(1); !stop.Load(); n++ {
				for k := w; k < keys; k += writers { // each key has one writer
					if n%3 == 0 {
						b := s.NewBatch()
						if !check(t, b.Put(g.ctx, id(k), binary.BigEndian.AppendUint64(nil, n))) ||
							!check(t, b.Commit(g.ctx)) {
							return
						}
					} else if !check(t, s.Put(g.ctx, id(k), binary.BigEndian.AppendUint64(nil, n))) {
						return
					}
					last[k] = n
					got, err := s.Get(g.ctx, id(k), nil)
					if !check(t, err) {
						return
					}
					if v := binary.BigEndian.Uint64(got); v != n {
						t.Errorf("counter %d: wrote %d, read %d", k, n, v)
						return
					}
				}
			}
		})
	}
	for range 20 {
		require.NoError(t, s.RotateEpoch(g.ctx, nil))
		require.NoError(t, s.Rekey(g.ctx, block.Range{}, nil))
		require.NoError(t, s.RotateKEK(g.ctx))
	}
	stop.Store(true)
	wg.Wait()
	for k := range keys {
		got, err := s.Get(g.ctx, id(k), nil)
		require.NoError(t, err)
		require.Equal(t, last[k], binary.BigEndian.Uint64(got))
	}
}

func check(t *testing.T, err error) bool {
	if err != nil {
		t.Error(err)
	}
	return err == nil
}

// A store whose epochs are as many as a keyring holds can be written to, and rotated,
// which leaves one.
func TestRotateEpochOfTooManyEpochs(t *testing.T) {
	g := newRig(t)
	g.opts.NoSync = true
	g.opts.Keyring.EpochMaxDEKs, g.opts.Keyring.MaxEpochs = 1, 128
	s := g.open()
	for i := range 200 {
		require.NoError(t, s.Put(g.ctx, fmt.Append(nil, i%3), fmt.Append(nil, i)))
	}
	require.Equal(t, 126, s.State().Epochs)
	var before uint32
	for range 2 { // the second makes room for itself first
		require.NoError(t, s.RotateEpoch(g.ctx, nil))
		require.LessOrEqual(t, s.State().Epochs, 4)
		require.Greater(t, s.State().Epoch, before)
		before = s.State().Epoch
		for i := range 3 {
			_, err := s.Get(g.ctx, fmt.Append(nil, i), nil)
			require.NoError(t, err)
		}
		s.FillEpochs(t, g.ctx)
		require.Equal(t, 128, s.State().Epochs)
	}
	_, err := s.Erase(g.ctx, nil)
	require.NoError(t, err)
	require.LessOrEqual(t, s.State().Epochs, 4)
}
