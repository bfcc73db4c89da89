package keyring_test

import (
	"bytes"
	"context"
	"sync"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/blockseal/blockseal/internal/inner"
	"github.com/blockseal/blockseal/kek"
	"github.com/blockseal/blockseal/keyring"
	"github.com/blockseal/blockseal/vault"
)

// copied is a rig on a copy of the document as it is now, for another instance.
func (g *rig) copied(instance byte) *rig {
	g.t.Helper()
	document, err := keyring.Document(g.t.Context(), g.storage)
	require.NoError(g.t, err)
	c := *g
	c.storage = &storage{}
	require.NoError(g.t, keyring.Replace(g.t.Context(), c.storage, document))
	c.opts.For(inner.Block{}).Instance = inner.InstanceID{instance}
	return &c
}

func newDEK(t *testing.T, r *keyring.Keyring) []byte {
	t.Helper()
	key, record, err := r.NewDEK(t.Context(), []byte("id"))
	require.NoError(t, err)
	key.Destroy()
	return record
}

// foreignTo requires that a record does not open, and that the error says why that may be.
func foreignTo(t *testing.T, r *keyring.Keyring, record []byte) {
	t.Helper()
	_, err := r.OpenDEK(t.Context(), record, []byte("id"))
	require.ErrorIs(t, err, keyring.ErrCorrupt)
	require.ErrorContains(t, err, "of a copy of this one that has an epoch 2 of its own")
}

// From the moment at which a document was copied, source and copy wrap by epochs of their
// own: what either wraps the other does not open, and no key counts for two. What was
// wrapped before opens in both.
func TestSourceAndCopyShareNoEpochTheyWrapBy(t *testing.T) {
	for _, w := range []keyring.Wrapping{keyring.ByKeyring, keyring.ByKEK} {
		t.Run(w.String(), func(t *testing.T) {
			g := newRig(t)
			g.opts.Wrapping, g.opts.For(inner.Block{}).Instance = w, inner.InstanceID{1}
			source := g.create()
			before := newDEK(t, source)
			c := g.copied(2)
			require.EqualValues(t, 1, source.For(inner.Block{}).Share())
			r := c.open()

			inSource, inCopy := newDEK(t, source), newDEK(t, r)
			require.EqualValues(t, 2, epochOf(t, inSource))
			require.EqualValues(t, 2, epochOf(t, inCopy))
			foreignTo(t, source, inCopy)
			foreignTo(t, r, inSource)
			for _, k := range []*keyring.Keyring{source, r} {
				_, err := k.OpenDEK(t.Context(), before, []byte("id"))
				require.NoError(t, err)
			}

			// It is so after a restart too, and no epoch more begins for it.
			require.NoError(t, source.Close())
			require.NoError(t, r.Close())
			source, r = g.open(), c.open()
			for _, k := range []*keyring.Keyring{source, r} {
				require.EqualValues(t, 2, epochOf(t, newDEK(t, k)))
				require.Equal(t, 2, k.State().Epochs)
			}
			foreignTo(t, source, inCopy)
			foreignTo(t, r, inSource)
		})
	}
}

// Whatever a copy does first begins its own epoch before: nobody finds a moment in which it
// wraps by its source's.
func TestCopyBeginsWithAnEpochOfItsOwn(t *testing.T) {
	for name, do := range map[string]func(ctx context.Context, r *keyring.Keyring) error{
		"a DEK": func(ctx context.Context, r *keyring.Keyring) error { _, _, err := r.NewDEK(ctx, nil); return err },
		"a rewrap": func(ctx context.Context, r *keyring.Keyring) error {
			h, err := r.Acquire()
			if err != nil {
				return err
			}
			defer h.Release()
			var b keyring.Binding
			b.Set([]byte("id"))
			again, err := h.For(inner.Block{}).Rewrap(ctx, nil, ctx.Value(recordKey{}).([]byte), &b)
			if err == nil && again[4] != 2 {
				panic("it was wrapped by the epoch that the source has")
			}
			return err
		},
		"RotateKEK": func(ctx context.Context, r *keyring.Keyring) error { return r.RotateKEK(ctx) },
		"BeginWork": func(ctx context.Context, r *keyring.Keyring) error {
			_, err := r.For(inner.Block{}).BeginWork(ctx)
			return err
		},
		"Save": func(ctx context.Context, r *keyring.Keyring) error { return r.For(inner.Block{}).Save(ctx) },
		"Own":  func(ctx context.Context, r *keyring.Keyring) error { return r.For(inner.Block{}).Own(ctx) },
	} {
		t.Run(name+", alone", func(t *testing.T) {
			g := newRig(t)
			g.opts.For(inner.Block{}).Instance = inner.InstanceID{1}
			ctx := context.WithValue(t.Context(), recordKey{}, newDEK(t, g.create()))
			r := g.copied(2).open()
			generation := r.State().Generation
			require.NoError(t, do(ctx, r))
			require.EqualValues(t, 2, r.State().Epoch)
			require.Greater(t, r.State().Generation, generation)
		})
		t.Run(name+", beside others", func(t *testing.T) {
			g := newRig(t)
			g.opts.For(inner.Block{}).Instance = inner.InstanceID{1}
			source := g.create()
			ctx := context.WithValue(t.Context(), recordKey{}, newDEK(t, source))
			c := g.copied(2)
			r := c.open()
			require.EqualValues(t, 1, r.State().Epoch, "to open it changes nothing")
			var wg sync.WaitGroup
			for range 8 {
				wg.Go(func() {
					key, record, err := r.NewDEK(ctx, nil)
					if err != nil || record[4] != 2 {
						t.Errorf("%v, epoch %d", err, record[4])
						return
					}
					key.Destroy()
				})
			}
			require.NoError(t, do(ctx, r))
			wg.Wait()
			require.EqualValues(t, 2, r.State().Epoch)
			generation := r.State().Generation
			require.NoError(t, r.For(inner.Block{}).Own(ctx))
			require.Equal(t, generation, r.State().Generation, "it is its own already")
		})
	}
}

