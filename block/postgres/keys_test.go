package postgres_test

import (
	"context"
	"errors"
	"fmt"
	"strconv"
	"sync"
	"sync/atomic"
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/blockseal/blockseal/block"
	"github.com/blockseal/blockseal/kek"
	"github.com/blockseal/blockseal/keyring"
	"github.com/blockseal/blockseal/vault"
)

// writers put blocks into stores, alone and in batches, until stop is called, which returns what was
// acknowledged of each id, at the least once in each store.
func (g *rig) writers(stores ...*block.Store) (stop func() map[string]string) {
	var all sync.WaitGroup
	var mu sync.Mutex
	acknowledged := map[string]string{}
	ctx, end := context.WithCancel(g.ctx)
	var began sync.WaitGroup
	for w, s := range append(stores, stores...) {
		began.Add(1)
		all.Go(func() {
			for n := 0; ctx.Err() == nil; n++ {
				wrote := map[string]string{}
				b := s.NewBatch()
				for i := range 1 + n%3 {
					id, data := fmt.Sprintf("writer %d block %02d", w, (n+i)%40), fmt.Sprint("version ", n)
					wrote[id] = data
					if err := b.Put(g.ctx, []byte(id), []byte(data)); err != nil {
						g.t.Errorf("writer %d: batch: %v", w, err)
						return
					}
				}
				var err error
				if len(wrote) == 1 {
					for id, data := range wrote {
						err = s.Put(g.ctx, []byte(id), []byte(data))
					}
				} else {
					err = b.Commit(g.ctx)
				}
				if errors.Is(err, block.ErrStale) { // ByKEK, and the KEK was changed: once more
					continue
				}
				if err != nil {
					g.t.Errorf("writer %d: %v", w, err)
					return
				}
				mu.Lock()
				for id, data := range wrote {
					acknowledged[id] = data
				}
				mu.Unlock()
				if n == 0 {
					began.Done()
				}
			}
		})
	}
	began.Wait()
	return func() map[string]string {
		end()
		all.Wait()
		return acknowledged
	}
}

// requireAll checks that a store has what was acknowledged, in another process than those that wrote.
func (g *rig) requireAll(acknowledged map[string]string) *block.Store {
	g.t.Helper()
	s := g.open(g.db(), "store")
	for id, data := range acknowledged {
		requireData(g.t, s, id, data)
	}
	return s
}

// One process rotates the epoch, and another one at the same time, while both write: nothing that was
// acknowledged is lost, and no record names an epoch that was destroyed.
func TestRotateEpochWhileOthersWrite(t *testing.T) {
	g := newRig(t)
	a, b := g.two()
	for i := range 300 {
		put(t, a, fmt.Sprintf("old %03d", i), strconv.Itoa(i))
	}
	requireData(t, b, "old 000", "0")
	stop := g.writers(a, b)
	for range 4 {
		require.NoError(t, a.RotateEpoch(g.ctx, nil))
	}
	var both sync.WaitGroup
	for _, s := range []*block.Store{a, b} {
		both.Go(func() {
			for range 3 {
				if err := s.RotateEpoch(g.ctx, nil); err != nil {
					t.Error(err)
				}
			}
		})
	}
	both.Wait()
	acknowledged := stop()
	require.NoError(t, b.RotateEpoch(g.ctx, nil))
	c := g.requireAll(acknowledged)
	for i := range 300 {
		requireData(t, c, fmt.Sprintf("old %03d", i), strconv.Itoa(i))
	}
	for _, s := range []*block.Store{a, b, c} {
		rep := requireWhole(t, s)
		require.Len(t, rep.DEKs, 1, "one epoch is left")
		require.Equal(t, uint64(rep.Blocks), rep.DEKs[s.State().Epoch])
	}
	require.Equal(t, 1, c.State().Epochs)
	require.GreaterOrEqual(t, c.State().Epoch, uint32(12))
}

