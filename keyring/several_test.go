package keyring_test

import (
	"context"
	"errors"
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

// opensAll requires that a keyring opens records of newDEK.
func opensAll(t *testing.T, r *keyring.Keyring, records ...[]byte) {
	t.Helper()
	for _, record := range records {
		key, err := r.OpenDEK(t.Context(), record, []byte("id"))
		require.NoError(t, err)
		key.Destroy()
	}
}

// Whatever one keyring changes, another one on the same document takes up, whichever way it
// comes to look: at a check, because its own change is lost, or by a record of an epoch
// that it does not know. Then both have one document, and each opens what the other wraps.
func TestChangesAreTakenUp(t *testing.T) {
	t.Parallel()
	changes := map[string]func(t *testing.T, g *rig, r *keyring.Keyring){
		"Rotate": func(t *testing.T, _ *rig, r *keyring.Keyring) { require.NoError(t, r.BeginEpoch(t.Context())) },
		"DropEpochs": func(t *testing.T, _ *rig, r *keyring.Keyring) {
			require.NoError(t, r.BeginEpoch(t.Context()))
			dropped, err := r.For(inner.Block{}).DropEpochs(t.Context(), 2)
			require.NoError(t, err)
			require.Equal(t, []uint32{1}, dropped)
		},
		"RotateKEK, to the same version": func(t *testing.T, _ *rig, r *keyring.Keyring) { require.NoError(t, r.RotateKEK(t.Context())) },
		"RotateKEK, to a newer version": func(t *testing.T, g *rig, r *keyring.Keyring) {
			g.vault.Rotate("customer")
			require.NoError(t, r.RotateKEK(t.Context()))
		},
		"ChangeKEK": func(t *testing.T, g *rig, r *keyring.Keyring) {
			require.NoError(t, r.ChangeKEK(t.Context(), g.opts.OtherKEKs[0]))
		},
		"ChangeKEK, there and back": func(t *testing.T, g *rig, r *keyring.Keyring) {
			require.NoError(t, r.ChangeKEK(t.Context(), g.opts.OtherKEKs[0]))
			require.NoError(t, r.ChangeKEK(t.Context(), g.kek))
		},
		"the policy": func(t *testing.T, g *rig, _ *keyring.Keyring) {
			o := g.opts
			o.EpochMaxDEKs, o.EpochMaxAge = 6400, 7*time.Hour
			r, err := keyring.Open(t.Context(), g.storage, g.kek, &o)
			require.NoError(t, err)
			require.NoError(t, r.Close())
		},
		"the wrapping": func(t *testing.T, g *rig, _ *keyring.Keyring) {
			o := g.opts
			o.Wrapping = keyring.ByKEK
			r, err := keyring.Open(t.Context(), g.storage, g.kek, &o)
			require.NoError(t, err)
			require.NoError(t, r.Close())
		},
		"work": func(t *testing.T, _ *rig, r *keyring.Keyring) {
			_, err := r.For(inner.Block{}).BeginWork(t.Context())
			require.NoError(t, err)
		},
		"all of it": func(t *testing.T, g *rig, r *keyring.Keyring) {
			for range 3 {
				require.NoError(t, r.BeginEpoch(t.Context()))
			}
			_, err := r.For(inner.Block{}).DropEpochs(t.Context(), 3)
			require.NoError(t, err)
			require.NoError(t, r.ChangeKEK(t.Context(), g.opts.OtherKEKs[0]))
			require.NoError(t, r.BeginEpoch(t.Context()))
			require.NoError(t, r.RotateKEK(t.Context()))
		},
	}
	ways := map[string]func(t *testing.T, by, r *keyring.Keyring){
		"at a check": func(t *testing.T, _, r *keyring.Keyring) { require.NoError(t, r.Revalidate(t.Context())) },
		"by its own change": func(t *testing.T, _, r *keyring.Keyring) {
			_, err := r.For(inner.Block{}).BeginWork(t.Context())
			require.NoError(t, err)
			require.NoError(t, r.For(inner.Block{}).EndWork(t.Context()))
		},
		"by its own move": func(t *testing.T, _, r *keyring.Keyring) { require.NoError(t, r.RotateKEK(t.Context())) },
		"by a record": func(t *testing.T, by, r *keyring.Keyring) {
			require.NoError(t, by.Revalidate(t.Context())) // where a third one made the change
			require.NoError(t, by.BeginEpoch(t.Context()))
			opensAll(t, r, newDEK(t, by))
		},
	}
	for what, change := range changes {
		for way, look := range ways {
			t.Run(what+" "+way, func(t *testing.T) {
				t.Parallel()
				g := newRig(t)
				g.opts.OtherKEKs = []*kek.KEK{kek.New(g.vault, g.vault.CreateKey("another").Versionless())}
				one := g.create()
				other := g.open()
				old := newDEK(t, one)
				opensAll(t, other, old, newDEK(t, other))
				policy := other.Policy()

				change(t, g, one)
				look(t, one, other)
				require.NoError(t, one.Revalidate(t.Context()))

				a, b := one.State(), other.State()
				require.Equal(t, a.Generation, b.Generation)
				require.Equal(t, a.KEK, b.KEK)
				require.Equal(t, a.Epoch, b.Epoch)
				require.Equal(t, a.Epochs, b.Epochs)
				require.Equal(t, one.Policy(), other.Policy())
				require.Equal(t, one.Wrapping(), other.Wrapping())
				if what == "the policy" || what == "the wrapping" {
					require.NotEqual(t, policy, other.Policy())
				}
				opensAll(t, one, newDEK(t, other))
				opensAll(t, other, newDEK(t, one))
				if a.Epochs < int(a.Epoch) {
					require.Eventually(t, func() bool { // once nobody can be using it
						_, err := other.OpenDEK(t.Context(), old, []byte("id"))
						return errors.Is(err, keyring.ErrCorrupt)
					}, time.Minute, time.Millisecond)
				} else {
					opensAll(t, one, old)
					opensAll(t, other, old)
				}
				// And it goes on.
				require.NoError(t, other.BeginEpoch(t.Context()))
				opensAll(t, one, newDEK(t, other))
			})
		}
	}
}

// A keyring that only reads follows the others, and writes nothing.
func TestReadersFollow(t *testing.T) {
	g := newRig(t)
	g.opts.OtherKEKs = []*kek.KEK{kek.New(g.vault, g.vault.CreateKey("another").Versionless())}
	r := g.create()
	reading := *g
	reading.opts.ReadOnly = true
	reader := reading.open()
	require.NoError(t, r.BeginEpoch(t.Context()))
	opensAll(t, reader, newDEK(t, r))
	require.NoError(t, r.ChangeKEK(t.Context(), g.opts.OtherKEKs[0]))
	require.NoError(t, r.BeginEpoch(t.Context()))
	saves := g.storage.saves
	opensAll(t, reader, newDEK(t, r)) // with the one save of the reservation
	require.Equal(t, r.State().KEK, reader.State().KEK)
	_, err := r.For(inner.Block{}).DropEpochs(t.Context(), 3)
	require.NoError(t, err)
	require.NoError(t, reader.Revalidate(t.Context()))
	require.Equal(t, 1, reader.State().Epochs)
	require.NoError(t, reader.Close())
	require.Equal(t, saves+1, g.storage.saves)
}

// What one keyring changes another one tells of too, and says who did it.
func TestEventsOfAnothersChanges(t *testing.T) {
	bubble(t, func(t *testing.T, g *rig) {
		one := g.create()
		e := g.listen()
		other := g.open()
		e.take()
		require.NoError(t, one.BeginEpoch(t.Context()))
		_, err := one.For(inner.Block{}).DropEpochs(t.Context(), 2)
		require.NoError(t, err)
		newest := g.vault.Rotate("customer")
		require.NoError(t, one.RotateKEK(t.Context()))
		require.NoError(t, other.Revalidate(t.Context()))
		told := e.take(keyring.EpochStarted, keyring.EpochDropped, keyring.KEKChanged)
		require.Len(t, told, 3)
		for i, want := range []keyring.Event{{Kind: keyring.EpochStarted, Epoch: 2}, {Kind: keyring.EpochDropped, Epoch: 1}, {Kind: keyring.KEKChanged, Key: newest}} {
			require.Equal(t, want.Kind, told[i].Kind)
			require.Equal(t, want.Epoch, told[i].Epoch)
			require.Equal(t, want.Key, told[i].Key)
			require.Equal(t, "by another keyring on the document", told[i].Detail)
		}
	})
}

// A document that stands still costs a check one Load and no call to the vault more, and so
// does one that was changed; one with another secret is asked for outside of a check with
// one unwrap.
func TestWhatLookingCosts(t *testing.T) {
	bubble(t, func(t *testing.T, g *rig) {
		one := g.create()
		n := g.noteCalls()
		s := &countedLoads{Storage: g.storage}
		other, err := keyring.Open(t.Context(), s, g.kek, &g.opts)
		require.NoError(t, err)
		defer other.Close()
		costs := func(get, wrap, unwrap, loads int) {
			t.Helper()
			got := []int{len(n.of(vault.OpGet)), len(n.of(vault.OpWrapKey)), len(n.of(vault.OpUnwrapKey)), s.loads}
			require.Equal(t, []int{get, wrap, unwrap, loads}, got)
			n.at, s.loads = map[vault.Operation][]time.Duration{}, 0
		}
		costs(1, 1, 1, 1) // Open
		require.NoError(t, other.Revalidate(t.Context()))
		costs(1, 1, 1, 1)
		require.NoError(t, one.BeginEpoch(t.Context()))
		require.NoError(t, other.Revalidate(t.Context()))
		costs(1, 1, 1, 1)
		require.NoError(t, one.RotateKEK(t.Context()))
		require.NoError(t, other.Revalidate(t.Context()))
		costs(1, 1, 1, 1)
		require.NoError(t, one.BeginEpoch(t.Context()))
		opensAll(t, other, newDEK(t, one))
		costs(0, 0, 0, 1)
		require.NoError(t, one.RotateKEK(t.Context()))
		require.NoError(t, one.BeginEpoch(t.Context()))
		record := newDEK(t, one)
		opensAll(t, other, record)
		// An unwrap for the record, and the check of the KEK that follows.
		g.passUntil(func() bool { return len(n.of(vault.OpUnwrapKey)) == 2 })
		costs(1, 1, 2, 2)
		opensAll(t, other, record)
		costs(0, 0, 0, 0)
	})
}

// That the KEK of a document wraps records too, which another keyring says before its first one, is no
// other secret: the vault is not asked for the document, so that what is beneath it opens also when no
// vault answers.
func TestMarkedKEKIsNoOtherWrap(t *testing.T) {
	bubble(t, func(t *testing.T, g *rig) {
		one := g.create()
		other := g.open()
		byKEK := *g
		byKEK.opts.Wrapping = keyring.ByKEK
		another := byKEK.open()
		newDEK(t, another) // it marks the KEK
		require.NoError(t, another.Close())
		byKeyring := *g
		byKeyring.opts.Wrapping = keyring.ByKeyring
		another = byKeyring.open()
		require.NoError(t, another.BeginEpoch(t.Context()))
		record := newDEK(t, another)

		g.vault.Inject(vaulttest.Fault{Err: vault.ErrUnavailable})
		before := other.VaultCalls()
		opensAll(t, other, record)
		synctest.Wait()
		require.Equal(t, before, other.VaultCalls())
		// And what was dropped is dropped by a check that the vault does not answer.
		_, err := another.For(inner.Block{}).DropEpochs(t.Context(), 2)
		require.NoError(t, err)
		require.ErrorIs(t, one.Revalidate(t.Context()), vault.ErrUnavailable)
		require.Equal(t, another.State().Generation, one.State().Generation)
		require.Equal(t, 1, one.State().Epochs)
	})
}

type countedLoads struct {
	keyring.Storage
	loads int
}

func (s *countedLoads) Load(ctx context.Context) ([]byte, keyring.Revision, error) {
	s.loads++
	return s.Storage.Load(ctx)
}

// Keyrings that wrap at once reserve slices of one count: together they wrap no more than an
// epoch may, whichever of them dies, and what is left when all are closed is what was
// wrapped, to the last DEK.
func TestReservationsAreDisjoint(t *testing.T) {
	t.Parallel()
	for name, c := range map[string]struct {
		most  uint64
		kills bool
	}{
		"all end in order":         {most: 6400},
		"near the most":            {most: 640},
		"one at a time":            {most: 60},
		"some die":                 {most: 6400, kills: true},
		"some die, near the most ": {most: 640, kills: true},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			g := newRig(t)
			g.opts.EpochMaxDEKs = c.most
			require.NoError(t, g.create().Close())
			const workers, each = 4, 300
			var mu sync.Mutex
			wrapped := map[uint32]uint64{}
			var wg sync.WaitGroup
			for w := range workers {
				wg.Go(func() {
					r, err := keyring.Open(t.Context(), g.storage, g.kek, &g.opts)
					if err != nil {
						t.Error(err)
						return
					}
					for range each {
						key, record, err := r.NewDEK(t.Context(), nil)
						if err != nil {
							t.Error(err)
							return
						}
						key.Destroy()
						in, _ := keyring.ParseRecord(record)
						mu.Lock()
						wrapped[in.Epoch]++
						mu.Unlock()
					}
					if c.kills && w%2 == 0 {
						t.Cleanup(func() { r.Close() }) // it is gone without a word
						return
					}
					if err := r.Close(); err != nil {
						t.Error(err)
					}
				})
			}
			wg.Wait()
			for epoch, n := range wrapped {
				require.LessOrEqual(t, n, c.most, "epoch %d", epoch)
			}
			r := g.open()
			current := r.Stats().Epoch
			step := max(c.most/64, 1)
			if c.kills {
				require.GreaterOrEqual(t, current.DEKs, wrapped[current.ID])
				require.LessOrEqual(t, current.DEKs, wrapped[current.ID]+workers/2*step, "and no more than their slices are lost")
			} else {
				require.Equal(t, wrapped[current.ID], current.DEKs)
			}
		})
	}
}

