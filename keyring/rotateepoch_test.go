package keyring_test

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"maps"
	"runtime"
	"slices"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/blockseal/blockseal/dek"
	"github.com/blockseal/blockseal/kek"
	"github.com/blockseal/blockseal/keyring"
	"github.com/blockseal/blockseal/vault/vaulttest"
)

// shelf is where a caller keeps its records, by the context of each.
type shelf struct {
	mu      sync.Mutex
	records map[string][]byte
	walks   int
}

func (s *shelf) put(id string, record []byte) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.records[id] = record
}

// walk rewraps all records, and keeps what somebody else has put meanwhile.
func (s *shelf) walk(_ context.Context, rewrap keyring.Rewrap) error {
	s.mu.Lock()
	s.walks++
	was := maps.Clone(s.records)
	s.mu.Unlock()
	for _, id := range slices.Sorted(maps.Keys(was)) {
		again, err := rewrap(was[id], []byte(id))
		if err != nil {
			return err
		}
		if again == nil {
			continue
		}
		s.mu.Lock()
		if bytes.Equal(s.records[id], was[id]) {
			s.records[id] = again
		}
		s.mu.Unlock()
	}
	return nil
}

// fill wraps n DEKs.
func (s *shelf) fill(t *testing.T, r *keyring.Keyring, n int) {
	for i := range n {
		id := fmt.Sprintf("page %03d", i)
		key, record, err := r.NewDEK(t.Context(), []byte(id))
		require.NoError(t, err)
		key.Destroy()
		s.put(id, record)
	}
}

func (s *shelf) opens(t *testing.T, r *keyring.Keyring) {
	t.Helper()
	for id, record := range s.records {
		key, err := r.OpenDEK(t.Context(), record, []byte(id))
		require.NoError(t, err, id)
		key.Destroy()
	}
}

func newShelf() *shelf { return &shelf{records: map[string][]byte{}} }

// Epochs that begin by themselves meanwhile take no record along, whatever wraps DEKs.
func TestRotateEpoch(t *testing.T) {
	for _, w := range []keyring.Wrapping{keyring.ByKeyring, keyring.ByKEK} {
		t.Run(w.String(), func(t *testing.T) {
			g := newRig(t)
			g.opts.Wrapping, g.opts.EpochMaxDEKs = w, 7
			r := g.create()
			s := newShelf()
			s.fill(t, r, 30)
			before, err := r.Epochs()
			require.NoError(t, err)
			require.Greater(t, len(before), 1)
			old := maps.Clone(s.records)
			calls := g.vault.Calls().Total()
			dropped, err := r.RotateEpoch(t.Context(), s.walk)
			require.NoError(t, err)
			require.Equal(t, calls, g.vault.Calls().Total())
			require.Equal(t, before, dropped)
			require.Equal(t, 2, s.walks, "one rewraps, one proves")
			now, err := r.Epochs()
			require.NoError(t, err)
			require.Greater(t, len(now), 1, "epochs have begun by themselves meanwhile")
			s.opens(t, r)
			for id, record := range old {
				_, err := r.OpenDEK(t.Context(), record, []byte(id))
				require.ErrorIs(t, err, keyring.ErrCorrupt, id)
			}
			s.walks = 0
			none := newShelf()
			_, err = r.RotateEpoch(t.Context(), none.walk)
			require.NoError(t, err)
			require.Equal(t, 1, none.walks, "nothing to rewrap is proof at once")
		})
	}
}

// Without the proof nothing is dropped: records that were not stored, or not come by to the end,
// or that nobody can read.
func TestRotateEpochDropsNothingUnproved(t *testing.T) {
	failed := errors.New("the disk is full")
	for name, c := range map[string]struct {
		walk func(s *shelf) func(context.Context, keyring.Rewrap) error
		want error
	}{
		"what is returned is not stored": {func(s *shelf) func(context.Context, keyring.Rewrap) error {
			return func(ctx context.Context, rewrap keyring.Rewrap) error {
				for id, record := range s.records {
					if _, err := rewrap(record, []byte(id)); err != nil {
						return err
					}
				}
				return nil
			}
		}, nil},
		"the walk fails": {func(s *shelf) func(context.Context, keyring.Rewrap) error {
			return func(ctx context.Context, rewrap keyring.Rewrap) error {
				return errors.Join(s.walk(ctx, rewrap), failed)
			}
		}, failed},
		"another context": {func(s *shelf) func(context.Context, keyring.Rewrap) error {
			return func(_ context.Context, rewrap keyring.Rewrap) error {
				for id, record := range s.records {
					if _, err := rewrap(record, []byte(id+"?")); err != nil {
						return err
					}
				}
				return nil
			}
		}, keyring.ErrCorrupt},
		"errors are overlooked": {func(s *shelf) func(context.Context, keyring.Rewrap) error {
			return func(_ context.Context, rewrap keyring.Rewrap) error {
				_, _ = rewrap([]byte("no record"), nil)
				return nil
			}
		}, nil},
	} {
		t.Run(name, func(t *testing.T) {
			g := newRig(t)
			r := g.create()
			s := newShelf()
			s.fill(t, r, 5)
			before, err := r.Epochs()
			require.NoError(t, err)
			dropped, err := r.RotateEpoch(t.Context(), c.walk(s))
			require.Error(t, err)
			if c.want != nil {
				require.ErrorIs(t, err, c.want)
			}
			require.Empty(t, dropped)
			now, err := r.Epochs()
			require.NoError(t, err)
			require.Equal(t, before, now[:len(before)])
			s.opens(t, r)
			_, err = r.RotateEpoch(t.Context(), s.walk)
			require.NoError(t, err)
			s.opens(t, r)
		})
	}
}