// A process that is behind, because it has written nothing since, is stopped by the floor, and goes on
// with the new epoch.
func TestOneThatIsBehind(t *testing.T) {
	g := newRig(t)
	g.deaf = true
	a, b := g.two()
	put(t, b, "before", "1")
	batch := b.NewBatch()
	require.NoError(t, batch.Put(g.ctx, []byte("of the batch"), []byte("2")))
	for range 3 {
		require.NoError(t, a.RotateEpoch(g.ctx, nil))
	}
	require.Less(t, b.State().Epoch, a.State().Epoch, "it has not looked")
	put(t, b, "after", "3")
	require.Equal(t, b.State().Epoch, a.State().Epoch)
	require.NoError(t, batch.Commit(g.ctx), "its records are wrapped again")
	c := g.requireAll(map[string]string{"before": "1", "of the batch": "2", "after": "3"})
	require.Len(t, requireWhole(t, c).DEKs, 1)
}

// Rekeying and rotating, each in a process of its own, take turns: each block has a fresh DEK, and the
// writers win.
func TestRekeyWhileTheOtherRotates(t *testing.T) {
	g := newRig(t)
	a, b := g.two()
	for i := range 200 {
		put(t, a, fmt.Sprintf("old %03d", i), strconv.Itoa(i))
	}
	was := g.records()
	stop := g.writers(b)
	var both sync.WaitGroup
	var rekeyed, rotated error
	both.Go(func() { rekeyed = a.Rekey(g.ctx, block.Range{}, nil) })
	both.Go(func() {
		for range 3 {
			if rotated == nil {
				rotated = b.RotateEpoch(g.ctx, nil)
			}
		}
	})
	both.Wait()
	require.NoError(t, rekeyed)
	require.NoError(t, rotated)
	g.requireAll(stop())
	now := g.records()
	for id, sealed := range was {
		require.NotEqual(t, sealed, now[id], "%s has the DEK of before", id)
	}
}

// records returns the sealed blocks as the server has them, by id.
func (g *rig) records() map[string]string {
	return ask[map[string]string](g, `select json_object_agg(encode(id, 'escape'), encode(data, 'hex')) from rows`)
}

// What a snapshot in one process sees stays readable there while another one destroys the epochs that
// wrapped it.
func TestSnapshotOutlivesAnothersRotation(t *testing.T) {
	g := newRig(t)
	g.deaf = true
	a, b := g.two()
	put(t, a, "id", "before")
	snap := b.Snapshot()
	require.NoError(t, a.RotateEpoch(g.ctx, nil))
	put(t, a, "id", "after")
	requireData(t, b, "id", "after") // b has taken up the document
	require.Equal(t, a.State().Epoch, b.State().Epoch)
	got, err := snap.Get(g.ctx, []byte("id"), nil)
	require.NoError(t, err)
	require.Equal(t, "before", string(got))
	for bl, err := range snap.Blocks(g.ctx, block.Range{}) {
		require.NoError(t, err)
		require.Equal(t, "before", string(bl.Data))
	}
	require.NoError(t, snap.Close())
}

// What a process says of the KEKs is what they are, and not what it knew of them: somebody may
// destroy one because of it.
func TestKeyUsageIsThatOfAllProcesses(t *testing.T) {
	g := newRig(t)
	g.deaf = true
	g.store.ManualRewrap = true
	g.store.Keyring.Wrapping = keyring.ByKEK
	a, b := g.two()
	put(t, a, "id", "data")
	version := g.vault.Rotate("customer")
	require.NoError(t, a.RotateKEK(g.ctx))
	put(t, a, "more", "data")
	require.Equal(t, g.key, b.State().KEK, "it has not looked")
	uses, err := b.KeyUsage(g.ctx)
	require.NoError(t, err)
	byKey := map[vault.KeyID]block.KeyUse{}
	for _, u := range uses {
		byKey[u.Key] = u
	}
	require.True(t, byKey[version].Document)
	require.EqualValues(t, 1, byKey[version].Records)
	require.EqualValues(t, 1, byKey[g.key].Records)
	g.vault.SetOutage(vault.ErrAccessDenied)
	require.Eventually(t, func() bool {
		g.clock.Advance(keyring.DefaultCheckEvery)
		return status(b) == keyring.Inaccessible
	}, long, short)
	_, err = b.KeyUsage(g.ctx)
	require.ErrorIs(t, err, block.ErrIncomplete, "it cannot look")
}