type recordKey struct{}

// A copy that only reads, and one that is read only, changes nothing.
func TestCopyThatOnlyReads(t *testing.T) {
	g := newRig(t)
	g.opts.For(inner.Block{}).Instance = inner.InstanceID{1}
	source := g.create()
	record := newDEK(t, source)
	for _, readOnly := range []bool{false, true} {
		c := g.copied(2)
		c.opts.ReadOnly = readOnly
		before, err := keyring.Document(t.Context(), c.storage)
		require.NoError(t, err)
		r := c.open()
		_, err = r.OpenDEK(t.Context(), record, []byte("id"))
		require.NoError(t, err)
		if readOnly {
			require.ErrorIs(t, r.For(inner.Block{}).Own(t.Context()), keyring.ErrReadOnly)
		}
		require.NoError(t, r.Close())
		after, err := keyring.Document(t.Context(), c.storage)
		require.NoError(t, err)
		require.True(t, bytes.Equal(before, after))
	}
}

// An epoch that could not be saved has not begun, and the copy wraps nothing.
func TestCopyWhoseEpochCannotBeSaved(t *testing.T) {
	g := newRig(t)
	g.opts.For(inner.Block{}).Instance = inner.InstanceID{1}
	newDEK(t, g.create())
	c := g.copied(2)
	r := c.open()
	c.storage.fail = true
	_, _, err := r.NewDEK(t.Context(), []byte("id"))
	require.Error(t, err)
	require.Error(t, r.For(inner.Block{}).Own(t.Context()))
	require.EqualValues(t, 1, r.State().Epoch)
	c.storage.fail = false
	require.EqualValues(t, 2, epochOf(t, newDEK(t, r)))
}

// A source that was copied while it had no access, or that goes away before it wraps
// anything, begins an epoch all the same.
func TestShareOutlivesSessions(t *testing.T) {
	g := newRig(t)
	g.opts.For(inner.Block{}).Instance = inner.InstanceID{1}
	r := g.create()
	newDEK(t, r)
	g.vault.Revoke()
	require.Error(t, r.Revalidate(t.Context()))
	require.Zero(t, r.For(inner.Block{}).Share())
	g.vault.Restore()
	require.NoError(t, r.Revalidate(t.Context()))
	require.EqualValues(t, 2, epochOf(t, newDEK(t, r)), "copied without access")

	require.EqualValues(t, 2, r.For(inner.Block{}).Share())
	g.vault.Revoke()
	require.Error(t, r.Revalidate(t.Context()))
	g.vault.Restore()
	require.NoError(t, r.Revalidate(t.Context()))
	require.EqualValues(t, 3, epochOf(t, newDEK(t, r)), "locked meanwhile")

	require.EqualValues(t, 3, r.For(inner.Block{}).Share())
	require.NoError(t, r.For(inner.Block{}).Save(t.Context())) // and it is killed
	r = g.open()
	require.EqualValues(t, 3, r.State().Epoch)
	require.EqualValues(t, 4, epochOf(t, newDEK(t, r)), "restarted meanwhile")

	r.For(inner.Block{}).Share()
	require.NoError(t, r.Close())
	require.EqualValues(t, 5, epochOf(t, newDEK(t, g.open())), "closed meanwhile")

	g = newRig(t)
	r = g.create()
	require.NoError(t, r.BeginEpoch(t.Context()))
	require.NoError(t, r.Close())
	r = g.open()
	r.For(inner.Block{}).Share()
	require.NoError(t, r.Close())
	require.EqualValues(t, 3, epochOf(t, newDEK(t, g.open())), "the epoch before has never wrapped anything")
}