// Writers that wrap and store in one hold lose nothing, whenever they began.
func TestRotateEpochBesideWriters(t *testing.T) {
	g := newRig(t)
	r := g.create()
	s := newShelf()
	s.fill(t, r, 20)
	var stop atomic.Bool
	var written atomic.Int64
	var wg sync.WaitGroup
	for w := range 3 {
		wg.Go(func() {
			for i := 0; !stop.Load(); i++ {
				id := fmt.Sprintf("page %03d", (w*7+i)%25)
				h, err := r.Acquire()
				if err != nil {
					t.Error(err)
					return
				}
				key, record := wrapIn(t, &h, id)
				key.Destroy()
				s.put(id, record)
				h.Release()
				written.Add(1)
				runtime.Gosched()
			}
		})
	}
	for range 4 {
		for from := written.Load(); written.Load() < from+10 && !t.Failed(); {
			runtime.Gosched()
		}
		_, err := r.RotateEpoch(t.Context(), s.walk)
		require.NoError(t, err)
	}
	stop.Store(true)
	wg.Wait()
	s.opens(t, r)
}

// wrapIn wraps a DEK inside of a hold.
func wrapIn(t *testing.T, h *keyring.Hold, id string) (*dek.Key, []byte) {
	var b keyring.Binding
	b.Set([]byte(id))
	key := new(dek.Key)
	record, err := h.NewDEK(t.Context(), nil, key, &b)
	require.NoError(t, err)
	return key, record
}

// A hold from before is waited for, and what it stores is rewrapped; ctx ends the waiting.
func TestRotateEpochWaitsForHolds(t *testing.T) {
	g := newRig(t)
	r := g.create()
	s := newShelf()
	h, err := r.Acquire()
	require.NoError(t, err)
	key, record := wrapIn(t, &h, "late")
	key.Destroy()
	ended, cancel := context.WithCancel(t.Context())
	cancel()
	_, err = r.RotateEpoch(ended, s.walk)
	require.ErrorIs(t, err, context.Canceled)
	before, err := r.Epochs()
	require.NoError(t, err)
	done := make(chan error, 1)
	go func() {
		_, err := r.RotateEpoch(t.Context(), s.walk)
		done <- err
	}()
	require.Eventually(t, func() bool { now, err := r.Epochs(); return err == nil && len(now) > len(before) }, time.Minute, time.Millisecond)
	s.put("late", record)
	h.Release()
	require.NoError(t, <-done)
	s.opens(t, r)
}

// A keyring that has no room for another epoch is rotated into the present one first.
func TestRotateEpochOfAFullKeyring(t *testing.T) {
	g := newRig(t)
	g.opts.MaxEpochs = 4
	r := g.create()
	s := newShelf()
	for i := 0; ; i++ {
		key, record, err := r.NewDEK(t.Context(), fmt.Append(nil, i))
		require.NoError(t, err)
		key.Destroy()
		s.put(fmt.Sprint(i), record)
		if err := r.BeginEpoch(t.Context()); err != nil {
			require.ErrorIs(t, err, keyring.ErrLimit)
			break
		}
	}
	dropped, err := r.RotateEpoch(t.Context(), s.walk)
	require.NoError(t, err)
	require.Len(t, dropped, 4)
	now, err := r.Epochs()
	require.NoError(t, err)
	require.Len(t, now, 1)
	s.opens(t, r)
}

// The epochs of a database that keeps its records in a map.
func ExampleKeyring_RotateEpoch() {
	ctx := context.Background()
	v := vaulttest.New(nil)
	keys, err := keyring.OpenOrCreate(ctx, &keyring.MemStorage{}, kek.New(v, v.CreateKey("customer").Versionless()), nil)
	if err != nil {
		fmt.Println(err)
		return
	}
	defer keys.Close()
	records := map[string][]byte{}
	for _, id := range []string{"page 1", "page 2"} {
		key, record, err := keys.NewDEK(ctx, []byte(id))
		if err != nil {
			fmt.Println(err)
			return
		}
		key.Destroy() // after sealing the page with it
		records[id] = record
	}
	dropped, err := keys.RotateEpoch(ctx, func(_ context.Context, rewrap keyring.Rewrap) error {
		for id, record := range records {
			again, err := rewrap(record, []byte(id))
			if err != nil {
				return err
			}
			if again != nil {
				records[id] = again // durably, in a database
			}
		}
		return nil
	})
	fmt.Println("epochs that are gone:", dropped, err)
	key, err := keys.OpenDEK(ctx, records["page 1"], []byte("page 1"))
	fmt.Println("page 1 opens:", err == nil)
	key.Destroy()
	// Output:
	// epochs that are gone: [1] <nil>
	// page 1 opens: true
}
