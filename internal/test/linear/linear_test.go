// Package linear checks that a store is linearisable: several goroutines put, get,
// delete, commit batches and read snapshots on a few blocks, with rotations going on,
// and porcupine looks for one order of all that explains every answer and agrees with
// real time.
//
//	go test ./internal/test/linear -v
//	go test ./internal/test/linear -v -rounds 2000 -timeout 2h
package linear

import (
	"context"
	"encoding/binary"
	"errors"
	"flag"
	"fmt"
	"math/rand/v2"
	"sync"
	"testing"
	"time"

	"github.com/anishathalye/porcupine"
	"github.com/cockroachdb/pebble/v2/vfs"
	"github.com/stretchr/testify/require"

	"github.com/blockseal/blockseal/block"
	"github.com/blockseal/blockseal/internal/test/seed"
	"github.com/blockseal/blockseal/kek"
	"github.com/blockseal/blockseal/keyring"
	"github.com/blockseal/blockseal/vault/vaulttest"
)

var (
	rounds = flag.Int("rounds", 200, "histories to check")
)

const (
	blocks  = 3
	clients = 4
	each    = 40 // operations of a client
)

// state is the blocks' values; 0 is a block that is not there.
type state [blocks]uint64

// input is an operation: what it sets, by block, or what it asks for.
type input struct {
	op  string
	set map[int]uint64 // 0 deletes
	get int
}

// model is what a store is: operations happen one at a time, each whole.
var model = porcupine.Model{
	Init: func() any { return state{} },
	Step: func(s, in, out any) (bool, any) {
		now, i := s.(state), in.(input)
		switch i.op {
		case "change":
			for b, v := range i.set {
				now[b] = v
			}
			return true, now
		case "get":
			return now[i.get] == out.(uint64), now
		default: // a snapshot, or a walk
			return now == out.(state), now
		}
	},
	DescribeOperation: func(in, out any) string { return fmt.Sprintf("%+v: %v", in, out) },
}

func id(b int) []byte { return fmt.Appendf(nil, "block %d", b) }

// content is a value in a block: enough bytes for values to be kept apart from keys
// by the engine, or not.
func content(v uint64) []byte {
	return append(binary.BigEndian.AppendUint64(nil, v), make([]byte, v%3*900)...)
}

func value(data []byte, err error) (uint64, error) {
	if errors.Is(err, block.ErrNotFound) {
		return 0, nil
	}
	if err != nil {
		return 0, err
	}
	return binary.BigEndian.Uint64(data), nil
}

// do does one operation.
func do(ctx context.Context, s *block.Store, rng *rand.Rand, next func() uint64) (in input, out any, err error) {
	b := rng.IntN(blocks)
	switch rng.IntN(8) {
	case 0, 1:
		v := next()
		return input{op: "change", set: map[int]uint64{b: v}}, nil, s.Put(ctx, id(b), content(v))
	case 2:
		return input{op: "change", set: map[int]uint64{b: 0}}, nil, s.Delete(ctx, id(b))
	case 3:
		in = input{op: "change", set: map[int]uint64{}}
		batch := s.NewBatch()
		for _, b := range rng.Perm(blocks)[:2] {
			v := next()
			in.set[b] = v
			err = errors.Join(err, batch.Put(ctx, id(b), content(v)))
		}
		return in, nil, errors.Join(err, batch.Commit(ctx))
	case 4:
		var got state
		snap := s.Snapshot()
		for b := range blocks {
			v, e := value(snap.Get(ctx, id(b), nil))
			got[b], err = v, errors.Join(err, e)
		}
		return input{op: "snapshot"}, got, errors.Join(err, snap.Close())
	case 5:
		var got state
		for b, err := range s.Blocks(ctx, block.Range{}) {
			if err != nil {
				return in, nil, err
			}
			got[b.ID[len(b.ID)-1]-'0'] = binary.BigEndian.Uint64(b.Data)
		}
		return input{op: "walk"}, got, nil
	default:
		v, err := value(s.Get(ctx, id(b), nil))
		return input{op: "get", get: b}, v, err
	}
}

