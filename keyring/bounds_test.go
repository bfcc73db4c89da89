package keyring

import (
	"context"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/blockseal/blockseal/kek"
	"github.com/blockseal/blockseal/vault"
	"github.com/blockseal/blockseal/vault/vaulttest"
)

// A document whose epochs or KEKs do not ascend is no document: not one whose last epoch
// has the id that the next is to be given, and not one with an id twice.
func TestIDsAscend(t *testing.T) {
	at := func(ids ...uint32) *body {
		b := &body{policy: policy{wrapping: ByKeyring, maxDEKs: 1}, nextEpoch: 7, nextKEK: 1}
		for _, id := range ids {
			b.epochs = append(b.epochs, epochKey{id: id, created: goldenStart})
		}
		return b
	}
	for name, c := range map[string]struct {
		ids []uint32
		ok  bool
	}{
		"one":              {[]uint32{6}, true},
		"with a gap":       {[]uint32{1, 4, 6}, true},
		"that of the next": {[]uint32{7}, false},
		"the next, last":   {[]uint32{1, 7}, false},
		"twice":            {[]uint32{3, 3}, false},
		"descending":       {[]uint32{4, 3}, false},
		"none":             {[]uint32{0}, false},
	} {
		_, err := decodeBody(at(c.ids...).encode())
		require.Equal(t, c.ok, err == nil, name)
		if !c.ok {
			require.ErrorIs(t, err, ErrCorrupt, name)
		}
	}
	key := func(version string) vault.KeyID { return vault.KeyID{Vault: "v", Name: "k", Version: version} }
	for name, c := range map[string]struct {
		ids []uint32
		ok  bool
	}{
		"one": {[]uint32{5}, true}, "two": {[]uint32{5, 9}, true}, "twice": {[]uint32{5, 5}, false},
		"descending": {[]uint32{9, 5}, false}, "none": {[]uint32{0, 5}, false},
	} {
		h := header{active: 5, wrapped: make([]byte, vault.WrappedSize)}
		for i, id := range c.ids {
			h.keks = append(h.keks, kekEntry{id: id, key: key(string(rune('a' + i)))})
		}
		_, err := decodeHeader(h.encode())
		require.Equal(t, c.ok, err == nil, name)
		if !c.ok {
			require.ErrorIs(t, err, ErrCorrupt, name)
		}
	}
}

// What Close takes off the document is what was not used, to the last DEK, whoever wraps one at
// that moment.
func TestSettlingIsExact(t *testing.T) {
	r, _ := newInside(t, &Options{EpochMaxDEKs: 6400})
	var wrapped atomic.Uint64
	var wg sync.WaitGroup
	for range 4 {
		wg.Go(func() {
			for range 500 {
				key, _, err := r.NewDEK(t.Context(), []byte("id"))
				if err != nil {
					t.Error(err)
					return
				}
				key.Destroy()
				wrapped.Add(1)
			}
		})
	}
	for range 50 {
		require.NoError(t, r.settleReservations())
	}
	wg.Wait()
	require.NoError(t, r.settleReservations())
	b, err := openBody(r.sealed, &r.session.Load().secret, r.aad)
	require.NoError(t, err)
	defer b.destroy()
	require.Len(t, b.epochs, 1)
	require.Equal(t, wrapped.Load(), b.current().reserved)
	require.Equal(t, wrapped.Load(), r.Stats().Epoch.DEKs)
}

// A check is due at the moment that the vault asked for, and not before.
func TestCheckIsDueAtItsInstant(t *testing.T) {
	for _, early := range []time.Duration{0, 1} {
		r, v := newInside(t, nil)
		v.ResetCalls()
		r.mu.Lock()
		r.nextCheck = r.clock.Elapsed() + early
		r.mu.Unlock()
		r.tick()
		r.checks <- struct{}{} // when the check that it began, if it did, has ended
		<-r.checks
		require.Equal(t, early == 0, v.Calls().Get > 0)
	}
}

// An epoch is too old at the age that the policy allows, and not before.
func TestEpochIsOldAtItsInstant(t *testing.T) {
	r, _ := newInside(t, &Options{EpochMaxAge: time.Hour})
	created := r.session.Load().epochs.Load().current.created
	r.beginEpochByAge(created.Add(time.Hour - 1))
	require.Len(t, r.session.Load().epochs.Load().all, 1)
	r.beginEpochByAge(created.Add(time.Hour))
	require.Eventually(t, func() bool { return len(r.session.Load().epochs.Load().all) == 2 }, time.Minute, time.Millisecond)
}

// A clock that was set back makes no key younger than it is, also not one that the keyring
// is to be moved to, whose vault believes the same clock.
func TestClockSetBackAdmitsNoExpiredKEK(t *testing.T) {
	r, v := newInside(t, nil)
	clock := r.opts.Clock.(wallClock).Clock.(*vaulttest.Clock)
	next := v.CreateKey("next")
	v.SetDates(next, time.Time{}, goldenStart.Add(time.Hour))
	clock.Advance(2 * time.Hour)
	require.NoError(t, r.Revalidate(t.Context()))
	clock.Step(-48 * time.Hour)
	before := r.State()
	require.ErrorIs(t, r.ChangeKEK(t.Context(), kek.New(v, next)), vault.ErrKeyExpired)
	require.Equal(t, before.KEK, r.State().KEK)
	require.Equal(t, before.Generation, r.State().Generation)
}

// aging is a vault that takes as long for an unwrap as the test says.
type aging struct {
	*vaulttest.Vault
	took func()
}

func (v aging) UnwrapKey(ctx context.Context, w vault.Wrapped) ([]byte, error) {
	got, err := v.Vault.UnwrapKey(ctx, w)
	v.took()
	return got, err
}

// A key that expires while the vault is being asked begins no session, by the clock as it
// was and not as it was set back.
func TestClockSetBackWhileTheVaultIsAsked(t *testing.T) {
	clock := vaulttest.NewClock(goldenStart)
	v := vaulttest.New(&vaulttest.Options{Clock: clock})
	id := v.CreateKey("k")
	v.SetDates(id, time.Time{}, goldenStart.Add(5*time.Minute))
	took := func() {}
	r, err := Create(t.Context(), &MemStorage{}, kek.New(aging{v, func() { took() }}, id), &Options{Clock: mute{clock}})
	require.NoError(t, err)
	defer r.Close()
	r.lock(nil, errUnchecked)
	clock.Step(-48 * time.Hour)
	took = func() { clock.Advance(5 * time.Minute) }
	require.ErrorIs(t, r.checkNow(t.Context()), vault.ErrKeyExpired)
	require.Nil(t, r.session.Load())
}

// mute is a clock whose timers do not ring.
type mute struct{ *vaulttest.Clock }

func (mute) AfterFunc(time.Duration, func()) func() bool { return func() bool { return true } }
