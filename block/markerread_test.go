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
	"pgregory.net/rapid"

	"github.com/blockseal/blockseal/internal/engine"
	"github.com/blockseal/blockseal/kek"
	"github.com/blockseal/blockseal/keyring"
	"github.com/blockseal/blockseal/vault/vaulttest"
)

// What a marker is written as it is read as, whatever range and id it has.
func TestMarkersAreReadAsWritten(t *testing.T) {
	bound := rapid.OneOf(rapid.Just([]byte(nil)), rapid.SliceOfN(rapid.Byte(), 1, 20), rapid.SliceOfN(rapid.Byte(), MaxID, 2*MaxID))
	end := rapid.OneOf(bound, rapid.Just([]byte{}))
	rapid.Check(t, func(t *rapid.T) {
		m := marker{epoch: rapid.Uint32().Draw(t, "epoch"), next: bound.Draw(t, "next")}
		m.r = Range{Start: bound.Draw(t, "start"), End: end.Draw(t, "end")}
		back, err := decodeMarker(m.encode())
		require.NoError(t, err)
		require.Equal(t, m, back)
	})
}

// markerRig is a store of 20 blocks.
func markerRig(t *testing.T) (context.Context, *vaulttest.Clock, *Store) {
	ctx := t.Context()
	clock := vaulttest.NewClock(time.Date(2026, 3, 1, 12, 0, 0, 0, time.UTC))
	v := vaulttest.New(&vaulttest.Options{Clock: clock})
	id := v.CreateKey("customer")
	s, err := Open(ctx, "store", kek.New(v, id.Versionless()), &Options{FS: vfs.NewMem(), MemTable: 1 << 20,
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
		metaRotateEpoch: func(s *Store, ctx context.Context) error { return s.RotateEpoch(ctx, nil) },
		metaRekey:       func(s *Store, ctx context.Context) error { return s.Rekey(ctx, Range{}, nil) },
		metaRenew:       func(s *Store, ctx context.Context) error { return s.renewDEKs(ctx) },
	} {
		for what, record := range map[string][]byte{
			"of a later version": {markerVersion + 1, 0, 0, 0, 1},
			"cut off":            marker{epoch: 1, next: []byte("19")}.encode()[:12],
			"too long":           append(marker{epoch: 1, next: []byte("19")}.encode(), 0),
			"empty":              {},
		} {
			t.Run(name+" "+what, func(t *testing.T) {
				ctx, clock, s := markerRig(t)
				clock.Advance(9 * time.Minute) // access lasts, and the DEKs are about to be due
				h, err := s.keys.Acquire()
				require.NoError(t, err)
				require.NoError(t, s.writeTagged(ctx, &h, name, record))
				h.Release()
				before := s.Records()
				if name == metaRenew {
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
		found, err := s.hasMarker(ctx, metaRekey)
		require.NoError(t, err)
		require.False(t, found, name)
		require.Equal(t, before, s.Records(), name)
	}
	before := s.Records()
	s.steps.records, s.steps.mark = 2, 1
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