// history runs the clients once.
func history(t *testing.T, ctx context.Context, s *block.Store, rng *rand.Rand) []porcupine.Operation {
	var mu sync.Mutex
	var ops []porcupine.Operation
	var last uint64
	next := func() uint64 {
		mu.Lock()
		defer mu.Unlock()
		last++
		return last
	}
	for b := range blocks {
		require.NoError(t, s.Delete(ctx, id(b)))
	}
	start := time.Now()
	var wg sync.WaitGroup
	for c := range clients {
		rng := rand.New(rand.NewPCG(rng.Uint64(), uint64(c)))
		wg.Go(func() {
			for range each {
				call := time.Since(start)
				in, out, err := do(ctx, s, rng, next)
				end := time.Since(start)
				if err != nil {
					t.Errorf("%+v: %v", in, err)
					return
				}
				mu.Lock()
				ops = append(ops, porcupine.Operation{ClientId: c, Input: in, Output: out, Call: int64(call), Return: int64(end)})
				mu.Unlock()
			}
		})
	}
	wg.Wait()
	return ops
}

func TestLinearisable(t *testing.T) {
	t.Logf("-rounds %d", *rounds)
	ctx := context.Background()
	rng := rand.New(rand.NewPCG(seed.Of(t), 0))
	checked, rotations := 0, 0
	for _, rows := range []int64{0, -1} { // with the row cache, and without
		v := vaulttest.New(nil)
		s, err := block.Open(ctx, "store", kek.New(v, v.CreateKey("k").Versionless()), &block.Options{
			Pebble: block.PebbleOptions{FS: vfs.NewMem(), MemTable: 256 << 10}, NoSync: true, RowCache: rows,
			Keyring: keyring.Options{EpochMaxDEKs: 5000}})
		require.NoError(t, err)
		stop := make(chan struct{})
		done := make(chan error)
		go func() {
			for {
				select {
				case <-stop:
					done <- nil
					return
				case <-time.After(time.Millisecond):
				}
				if err := errors.Join(s.RotateEpoch(ctx, nil), s.Rekey(ctx, block.Range{}, nil)); err != nil {
					done <- err
					return
				}
				rotations++
			}
		}()
		for range *rounds / 2 {
			ops := history(t, ctx, s, rng)
			require.True(t, porcupine.CheckOperations(model, ops), "no order explains the answers: %v", ops)
			checked += len(ops)
		}
		close(stop)
		require.NoError(t, <-done)
		_, err = s.Verify(ctx, nil)
		require.NoError(t, err)
		require.NoError(t, s.Close())
	}
	require.Equal(t, *rounds/2*2*clients*each, checked)
	t.Logf("%d operations in %d histories checked, %d rotations beside them", checked, *rounds/2*2, rotations)
}

// The model refuses what a store must not do.
func TestTheModelRefuses(t *testing.T) {
	op := func(client int, in input, out any, call, end int64) porcupine.Operation {
		return porcupine.Operation{ClientId: client, Input: in, Output: out, Call: call, Return: end}
	}
	put := op(0, input{op: "change", set: map[int]uint64{0: 1, 1: 1}}, nil, 0, 10)
	for what, ops := range map[string][]porcupine.Operation{
		"a stale read":            {put, op(1, input{op: "get", get: 0}, uint64(0), 11, 12)},
		"half a batch":            {put, op(1, input{op: "snapshot"}, state{1, 0}, 5, 6)},
		"a read that goes back":   {put, op(1, input{op: "get", get: 0}, uint64(1), 2, 3), op(1, input{op: "get", get: 0}, uint64(0), 4, 5)},
		"a value from nowhere":    {put, op(1, input{op: "get", get: 0}, uint64(9), 5, 6)},
		"a deletion that is lost": {put, op(0, input{op: "change", set: map[int]uint64{0: 0}}, nil, 11, 12), op(1, input{op: "get", get: 0}, uint64(1), 13, 14)},
	} {
		require.False(t, porcupine.CheckOperations(model, ops), what)
	}
	require.True(t, porcupine.CheckOperations(model, []porcupine.Operation{put, op(1, input{op: "get", get: 0}, uint64(0), 5, 6)}))
}