// The last slice of an epoch is what is left of it.
func TestTheLastSliceIsShort(t *testing.T) {
	g := newRig(t)
	g.opts.EpochMaxDEKs = 130 // slices of 2
	r := g.create()
	newDEK(t, r)
	require.NoError(t, r.Close()) // it gives one back, so that slices are no parts of the whole
	r = g.open()
	n := 1
	for epochOf(t, newDEK(t, r)) == 1 {
		n++
	}
	require.Equal(t, 130, n)
}

// Of several that make one keyring at once, one has made it.
func TestOneKeyringIsMade(t *testing.T) {
	g := newRig(t)
	const workers = 6
	made := make([]*keyring.Keyring, workers)
	errs := make([]error, workers)
	var wg sync.WaitGroup
	for i := range workers {
		wg.Go(func() { made[i], errs[i] = keyring.Create(t.Context(), &g.storage.MemStorage, g.kek, &g.opts) })
	}
	wg.Wait()
	n := 0
	for i, err := range errs {
		if err == nil {
			n++
			defer made[i].Close()
			continue
		}
		require.ErrorIs(t, err, keyring.ErrExists)
		require.Nil(t, made[i])
	}
	require.Equal(t, 1, n)
	g.open()
}

// What the options of one Open say of the policy is said once: keyrings that were told different
// things do not go on overruling each other.
func TestPoliciesAreSaidOnce(t *testing.T) {
	g := newRig(t)
	g.opts.EpochMaxAge = time.Hour
	one := g.create()
	g.opts.EpochMaxAge = 2 * time.Hour
	other := g.open()
	for range 3 {
		for _, r := range []*keyring.Keyring{one, other} {
			require.NoError(t, r.Revalidate(t.Context()))
			require.Equal(t, 2*time.Hour, r.Policy().EpochMaxAge)
		}
	}
	saves := g.storage.saves
	g.vault.Revoke()
	require.Error(t, one.Revalidate(t.Context()))
	g.vault.Restore()
	require.NoError(t, one.Revalidate(t.Context()))
	require.Equal(t, 2*time.Hour, one.Policy().EpochMaxAge)
	require.Equal(t, saves, g.storage.saves)
}

