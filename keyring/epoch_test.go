package keyring_test

import (
	"context"
	"errors"
	"fmt"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/blockseal/blockseal/internal/inner"
	"github.com/blockseal/blockseal/kek"
	"github.com/blockseal/blockseal/keyring"
	"github.com/blockseal/blockseal/vault"
	"github.com/blockseal/blockseal/vault/vaulttest"
)

func epochOf(t *testing.T, record []byte) uint32 {
	in, err := keyring.ParseRecord(record)
	require.NoError(t, err)
	return in.Epoch
}

// No epoch key ever wraps more DEKs than it may, however often the process is
// killed: what is counted is what was handed out.
func TestEpochsByCountThroughCrashes(t *testing.T) {
	t.Parallel()
	g := newRig(t)
	g.opts.EpochMaxDEKs = 300
	r := g.create()
	wrapped := map[uint32]int{}
	for round := range 40 {
		for range 37 {
			_, record, err := r.NewDEK(t.Context(), []byte("id"))
			require.NoError(t, err)
			wrapped[epochOf(t, record)]++
		}
		if round%3 == 2 {
			require.NoError(t, r.Close()) // in order
		} // else: the process is gone, and with it what was in memory
		r = g.open()
	}
	require.Greater(t, len(wrapped), 4)
	for epoch, n := range wrapped {
		require.LessOrEqual(t, n, 300, "epoch %d", epoch)
	}
	require.LessOrEqual(t, len(wrapped), 40*37/300*2+2, "and reservations are not wasted")
}

// A clean Close gives back what was reserved and not used.
func TestCleanRestartsWasteNothing(t *testing.T) {
	t.Parallel()
	g := newRig(t)
	g.opts.EpochMaxDEKs = 6400 // reserved 100 at a time
	r := g.create()
	for range 200 {
		_, _, err := r.NewDEK(t.Context(), nil)
		require.NoError(t, err)
		require.NoError(t, r.Close())
		r = g.open()
	}
	require.EqualValues(t, 1, r.State().Epoch, "200 DEKs in 200 runs are not 6,400")
}

func TestEpochsConcurrently(t *testing.T) {
	g := newRig(t)
	g.opts.EpochMaxDEKs = 100
	r := g.create()
	var mu sync.Mutex
	wrapped := map[uint32]int{}
	var wg sync.WaitGroup
	for range 8 {
		wg.Go(func() {
			for range 200 {
				_, record, err := r.NewDEK(context.Background(), nil)
				if err != nil {
					t.Error(err)
					return
				}
				mu.Lock()
				wrapped[epochOf(t, record)]++
				mu.Unlock()
			}
		})
	}
	wg.Wait()
	for epoch, n := range wrapped {
		require.LessOrEqual(t, n, 100, "epoch %d", epoch)
	}
}

// The policy is the document's: it does not depend on every Open repeating it.
func TestEpochsByAgeSurviveReopen(t *testing.T) {
	t.Parallel()
	g := newRig(t)
	g.opts.EpochMaxAge = 24 * time.Hour
	// No check comes in between: the clock does not wait for its calls.
	g.opts.Lease, g.opts.AllowLongLease, g.opts.CheckEvery = 3*keyring.DefaultEpochMaxAge, true, keyring.DefaultEpochMaxAge
	r := g.create()
	require.NoError(t, r.Close())
	g.opts.EpochMaxAge = 0
	r = g.open()
	later := func(d time.Duration) {
		g.clock.Advance(d)
		require.NoError(t, r.Revalidate(t.Context()))
		g.clock.Advance(2 * time.Second) // age is looked at every second
	}
	later(23 * time.Hour)
	require.EqualValues(t, 1, r.State().Epoch)
	later(time.Hour)
	require.Eventually(t, func() bool { return r.State().Epoch == 2 }, time.Minute, time.Millisecond)

	require.NoError(t, r.Close())
	g.opts.EpochMaxAge = -1 // for ever
	r = g.open()
	g.clock.Step(2 * keyring.DefaultEpochMaxAge)
	g.clock.Advance(2 * time.Second)
	require.Equal(t, keyring.Available, r.State().Status)
	require.EqualValues(t, 2, r.State().Epoch)
}

func TestDropEpochs(t *testing.T) {
	g := newRig(t)
	r := g.create()
	_, old, err := r.NewDEK(t.Context(), []byte("id"))
	require.NoError(t, err)
	require.NoError(t, r.BeginEpoch(t.Context()))
	_, young, err := r.NewDEK(t.Context(), []byte("id"))
	require.NoError(t, err)

	dropped, err := r.For(inner.Block{}).DropEpochs(t.Context(), 100)
	require.NoError(t, err)
	require.Equal(t, []uint32{1}, dropped, "the current one stays")
	for range 2 {
		_, err = r.OpenDEK(t.Context(), old, []byte("id"))
		require.ErrorIs(t, err, keyring.ErrCorrupt)
		require.ErrorContains(t, err, "names epoch 1, which the keyring does not have")
		_, err = r.OpenDEK(t.Context(), young, []byte("id"))
		require.NoError(t, err)
		require.NoError(t, r.Close())
		r = g.open()
	}
}

