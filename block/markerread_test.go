package block

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"testing"
	"time"

	"github.com/cockroachdb/pebble/v2/vfs"
	"github.com/stretchr/testify/require"

	"github.com/blockseal/blockseal/internal/engine"
	"github.com/blockseal/blockseal/internal/rewrite"
	"github.com/blockseal/blockseal/internal/tagged"
	"github.com/blockseal/blockseal/kek"
	"github.com/blockseal/blockseal/keyring"
	"github.com/blockseal/blockseal/vault/vaulttest"
)

// markerRig is a store of 20 blocks.
func markerRig(t *testing.T) (context.Context, *vaulttest.Clock, *Store) {
	ctx := t.Context()
	clock := vaulttest.NewClock(time.Date(2026, 3, 1, 12, 0, 0, 0, time.UTC))
	v := vaulttest.New(&vaulttest.Options{Clock: clock})
	id := v.CreateKey("customer")
	s, err := Open(ctx, "store", kek.New(v, id.Versionless()), &Options{Pebble: PebbleOptions{FS: vfs.NewMem(), MemTable: 1 << 20},
		Keyring: keyring.Options{Clock: clock, RekeyAfter: time.Hour, ManualRevalidation: true}})
	require.NoError(t, err)
	t.Cleanup(func() { require.NoError(t, s.Close()) })
	for i := range 20 {
		require.NoError(t, s.Put(ctx, fmt.Appendf(nil, "%02d", i), []byte("data")))
	}
	return ctx, clock, s
}

// A marker that is the store's own and cannot be read makes its operation begin anew, and
// do all of its work.
func TestMarkersThatCannotBeRead(t *testing.T) {
	for name, op := range map[string]func(*Store, context.Context) error{
		rewrite.MarkerRotateEpoch: func(s *Store, ctx context.Context) error { return s.RotateEpoch(ctx, nil) },
		rewrite.MarkerRekey:       func(s *Store, ctx context.Context) error { return s.Rekey(ctx, Range{}, nil) },
		rewrite.MarkerRenew:       func(s *Store, ctx context.Context) error { return s.rewriter.Renew(ctx) },
	} {
		for what, record := range map[string][]byte{
			"of a later version": {2, 0, 0, 0, 1},
			"cut off":            rewrite.Marker{Epoch: 1, Next: []byte("19")}.Encode()[:12],
			"too long":           append(rewrite.Marker{Epoch: 1, Next: []byte("19")}.Encode(), 0),
			"empty":              {},
		} {
			t.Run(name+" "+what, func(t *testing.T) {
				ctx, clock, s := markerRig(t)
				clock.Advance(9 * time.Minute) // access lasts, and the DEKs are about to be due
				h, err := s.keys.Acquire()
				require.NoError(t, err)
				marked, err := tagged.Record(&h, name, record)
				require.NoError(t, err)
				require.NoError(t, s.writeMeta(ctx, name, marked))
				h.Release()
				before := s.Records()
				if name == rewrite.MarkerRenew {
					clock.Step(time.Hour) // from now on the store does it by itself, too
				}
				require.NoError(t, op(s, ctx))
				for id, r := range s.Records() {
					require.NotEqual(t, before[id], r, id)
				}
				require.Eventually(t, func() bool {
					_, err := engine.ReadMeta(ctx, s.part, name)
					return errors.Is(err, engine.ErrNotFound)
				}, time.Minute, time.Millisecond, "the marker is gone")
			})
		}
	}
}

// A range with a bound that no id reaches is refused before anything is written; the
// longest that means something is not.
func TestRekeyOfARangeWithLongBounds(t *testing.T) {
	ctx, _, s := markerRig(t)
	long := bytes.Repeat([]byte("0"), MaxID+1)
	for name, r := range map[string]Range{
		"start":        {Start: append(bytes.Clone(long), 0)},
		"end":          {End: append(bytes.Clone(long), 0)},
		"out of order": {Start: []byte("b"), End: []byte("a")},
	} {
		before := s.Records()
		err := s.Rekey(ctx, r, nil)
		require.ErrorIs(t, err, ErrInvalidID, name)
		found, err := rewrite.HasMarker(ctx, s.part, rewrite.MarkerRekey)
		require.NoError(t, err)
		require.False(t, found, name)
		require.Equal(t, before, s.Records(), name)
	}
	before := s.Records()
	s.SetSteps(2, 1)
	left := 4
	require.ErrorIs(t, s.Rekey(cutOff{ctx, &left}, Range{Start: long}, nil), context.Canceled)
	require.NoError(t, s.Rekey(ctx, Range{Start: long}, nil), "its marker is read")
	after := s.Records()
	require.Equal(t, before["00"], after["00"], "it is before the range")
	require.NotEqual(t, before["19"], after["19"])
}

// cutOff is a context that has ended when it was asked a few times.
type cutOff struct {
	context.Context
	left *int
}

func (c cutOff) Err() error {
	if *c.left--; *c.left < 0 {
		return context.Canceled
	}
	return nil
}