// One process moves the store to another KEK, or a newer version, and the other one follows; DEKs that
// the KEK wraps itself are rewrapped while both write.
func TestKEKChangesWhileOthersWrite(t *testing.T) {
	for _, wrapping := range []keyring.Wrapping{keyring.ByKeyring, keyring.ByKEK} {
		t.Run(wrapping.String(), func(t *testing.T) {
			g := newRig(t)
			g.store.ManualRewrap, g.store.VaultRate = true, 1_000_000_000 // the clock stands still
			g.store.Keyring.Wrapping = wrapping
			second := kek.New(g.vault, g.vault.CreateKey("second").Versionless())
			g.store.Keyring.OtherKEKs = []*kek.KEK{second, g.kek}
			a, b := g.two()
			put(t, a, "old", "1")
			stop := g.writers(a, b)
			version := g.vault.Rotate("customer")
			require.NoError(t, a.RotateKEK(g.ctx))
			require.NoError(t, a.RewrapDEKs(g.ctx, nil))
			require.NoError(t, b.ChangeKEK(g.ctx, second))
			require.NoError(t, a.RewrapDEKs(g.ctx, nil), "by the one that is behind")
			require.NoError(t, b.RewrapDEKs(g.ctx, nil))
			acknowledged := stop()
			require.NoError(t, b.RewrapDEKs(g.ctx, nil))
			require.NoError(t, a.RotateEpoch(g.ctx, nil))
			for _, s := range []*block.Store{a, b} {
				require.Equal(t, second.ID(), s.State().KEK.Versionless())
				uses, err := s.KeyUsage(g.ctx)
				require.NoError(t, err)
				for _, u := range uses {
					require.True(t, !u.Needed() || u.Key.Versionless() == second.ID(), "%v is needed", u.Key)
				}
			}
			g.vault.SetEnabled(g.key, false)
			g.vault.SetEnabled(version, false)
			g.kek = second
			requireWhole(t, g.requireAll(acknowledged))
			requireWhole(t, a)
			requireWhole(t, b)
		})
	}
}

// Each process asks the vault for itself: a key that is taken away locks both, and one that is given
// back opens both.
func TestRevocationIsSeenByBoth(t *testing.T) {
	g := newRig(t)
	a, b := g.two()
	put(t, a, "id", "data")
	requireData(t, b, "id", "data")
	g.vault.SetEnabled(g.key, false)
	g.clock.Advance(keyring.DefaultCheckEvery)
	for _, s := range []*block.Store{a, b} {
		require.Eventually(t, func() bool { return status(s) == keyring.Inaccessible }, long, short)
		require.ErrorIs(t, s.State().Cause, vault.ErrKeyDisabled)
		_, err := s.Get(g.ctx, []byte("id"), nil)
		require.ErrorIs(t, err, block.ErrInaccessible)
		require.ErrorIs(t, s.Put(g.ctx, []byte("id"), nil), block.ErrInaccessible)
	}
	g.vault.SetEnabled(g.key, true)
	for _, s := range []*block.Store{a, b} {
		require.NoError(t, s.Revalidate(g.ctx))
	}
	requireData(t, b, "id", "data")
	put(t, b, "id", "more")
	requireData(t, a, "id", "more")
}

// Keys that one process has destroyed are gone from the other one at its next check, if it hears of
// nothing before.
func TestDestroyedKeysAreGoneEverywhere(t *testing.T) {
	g := newRig(t)
	g.deaf = true
	var dropped atomic.Int64
	a := g.create(g.db(), "store")
	g.store.Keyring.OnEvent = func(e keyring.Event) {
		if e.Kind == keyring.EpochDropped {
			dropped.Add(1)
		}
	}
	b := g.open(g.db(), "store")
	put(t, a, "id", "data")
	require.NoError(t, a.RotateEpoch(g.ctx, nil))
	require.Zero(t, dropped.Load())
	require.Eventually(t, func() bool { g.second(); return dropped.Load() == 1 && b.State().Epochs == 1 }, long, short)
	requireData(t, b, "id", "data")
}