func TestMaxEpochs(t *testing.T) {
	t.Parallel()
	g := newRig(t)
	r := g.create()
	require.NoError(t, r.FillEpochs(t.Context(), keyring.MaxEpochs-4))
	for range 3 { // one is left for a copy
		require.NoError(t, r.BeginEpoch(t.Context()))
	}
	require.ErrorIs(t, r.BeginEpoch(t.Context()), keyring.ErrLimit)
	_, err := r.For(inner.Block{}).DropEpochs(t.Context(), 10)
	require.NoError(t, err)
	require.NoError(t, r.BeginEpoch(t.Context()))
	require.NoError(t, r.Close())
	require.Equal(t, keyring.MaxEpochs-9, g.open().State().Epochs)
}

// ByKEK costs one wrap a DEK and one unwrap a cold one, however many ask at once.
func TestByKEKCalls(t *testing.T) {
	bubble(t, func(t *testing.T, g *rig) {
		g.opts.Wrapping = keyring.ByKEK
		g.opts.DEKCache = 4
		r := g.create()
		var records [][]byte
		g.vault.ResetCalls()
		for i := range 8 {
			_, record, err := r.NewDEK(t.Context(), fmt.Append(nil, i))
			require.NoError(t, err)
			records = append(records, record)
		}
		require.Equal(t, vaulttest.Calls{Wrap: 8}, g.vault.Calls())

		g.vault.ResetCalls()
		open := func(i int) {
			_, err := r.OpenDEK(t.Context(), records[i], fmt.Append(nil, i))
			require.NoError(t, err)
		}
		open(0)
		open(0)
		require.Equal(t, vaulttest.Calls{Unwrap: 1}, g.vault.Calls(), "the second is cached")
		for i := range 8 {
			open(i)
		}
		require.Equal(t, vaulttest.Calls{Unwrap: 8}, g.vault.Calls())
		open(0)
		require.Equal(t, vaulttest.Calls{Unwrap: 9}, g.vault.Calls(), "the cache holds four")

		_, err := r.OpenDEK(t.Context(), records[0], []byte("another block"))
		require.ErrorIs(t, err, keyring.ErrCorrupt)
		require.Equal(t, vaulttest.Calls{Unwrap: 9}, g.vault.Calls(), "a record that does not authenticate costs no call")

		// Many readers of one cold record.
		remove := g.vault.Inject(vaulttest.Fault{Op: vault.OpUnwrapKey, Hang: true})
		var wg sync.WaitGroup
		for range 16 {
			wg.Go(func() {
				if _, err := r.OpenDEK(context.Background(), records[1], []byte("1")); err != nil {
					t.Error(err)
				}
			})
		}
		synctest.Wait() // until one has asked and the others wait for its answer
		require.Equal(t, 1, g.vault.Waiting())
		remove()
		wg.Wait()
		require.Equal(t, vaulttest.Calls{Unwrap: 10}, g.vault.Calls())
	})
}

// Whatever fails on the way to another KEK, the old one goes on working.
func TestChangeKEKFailures(t *testing.T) {
	other := func(g *rig) (*vaulttest.Vault, *kek.KEK) {
		v := vaulttest.New(&vaulttest.Options{Name: "mem:other", Clock: g.clock})
		return v, kek.New(v, v.CreateKey("other").Versionless())
	}
	for name, breakIt := range map[string]func(g *rig, v *vaulttest.Vault) (undo func()){
		"get": func(_ *rig, v *vaulttest.Vault) func() {
			v.Revoke(vault.OpGet)
			return func() { v.Restore(vault.OpGet) }
		},
		"wrap": func(_ *rig, v *vaulttest.Vault) func() {
			v.Revoke(vault.OpWrapKey)
			return func() { v.Restore(vault.OpWrapKey) }
		},
		"unwrap": func(_ *rig, v *vaulttest.Vault) func() {
			v.Revoke(vault.OpUnwrapKey)
			return func() { v.Restore(vault.OpUnwrapKey) }
		},
		"other secret": func(_ *rig, v *vaulttest.Vault) func() {
			return v.Inject(vaulttest.Fault{Op: vault.OpUnwrapKey, Plaintext: make([]byte, 32)})
		},
		"save": func(g *rig, _ *vaulttest.Vault) func() {
			g.storage.fail = true
			return func() { g.storage.fail = false }
		},
	} {
		t.Run(name, func(t *testing.T) {
			g := newRig(t)
			r := g.create()
			_, record, err := r.NewDEK(t.Context(), []byte("id"))
			require.NoError(t, err)
			before, saves := r.State(), g.storage.saves
			v, k := other(g)
			undo := breakIt(g, v)
			require.Error(t, r.ChangeKEK(t.Context(), k))
			undo()
			after := r.State()
			require.Equal(t, before.KEK, after.KEK)
			require.Equal(t, before.Generation, after.Generation)
			require.Equal(t, keyring.Available, after.Status)
			require.Equal(t, saves, g.storage.saves, "nothing was saved")
			require.NoError(t, r.Revalidate(t.Context()))
			_, err = r.OpenDEK(t.Context(), record, []byte("id"))
			require.NoError(t, err)
			require.NoError(t, r.Close())

			r = g.open()
			v.ResetCalls()
			require.NoError(t, r.ChangeKEK(t.Context(), k))
			require.Equal(t, vaulttest.Calls{Get: 1, Wrap: 1, Unwrap: 1}, v.Calls())
			g.vault.Delete("customer")
			g.vault.Purge("customer")
			require.NoError(t, r.Revalidate(t.Context()))
			require.NoError(t, r.Close())
			g.kek = k
			_, err = g.open().OpenDEK(t.Context(), record, []byte("id"))
			require.NoError(t, err)
		})
	}
}

