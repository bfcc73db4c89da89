package block

import (
	"context"
	"errors"
	"fmt"
	"strings"
	"sync/atomic"
	"testing"

	"github.com/cockroachdb/pebble/v2/vfs"
	"github.com/stretchr/testify/require"

	"github.com/blockseal/blockseal/internal/engine"
	"github.com/blockseal/blockseal/internal/engine/memory"
	"github.com/blockseal/blockseal/internal/inner"
	"github.com/blockseal/blockseal/kek"
	"github.com/blockseal/blockseal/keyring"
	"github.com/blockseal/blockseal/vault"
	"github.com/blockseal/blockseal/vault/vaulttest"
)

// openOn creates a store in an engine that is in no directory.
func openOn(t *testing.T, db engine.Engine, v *vaulttest.Vault, key vault.KeyID, wrapping keyring.Wrapping) *Store {
	o, err := (&Options{RecordCache: 1 << 20, RowCache: 1 << 20, ManualRewrap: true, VaultRate: 1 << 30, Keyring: keyring.Options{Wrapping: wrapping}}).withDefaults()
	require.NoError(t, err)
	k := kek.New(v, key)
	do, err := o.alone().withDefaults()
	require.NoError(t, err)
	do.Pebble.FS = vfs.NewMem()
	require.NoError(t, do.Pebble.FS.MkdirAll("nowhere", 0o700))
	d, _, err := newDB("nowhere", do)
	require.NoError(t, err)
	d.attach(db)
	s, _, err := d.createStore(t.Context(), DefaultName, k, o)
	require.NoError(t, err)
	s.alone = true
	return s
}

// The store needs nothing of an engine but the seam, and says what an engine cannot do.
func TestStoreOnAnotherEngine(t *testing.T) {
	for _, wrapping := range []keyring.Wrapping{keyring.ByKeyring, keyring.ByKEK} {
		t.Run(wrapping.String(), func(t *testing.T) {
			ctx, v := t.Context(), vaulttest.New(nil)
			s := openOn(t, memory.New(), v, v.CreateKey("k").Versionless(), wrapping)
			id := func(i int) []byte { return fmt.Appendf(nil, "block %03d", i) }
			const n = 100
			b := s.NewBatch()
			for i := range n {
				require.NoError(t, b.Put(ctx, id(i), fmt.Appendf(nil, "data %d", i)))
			}
			require.NoError(t, b.Commit(ctx))
			snap := s.Snapshot()
			require.NoError(t, s.Delete(ctx, id(0)))
			require.NoError(t, s.Put(ctx, id(1), []byte("another")))
			whole := func() {
				t.Helper()
				for range 3 { // from the engine, and from the caches
					_, err := s.Get(ctx, id(0), nil)
					require.ErrorIs(t, err, ErrNotFound)
					got, err := s.Get(ctx, id(1), nil)
					require.NoError(t, err)
					require.Equal(t, "another", string(got))
					got, err = s.Get(ctx, id(2), nil)
					require.NoError(t, err)
					require.Equal(t, "data 2", string(got))
				}
				seen := 1
				for b, err := range s.Blocks(ctx, Range{}) {
					require.NoError(t, err)
					require.Equal(t, string(id(seen)), string(b.ID))
					seen++
				}
				require.Equal(t, n, seen)
				rep, err := s.Verify(ctx, nil)
				require.NoError(t, err)
				require.EqualValues(t, n-1, rep.Blocks)
			}
			whole()
			require.NoError(t, s.RotateEpoch(ctx, nil))
			v.Rotate("k")
			require.NoError(t, s.RotateKEK(ctx))
			require.NoError(t, s.RewrapDEKs(ctx, nil))
			uses, err := s.KeyUsage(ctx)
			require.NoError(t, err)
			require.Len(t, uses, 1, "the version before is gone without Rekey")
			require.NoError(t, s.Rekey(ctx, Range{}, nil))
			whole()
			got, err := snap.Get(ctx, id(0), nil)
			require.NoError(t, err)
			require.Equal(t, "data 0", string(got))
			require.NoError(t, snap.Close())
			uses, err = s.KeyUsage(ctx)
			require.NoError(t, err)
			require.Len(t, uses, 1)
			require.ErrorIs(t, s.Checkpoint(ctx, "copy"), errors.ErrUnsupported)
			before := s.State()
			_, err = s.Erase(ctx, nil)
			require.ErrorIs(t, err, errors.ErrUnsupported)
			require.Equal(t, before.Epoch, s.State().Epoch, "no epoch was begun, so none was destroyed")
			require.Equal(t, before.Generation, s.State().Generation)
			require.Zero(t, s.Stats().Engine.DiskBytes)
			require.NoError(t, s.Close())
			_, err = s.Get(ctx, id(1), nil)
			require.ErrorIs(t, err, ErrClosed)
		})
	}
}