// Copies without a DEK between them are one epoch, and near the bound none begins: the
// store goes on, and an event says so.
func TestShareIsBounded(t *testing.T) {
	bubble(t, func(t *testing.T, g *rig) {
		e := g.listen()
		g.opts.MaxEpochs = 8
		r := g.create()
		for range 20 {
			r.For(inner.Block{}).Share()
		}
		newDEK(t, r)
		require.Equal(t, 2, r.State().Epochs)
		e.take()
		for range 20 {
			r.For(inner.Block{}).Share()
			newDEK(t, r)
		}
		require.Equal(t, 7, r.State().Epochs, "one is left for a rotation")
		told := 0
		for _, e := range e.take(keyring.Progressed) {
			require.ErrorIs(t, e.Err, keyring.ErrLimit)
			told++
		}
		require.Equal(t, 1, told)
		require.NoError(t, r.Close())
		r = g.open()
		require.EqualValues(t, 7, epochOf(t, newDEK(t, r)))
		require.NoError(t, r.BeginEpoch(t.Context()))
		_, err := r.For(inner.Block{}).DropEpochs(t.Context(), r.State().Epoch)
		require.NoError(t, err)
		r.For(inner.Block{}).Share()
		require.EqualValues(t, 9, epochOf(t, newDEK(t, r)), "there is room again")
	})
}

// A copy of a keyring that is full finds room for an epoch of its own; a copy of that one
// says what to do, and reads.
func TestCopyOfAFullKeyring(t *testing.T) {
	t.Parallel()
	g := newRig(t)
	g.opts.For(inner.Block{}).Instance, g.opts.EpochMaxAge = inner.InstanceID{1}, -1
	r := g.create()
	record := newDEK(t, r)
	require.NoError(t, r.FillEpochs(t.Context(), keyring.MaxEpochs-4))
	for r.BeginEpoch(t.Context()) == nil {
	}
	require.Equal(t, keyring.MaxEpochs-1, r.State().Epochs)
	require.ErrorIs(t, r.BeginEpoch(t.Context()), keyring.ErrLimit)

	c := g.copied(2)
	r = c.open()
	require.EqualValues(t, keyring.MaxEpochs, epochOf(t, newDEK(t, r)))
	cc := c.copied(3)
	r = cc.open()
	_, _, err := r.NewDEK(t.Context(), nil)
	require.ErrorIs(t, err, keyring.ErrLimit)
	require.ErrorContains(t, err, "rotate epochs in the source and copy it again")
	_, err = r.OpenDEK(t.Context(), record, []byte("id"))
	require.NoError(t, err)
}