// Keyrings of one instance that open a copy's document begin one epoch of its own between them.
func TestOneEpochOfACopysOwn(t *testing.T) {
	g := newRig(t)
	g.opts.For(inner.Block{}).Instance = inner.InstanceID{1}
	source := g.create()
	newDEK(t, source)
	c := g.copied(2)
	one, other := c.open(), c.open()
	first, second := newDEK(t, one), newDEK(t, other)
	require.EqualValues(t, 2, epochOf(t, first))
	require.EqualValues(t, 2, epochOf(t, second))
	opensAll(t, one, second)
	opensAll(t, other, first)
	require.NoError(t, one.For(inner.Block{}).Own(t.Context()))
	require.NoError(t, other.For(inner.Block{}).Own(t.Context()))
	require.Equal(t, 2, other.State().Epochs)
	_, err := source.OpenDEK(t.Context(), first, []byte("id"))
	require.ErrorIs(t, err, keyring.ErrCorrupt)

	// What one marks as shared the other heeds when it has looked.
	require.EqualValues(t, 2, one.For(inner.Block{}).Share())
	require.NoError(t, one.For(inner.Block{}).Save(t.Context()))
	require.NoError(t, other.Revalidate(t.Context()))
	require.EqualValues(t, 3, epochOf(t, newDEK(t, other)))
	require.EqualValues(t, 3, epochOf(t, newDEK(t, one)))
}