// What somebody planted under names that no engine takes keeps the store from nothing: the
// keyring document is saved, and the register says that it may not be whole.
func TestPlantedNamesOfMetaRecords(t *testing.T) {
	for _, name := range []string{"a\x00", strings.Repeat("x", engine.MaxName)} {
		o := goldenOptions(vfs.NewMem())
		s, err := Open(t.Context(), "store", goldenKEK(t), o)
		require.NoError(t, err)
		key := metaKey("copy/" + s.Instance() + "/" + name)
		s.SetEngine(key, []byte("planted"))
		require.NoError(t, s.Close())
		s, err = Open(t.Context(), "store", goldenKEK(t), o)
		require.NoError(t, err)
		require.NoError(t, s.RotateEpoch(t.Context(), nil))
		_, whole := s.copies()
		require.False(t, whole)
		require.NoError(t, s.Close())
	}
}

// overtaken is a partition in which something happens between the store's look at the floor
// and its change, once.
type overtaken struct {
	engine.Partition
	once  atomic.Bool
	first func()
	tries atomic.Int32
}

func (o *overtaken) Apply(ctx context.Context, b engine.Batch, g engine.Guard, sync bool) error {
	o.tries.Add(1)
	if o.once.CompareAndSwap(false, true) {
		o.first()
	}
	return o.Partition.Apply(ctx, b, g, sync)
}

// A commit that was judged by a floor which was raised since is judged again: its records are
// rewrapped under the epoch of now, or its KEK is found to be gone, and the block is sealed anew.
func TestCommitThatTheFloorOvertakes(t *testing.T) {
	for name, tt := range map[string]struct {
		wrapping keyring.Wrapping
		first    func(t *testing.T, s *Store, v *vaulttest.Vault)
		tries    int
	}{
		"another epoch": {keyring.ByKeyring, func(t *testing.T, s *Store, _ *vaulttest.Vault) { require.NoError(t, s.RotateEpoch(t.Context(), nil)) }, 2},
		"another epoch, by KEK": {keyring.ByKEK, func(t *testing.T, s *Store, _ *vaulttest.Vault) {
			require.NoError(t, s.RotateEpoch(t.Context(), nil))
		}, 2},
		"a copy": {keyring.ByKeyring, func(t *testing.T, s *Store, _ *vaulttest.Vault) {
			s.apart(func(_, epoch uint32) { require.NoError(t, s.part.RaiseFloor(t.Context(), epoch)) })
		}, 2},
		"another KEK": {keyring.ByKEK, func(t *testing.T, s *Store, v *vaulttest.Vault) {
			v.Rotate("k")
			require.NoError(t, s.RotateKEK(t.Context()))
			require.NoError(t, s.RewrapDEKs(t.Context(), nil))
			keks, _ := s.keys.KEKs()
			require.Len(t, keks, 1, "the one before is gone")
		}, 2},
		"nothing": {keyring.ByKeyring, func(*testing.T, *Store, *vaulttest.Vault) {}, 1},
	} {
		t.Run(name, func(t *testing.T) {
			ctx, v := t.Context(), vaulttest.New(nil)
			s := openOn(t, memory.New(), v, v.CreateKey("k").Versionless(), tt.wrapping)
			require.NoError(t, s.Put(ctx, []byte("before"), []byte("1")))
			o := &overtaken{Partition: s.table.Part, first: func() { tt.first(t, s, v) }}
			s.table.Part = o
			require.NoError(t, s.Put(ctx, []byte("a"), []byte("data")))
			require.EqualValues(t, tt.tries, o.tries.Load())
			s.table.Part = o.Partition
			h, err := s.keys.Acquire()
			require.NoError(t, err)
			current := h.For(inner.Block{}).CurrentEpoch()
			h.Release()
			keks, _ := s.keys.KEKs()
			in, err := keyring.ParseRecord([]byte(s.Records()["a"]))
			require.NoError(t, err)
			require.Equal(t, current, in.Epoch)
			if in.Wrapping == keyring.ByKEK {
				require.Contains(t, keks, in.KEK)
			}
			got, err := s.Get(ctx, []byte("a"), nil)
			require.NoError(t, err)
			require.Equal(t, "data", string(got))
			require.NoError(t, s.Close())
		})
	}
}