// That a document was copied while nobody could write it down is in whatever is saved first,
// also before there is a session: what a database on top knew of the copy it may have
// forgotten with that save. So the epoch that the copy has wraps nothing more, also if the
// keyring is closed before it wraps anything.
func TestSharedIsInWhatIsSavedFirst(t *testing.T) {
	expire := func(g *rig) {
		g.clock.Step(time.Minute)
		g.vault.SetDates(g.key, time.Time{}, g.clock.Now())
		g.vault.Rotate(g.key.Name)
	}
	for name, first := range map[string]func(g *rig){
		"nothing": func(*rig) {},
		"a policy at Open": func(g *rig) {
			g.opts.EpochMaxDEKs = 1 << 27
			require.NoError(g.t, g.open().Close())
		},
		"a newer version at Open": func(g *rig) {
			g.clock.Step(time.Minute)
			g.vault.Rotate(g.key.Name)
			require.NoError(g.t, g.open().Close())
		},
		"a successor at Open": func(g *rig) {
			expire(g)
			require.NoError(g.t, g.open().Close())
		},
		"a successor, after a save that failed": func(g *rig) {
			expire(g)
			g.storage.fail = true
			r := g.open()
			require.Equal(g.t, keyring.Inaccessible, r.State().Status)
			g.storage.fail = false
			require.NoError(g.t, r.Revalidate(g.t.Context()))
			require.NoError(g.t, r.Close())
		},
		"a successor, shared while it was locked": func(g *rig) {
			expire(g)
			g.storage.fail = true
			r := g.open()
			require.Zero(g.t, r.For(inner.Block{}).Share())
			g.storage.fail = false
			require.NoError(g.t, r.Revalidate(g.t.Context()))
			require.NoError(g.t, r.Close())
			g.opts.For(inner.Block{}).Shared = false
		},
		"a successor, shared before it was locked": func(g *rig) {
			g.opts.For(inner.Block{}).Shared = false
			r := g.open()
			require.EqualValues(g.t, 1, r.For(inner.Block{}).Share())
			expire(g)
			g.vault.Revoke()
			require.Error(g.t, r.Revalidate(g.t.Context()))
			g.vault.Restore()
			require.NoError(g.t, r.Revalidate(g.t.Context()))
			require.NoError(g.t, r.Close())
		},
		"Relocate": func(g *rig) {
			key, err := g.vault.GetKey(g.t.Context(), g.key)
			require.NoError(g.t, err)
			at := kek.New(&elsewhere{g.vault, key}, vault.KeyID{Vault: "elsewhere", Name: g.key.Name})
			rel, err := keyring.Relocate(g.t.Context(), g.storage, at, &g.opts)
			require.NoError(g.t, err)
			require.Len(g.t, rel.Moved, 1)
			g.kek = at
		},
	} {
		t.Run(name, func(t *testing.T) {
			g := newRig(t)
			g.opts.For(inner.Block{}).Instance = inner.InstanceID{1}
			r := g.create()
			require.EqualValues(t, 1, epochOf(t, newDEK(t, r)))
			require.NoError(t, r.Close())
			g.opts.For(inner.Block{}).Shared = name != "a successor, shared while it was locked"
			first(g)
			g.opts.For(inner.Block{}).Shared = name == "nothing"
			r = g.open()
			require.EqualValues(t, 1, r.State().Epoch)
			require.EqualValues(t, 2, epochOf(t, newDEK(t, r)))
			require.NoError(t, r.Close())
			g.opts.For(inner.Block{}).Shared = false
			require.EqualValues(t, 2, epochOf(t, newDEK(t, g.open())), "and no other begins")
		})
	}
}

// elsewhere is a vault that has the rig's key at another address.
type elsewhere struct {
	vault.Vault
	key vault.Key // where it was
}

func (e *elsewhere) GetKey(ctx context.Context, id vault.KeyID) (vault.Key, error) {
	key, err := e.Vault.GetKey(ctx, e.key.ID)
	key.ID.Vault = "elsewhere"
	return key, err
}

func (e *elsewhere) WrapKey(ctx context.Context, id vault.KeyID, key []byte) (vault.Wrapped, error) {
	w, err := e.Vault.WrapKey(ctx, e.key.ID, key)
	w.KeyID.Vault = "elsewhere"
	return w, err
}

func (e *elsewhere) UnwrapKey(ctx context.Context, w vault.Wrapped) ([]byte, error) {
	w.KeyID = e.key.ID
	return e.Vault.UnwrapKey(ctx, w)
}

// An epoch that is shared and has to be gone on with, because there are as many epochs as begin by
// themselves, is not used up by those who look at it, or copy it, time and again.
func TestSharedEpochThatGoesOn(t *testing.T) {
	for name, again := range map[string]func(t *testing.T, one, other *keyring.Keyring){
		"copied again": func(_ *testing.T, one, _ *keyring.Keyring) { one.For(inner.Block{}).Share() },
		"looked at again": func(t *testing.T, one, other *keyring.Keyring) {
			require.NoError(t, one.Revalidate(t.Context()))
			require.NoError(t, other.Revalidate(t.Context()))
		},
		"copied again, and saved": func(t *testing.T, one, other *keyring.Keyring) {
			one.For(inner.Block{}).Share()
			require.NoError(t, one.For(inner.Block{}).Save(t.Context()))
			require.NoError(t, other.Revalidate(t.Context()))
		},
	} {
		t.Run(name, func(t *testing.T) {
			g := newRig(t)
			g.opts.MaxEpochs = 2
			one, other := g.create(), g.open()
			one.For(inner.Block{}).Share()
			const each = 200 // slices are a 64th of what the cipher allows
			for range each {
				for _, r := range []*keyring.Keyring{one, other} {
					require.EqualValues(t, 1, epochOf(t, newDEK(t, r)))
				}
				again(t, one, other)
			}
			reserved, err := one.Reserved()
			require.NoError(t, err)
			// A slice each, and the small ones of before it was shared.
			require.LessOrEqual(t, reserved[1], uint64(3*keyring.MaxEpochDEKs/64))
			require.NoError(t, one.Close())
			require.NoError(t, other.Close())
			require.EqualValues(t, 2*each, g.open().Stats().Epoch.DEKs)
		})
	}
}
