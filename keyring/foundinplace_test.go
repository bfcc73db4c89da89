package keyring_test

import (
	"context"
	"errors"
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

// What is found in the place of the document changes nothing of what a keyring has, which goes
// on with it, saves nothing over what is there, and says what is wrong; but its lease is not
// extended any more. When the document is back, so is the keyring. To a keyring that is locked
// it is why it stays so.
func TestWhatIsFoundInItsPlace(t *testing.T) {
	for name, c := range map[string]struct {
		put  func(t *testing.T, g *rig, older, now []byte)
		want error
	}{
		"an older document": {func(t *testing.T, g *rig, older, _ []byte) {
			require.NoError(t, keyring.Replace(t.Context(), &g.storage.MemStorage, older))
		}, keyring.ErrUnexpected},
		"one of the same generation that went another way": {func(t *testing.T, g *rig, older, _ []byte) {
			c := *g
			c.storage = &storage{}
			c.opts.OnEvent = nil
			require.NoError(t, keyring.Replace(t.Context(), c.storage, older))
			r := c.open()
			require.NoError(t, r.BeginEpoch(t.Context()))
			g.takeFrom(&c)
		}, keyring.ErrUnexpected},
		"a later one that went another way": {func(t *testing.T, g *rig, older, _ []byte) {
			c := *g
			c.storage = &storage{}
			c.opts.OnEvent = nil
			require.NoError(t, keyring.Replace(t.Context(), c.storage, older))
			r := c.open()
			for range 3 {
				require.NoError(t, r.BeginEpoch(t.Context()))
			}
			g.takeFrom(&c)
		}, keyring.ErrUnexpected},
		"another keyring's": {func(t *testing.T, g *rig, _, _ []byte) {
			other := newRig(t)
			r := other.create()
			for range 5 {
				require.NoError(t, r.BeginEpoch(t.Context()))
			}
			g.takeFrom(other)
		}, keyring.ErrUnexpected},
		"damage in clear": {func(t *testing.T, g *rig, _, now []byte) {
			require.NoError(t, keyring.Replace(t.Context(), &g.storage.MemStorage, now[:50]))
		}, keyring.ErrCorrupt},
		"damage that says that it is later": {func(t *testing.T, g *rig, _, now []byte) {
			now[37]++ // its generation
			require.NoError(t, keyring.Replace(t.Context(), &g.storage.MemStorage, now))
		}, keyring.ErrCorrupt},
		"a version of another release": {func(t *testing.T, g *rig, _, now []byte) {
			now[9]++
			require.NoError(t, keyring.Replace(t.Context(), &g.storage.MemStorage, now))
		}, keyring.ErrVersion},
		"nothing": {func(t *testing.T, g *rig, _, _ []byte) { g.storage.MemStorage.Forget() }, keyring.ErrNoDocument},
	} {
		t.Run(name, func(t *testing.T) {
			bubble(t, func(t *testing.T, g *rig) {
				g.opts.For(inner.Block{}).Instance = inner.InstanceID{1}
				e := g.listen()
				r := g.create()
				require.NoError(t, r.BeginEpoch(t.Context()))
				older, err := keyring.Document(t.Context(), g.storage)
				require.NoError(t, err)
				record := newDEK(t, r)
				require.NoError(t, r.BeginEpoch(t.Context()))
				good, err := keyring.Document(t.Context(), g.storage)
				require.NoError(t, err)
				before := r.State()

				c.put(t, g, older, append([]byte(nil), good...))
				there, _ := keyring.Document(t.Context(), g.storage)
				end := r.State().LeaseEnd
				e.take()
				require.ErrorIs(t, r.Revalidate(t.Context()), c.want)
				require.Len(t, e.take(keyring.CheckFailed), 1)
				require.ErrorIs(t, r.BeginEpoch(t.Context()), c.want)
				require.ErrorIs(t, r.RotateKEK(t.Context()), c.want)
				st := r.State()
				require.Equal(t, keyring.Degraded, st.Status)
				require.ErrorIs(t, st.Cause, c.want)
				require.Equal(t, before.Generation, st.Generation)
				require.Equal(t, before.Epoch, st.Epoch)
				require.Equal(t, end, st.LeaseEnd, "nothing extends the lease")
				opensAll(t, r, record)
				now, _ := keyring.Document(t.Context(), g.storage)
				require.Equal(t, there, now, "nothing is written over it")

				// It is put back in time, and another time not.
				require.NoError(t, keyring.Replace(t.Context(), &g.storage.MemStorage, good))
				require.NoError(t, r.Revalidate(t.Context()))
				require.Equal(t, keyring.Available, r.State().Status)
				require.NoError(t, r.BeginEpoch(t.Context()))
				good, err = keyring.Document(t.Context(), g.storage)
				require.NoError(t, err)
				c.put(t, g, older, append([]byte(nil), good...))
				g.pass(keyring.DefaultLease + time.Second)
				require.Equal(t, keyring.Inaccessible, r.State().Status)
				require.Error(t, r.Revalidate(t.Context()))
				require.Equal(t, keyring.Inaccessible, r.State().Status)
				require.ErrorIs(t, r.State().Cause, c.want)
				require.NoError(t, keyring.Replace(t.Context(), &g.storage.MemStorage, good))
				require.NoError(t, r.Revalidate(t.Context()))
				opensAll(t, r, record)
			})
		})
	}
}

// takeFrom makes the document of another rig what the rig's storage holds.
func (g *rig) takeFrom(from *rig) {
	g.t.Helper()
	document, err := keyring.Document(g.t.Context(), from.storage)
	require.NoError(g.t, err)
	require.NoError(g.t, keyring.Replace(g.t.Context(), &g.storage.MemStorage, document))
}

// A copy's document in the place of its source's is refused, also when it is later; and what is on
// top is asked of each document that is taken up.
func TestWhatIsNotAdmittedIsNotTakenUp(t *testing.T) {
	g := newRig(t)
	g.opts.For(inner.Block{}).Instance = inner.InstanceID{1}
	source := g.create()
	newDEK(t, source)
	c := g.copied(2)
	r := c.open()
	for range 4 {
		require.NoError(t, r.BeginEpoch(t.Context()))
	}
	good, err := keyring.Document(t.Context(), g.storage)
	require.NoError(t, err)
	g.takeFrom(c)
	require.ErrorIs(t, source.Revalidate(t.Context()), keyring.ErrUnexpected)
	require.ErrorContains(t, source.State().Cause, "a copy's was put in its place")
	require.NoError(t, keyring.Replace(t.Context(), &g.storage.MemStorage, good))
	require.NoError(t, source.Revalidate(t.Context()))

	refused := errors.New("not with this store")
	var seen []uint64
	refuse := false
	admits := *g
	admits.opts.For(inner.Block{}).Admit = func(o inner.Opened) error {
		seen = append(seen, o.Generation)
		if refuse {
			return refused
		}
		return nil
	}
	other := admits.open()
	require.NoError(t, source.BeginEpoch(t.Context()))
	require.NoError(t, other.Revalidate(t.Context()))
	require.Equal(t, source.State().Generation, seen[len(seen)-1])
	refuse = true
	require.NoError(t, source.BeginEpoch(t.Context()))
	require.ErrorIs(t, other.Revalidate(t.Context()), refused)
	require.ErrorIs(t, other.BeginEpoch(t.Context()), refused)
	_, err = other.OpenDEK(t.Context(), newDEK(t, source), []byte("id"))
	require.ErrorIs(t, err, refused)
	require.NotErrorIs(t, err, keyring.ErrCorrupt, "nobody knows that the record is damaged")
	refuse = false
	opensAll(t, other, newDEK(t, source))
}

// A document that another keyring moved to a KEK which was not given locks at the end of the
// lease, and says which KEK it takes.
func TestMovedToAKEKThatWasNotGiven(t *testing.T) {
	bubble(t, func(t *testing.T, g *rig) {
		one := g.create()
		other := g.open()
		record := newDEK(t, one)
		another := g.vault.CreateKey("another")
		require.NoError(t, one.ChangeKEK(t.Context(), kek.New(g.vault, another)))
		err := other.Revalidate(t.Context())
		require.ErrorIs(t, err, keyring.ErrWrongKEK)
		require.ErrorContains(t, err, another.String())
		require.ErrorIs(t, other.BeginEpoch(t.Context()), keyring.ErrWrongKEK)
		opensAll(t, other, record)
		g.pass(keyring.DefaultLease + time.Second)
		require.Equal(t, keyring.Inaccessible, other.State().Status)
		require.ErrorIs(t, other.State().Cause, keyring.ErrWrongKEK)
		require.Equal(t, keyring.Available, one.State().Status)
	})
}

// A keyring takes up that its key is in another place, if it was given that.
func TestRelocatedMeanwhile(t *testing.T) {
	bubble(t, func(t *testing.T, g *rig) {
		const elsewhere = "https://elsewhere.vault.example.com"
		place := vaulttest.New(&vaulttest.Options{Clock: g.clock, Name: elsewhere})
		place.RestoreKey(g.vault, "customer")
		there := kek.New(place, vault.KeyID{Vault: elsewhere, Name: "customer"})
		g.opts.OtherKEKs = []*kek.KEK{there}
		r := g.create()
		record := newDEK(t, r)
		_, err := keyring.Relocate(t.Context(), g.storage, there, &keyring.Options{Clock: g.opts.Clock})
		require.NoError(t, err)
		g.vault.Revoke() // the place of before is lost
		require.NoError(t, r.Revalidate(t.Context()))
		require.Equal(t, elsewhere, r.State().KEK.Vault)
		opensAll(t, r, record)
		require.NoError(t, r.BeginEpoch(t.Context()))
	})
}

// hangingLoads is a storage whose Load does not come back, and does not heed its context.
type hangingLoads struct {
	keyring.Storage
	hang chan struct{} // nil: it does not
}

func (s *hangingLoads) Load(ctx context.Context) ([]byte, keyring.Revision, error) {
	if s.hang != nil {
		<-s.hang
	}
	return s.Storage.Load(ctx)
}

// A storage that does not answer keeps no lock waiting, and extends nothing.
func TestStorageThatHangs(t *testing.T) {
	bubble(t, func(t *testing.T, g *rig) {
		other := g.create()
		s := &hangingLoads{Storage: g.storage}
		r, err := keyring.Open(t.Context(), s, g.kek, &g.opts)
		require.NoError(t, err)
		defer r.Close()
		end := r.State().LeaseEnd
		s.hang = make(chan struct{})
		done := make(chan error, 1)
		go func() { done <- r.Revalidate(t.Context()) }()
		synctest.Wait()
		g.clock.Advance(keyring.DefaultVaultTimeout)
		require.ErrorContains(t, <-done, "the storage did not answer within 10s")
		require.Equal(t, keyring.Degraded, r.State().Status)
		require.Equal(t, end, r.State().LeaseEnd)

		// An operation that looks for an epoch is no reason for a lock to wait.
		require.NoError(t, other.BeginEpoch(t.Context()))
		record := newDEK(t, other)
		go func() {
			_, err := r.OpenDEK(t.Context(), record, []byte("id"))
			done <- err
		}()
		synctest.Wait()
		g.clock.Step(keyring.DefaultLease) // and the watch sees that it is over
		g.clock.Advance(time.Second)
		require.ErrorIs(t, <-done, keyring.ErrInaccessible)
		require.Equal(t, keyring.Inaccessible, r.State().Status)
		close(s.hang)
		synctest.Wait()
		s.hang = nil
		require.NoError(t, r.Revalidate(t.Context()))
		opensAll(t, r, record)
	})
}

// A vault's no locks at once, whatever the storage says.
func TestRefusalBesideAStorageThatFails(t *testing.T) {
	g := newRig(t)
	s := &failing{}
	r, err := keyring.Create(t.Context(), s, g.kek, &g.opts)
	require.NoError(t, err)
	defer r.Close()
	s.load = errors.New("the disk is gone")
	require.ErrorIs(t, r.Revalidate(t.Context()), s.load)
	require.Equal(t, keyring.Degraded, r.State().Status)
	g.vault.Revoke()
	require.ErrorIs(t, r.Revalidate(t.Context()), vault.ErrAccessDenied)
	require.Equal(t, keyring.Inaccessible, r.State().Status)
	g.vault.Restore()
	require.ErrorIs(t, r.Revalidate(t.Context()), s.load)
	require.Equal(t, keyring.Inaccessible, r.State().Status, "it does not open with what may be old")
	s.load = nil
	require.NoError(t, r.Revalidate(t.Context()))
}

// What a keyring has moved to a successor is its document, also if it could not begin with it: an
// older one is refused from then on.
func TestOlderThanAMoveThatOpenedNothing(t *testing.T) {
	g := newRig(t)
	require.NoError(t, g.create().Close())
	older, err := keyring.Document(t.Context(), g.storage)
	require.NoError(t, err)
	g.vault.SetDates(g.key, time.Time{}, g.clock.Now())
	g.clock.Step(time.Minute)
	calls, refusal := 0, errors.New("not now")
	g.opts.For(inner.Block{}).Admit = func(inner.Opened) error {
		if calls++; calls == 2 { // before the move is saved, and before it is begun with
			return refusal
		}
		return nil
	}
	r := g.open()
	require.ErrorIs(t, r.State().Cause, vault.ErrKeyExpired)
	newest := g.vault.Rotate("customer")
	require.ErrorIs(t, r.Revalidate(t.Context()), refusal)
	require.Equal(t, newest, r.State().KEK, "it was moved")
	require.Equal(t, keyring.Inaccessible, r.State().Status)

	moved, err := keyring.Document(t.Context(), g.storage)
	require.NoError(t, err)
	g.vault.SetDates(g.key, time.Time{}, time.Time{})
	require.NoError(t, keyring.Replace(t.Context(), &g.storage.MemStorage, older))
	require.ErrorIs(t, r.Revalidate(t.Context()), keyring.ErrUnexpected)
	require.Equal(t, keyring.Inaccessible, r.State().Status)
	require.NoError(t, keyring.Replace(t.Context(), &g.storage.MemStorage, moved))
	require.NoError(t, r.Revalidate(t.Context()))
}