// A Save that took effect and still returned an error leaves a document that opens.
func TestSaveThatFailsLate(t *testing.T) {
	g := newRig(t)
	r := g.create()
	_, record, err := r.NewDEK(t.Context(), []byte("id"))
	require.NoError(t, err)
	g.storage.failLate = true
	require.ErrorIs(t, r.RotateKEK(t.Context()), errSave)
	require.ErrorIs(t, r.BeginEpoch(t.Context()), errSave)
	g.storage.failLate = false
	_, err = r.OpenDEK(t.Context(), record, []byte("id"))
	require.NoError(t, err)
	_, later, err := r.NewDEK(t.Context(), []byte("id"))
	require.NoError(t, err)
	// Crash: what is in storage is all there is.
	r2 := g.open()
	for _, rec := range [][]byte{record, later} {
		_, err = r2.OpenDEK(t.Context(), rec, []byte("id"))
		require.NoError(t, err)
	}
}

var errSave = errors.New("the disk is full")

// storage is a MemStorage that can fail.
type storage struct {
	keyring.MemStorage
	mu             sync.Mutex
	saves          int
	fail, failLate bool
}

func (s *storage) Swap(ctx context.Context, was keyring.Revision, document []byte) (keyring.Revision, error) {
	if s.fail {
		return "", errSave
	}
	s.mu.Lock()
	s.saves++
	s.mu.Unlock()
	now, err := s.MemStorage.Swap(ctx, was, document)
	if s.failLate {
		return "", errSave
	}
	return now, err
}

// A keyring that holds as many epochs as it begins by itself goes on with the last, and
// says so; who rotates to make room has some left.
func TestTooManyEpochs(t *testing.T) {
	bubble(t, func(t *testing.T, g *rig) {
		g.opts.EpochMaxDEKs, g.opts.MaxEpochs = 1, 256
		e := g.listen()
		r := g.create()
		var records [][]byte
		for range 300 {
			_, record, err := r.NewDEK(t.Context(), []byte("block"))
			require.NoError(t, err)
			records = append(records, record)
		}
		epochs, err := r.Epochs()
		require.NoError(t, err)
		require.Len(t, epochs, 256-4)
		full := e.take(keyring.Progressed)
		require.Len(t, full, 1)
		require.ErrorIs(t, full[0].Err, keyring.ErrLimit)

		for range 4 {
			require.NoError(t, r.BeginEpoch(t.Context()))
		}
		require.ErrorIs(t, r.BeginEpoch(t.Context()), keyring.ErrLimit)
		_, _, err = r.NewDEK(t.Context(), []byte("block"))
		require.NoError(t, err)
		for _, record := range [][]byte{records[0], records[200], records[299]} {
			_, err := r.OpenDEK(t.Context(), record, []byte("block"))
			require.NoError(t, err)
		}
		require.NoError(t, r.Close())

		r = g.open()
		_, err = r.For(inner.Block{}).DropEpochs(t.Context(), epochs[len(epochs)-1])
		require.NoError(t, err)
		_, err = r.OpenDEK(t.Context(), records[299], []byte("block"))
		require.NoError(t, err)
		for range 3 { // by the policy again
			_, _, err = r.NewDEK(t.Context(), []byte("block"))
			require.NoError(t, err)
		}
		left, err := r.Epochs()
		require.NoError(t, err)
		require.Greater(t, left[len(left)-1], epochs[len(epochs)-1]+4)
	})
}

// A clock that is set back does not make epochs old, neither those that are there nor
// those that begin: one that does would be followed by another at each look.
func TestClockSetBackBeginsNoEpochs(t *testing.T) {
	for _, step := range []time.Duration{-2 * time.Hour, -90 * 24 * time.Hour, 2 * time.Hour} {
		t.Run(step.String(), func(t *testing.T) {
			bubble(t, func(t *testing.T, g *rig) {
				g.opts.EpochMaxAge = time.Hour
				r := g.create()
				g.clock.Step(step)
				for hours := range 4 {
					if hours == 2 {
						require.NoError(t, r.Revalidate(t.Context())) // trusts the clock anew
					}
					for range 60 {
						g.pass(time.Minute)
					}
				}
				epochs, err := r.Epochs()
				require.NoError(t, err)
				require.LessOrEqual(t, len(epochs), 1+4+1, "one an hour, and one for the step")
				require.Greater(t, len(epochs), 1)
			})
		})
	}
}
