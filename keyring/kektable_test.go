package keyring_test

import (
	"context"
	"fmt"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/blockseal/blockseal/kek"
	"github.com/blockseal/blockseal/keyring"
	"github.com/blockseal/blockseal/vault"
	"github.com/blockseal/blockseal/vault/vaulttest"
)

// newRecord returns a record and which KEK it names.
func newRecord(t *testing.T, r *keyring.Keyring) (record []byte, id uint32) {
	t.Helper()
	key, record, err := r.NewDEK(t.Context(), []byte("block"))
	require.NoError(t, err)
	key.Destroy()
	in, err := keyring.ParseRecord(record)
	require.NoError(t, err)
	return record, in.KEK
}

// opens reports what comes of opening a record.
func opens(t *testing.T, r *keyring.Keyring, record []byte) error {
	t.Helper()
	key, err := r.OpenDEK(t.Context(), record, []byte("block"))
	if err == nil {
		key.Destroy()
	}
	return err
}

// byKEK makes the rig's DEKs wrapped by the vault, and none of them cached.
func (g *rig) byKEK() { g.opts.Wrapping, g.opts.DEKCache = keyring.ByKEK, -1 }

// A record that was made and not stored yet may name a KEK that leaves the table: the
// id does not come to mean another while the keyring is open.
func TestKEKIDsAreNotGivenTwice(t *testing.T) {
	g := newRig(t)
	g.byKEK()
	r := g.create()
	k2, k3 := kek.New(g.vault, g.vault.CreateKey("second")), kek.New(g.vault, g.vault.CreateKey("third"))
	newRecord(t, r)
	require.NoError(t, r.ChangeKEK(t.Context(), k2))
	_, second := newRecord(t, r)
	require.NoError(t, r.ChangeKEK(t.Context(), g.kek))
	require.NoError(t, r.DropKEKs(t.Context(), r.KEKMoves(), second))
	require.NoError(t, r.ChangeKEK(t.Context(), k3))
	_, third := newRecord(t, r)
	require.Greater(t, third, second)
	require.NoError(t, r.ChangeKEK(t.Context(), k2))
	_, again := newRecord(t, r)
	require.Greater(t, again, third)
	require.NoError(t, r.Close())

	r = g.open2(k2)
	keks, active := r.KEKs()
	require.Equal(t, again, active)
	require.NotContains(t, keks, second)
}

// open2 opens the rig's keyring with another KEK.
func (g *rig) open2(k *kek.KEK) *keyring.Keyring {
	c := *g
	c.kek = k
	return c.open()
}

// Whoever looks for what KEKs wrap, to drop the others, looks again if the KEK was
// changed meanwhile, there and back too.
func TestDropKEKsAfterAMove(t *testing.T) {
	g := newRig(t)
	g.byKEK()
	r := g.create()
	k2 := kek.New(g.vault, g.vault.CreateKey("second"))
	_, first := newRecord(t, r)
	require.NoError(t, r.ChangeKEK(t.Context(), k2))
	moves := r.KEKMoves()
	require.NoError(t, r.ChangeKEK(t.Context(), g.kek))
	record, id := newRecord(t, r)
	require.Equal(t, first, id)
	require.NoError(t, r.ChangeKEK(t.Context(), k2))
	require.ErrorIs(t, r.DropKEKs(t.Context(), moves, first), keyring.ErrMoved)
	keks, _ := r.KEKs()
	require.Contains(t, keks, first)
	require.NoError(t, opens(t, r, record))

	require.NoError(t, r.DropKEKs(t.Context(), r.KEKMoves(), first))
	keks, _ = r.KEKs()
	require.NotContains(t, keks, first)
}

// What began before a KEK left the table goes on reading what that has wrapped, as long
// as the keyring is open.
func TestRecordsOfADroppedKEK(t *testing.T) {
	g := newRig(t)
	g.byKEK()
	r := g.create()
	record, first := newRecord(t, r)
	k2 := kek.New(g.vault, g.vault.CreateKey("second"))
	require.NoError(t, r.ChangeKEK(t.Context(), k2))
	require.NoError(t, r.DropKEKs(t.Context(), r.KEKMoves(), first))
	require.NoError(t, opens(t, r, record))
	require.NoError(t, r.Close())

	g.opts.OtherKEKs = []*kek.KEK{g.kek}
	require.ErrorIs(t, opens(t, g.open2(k2), record), keyring.ErrCorrupt)
}

// Keys of one name in several vaults are told apart, although the caller named none
// but by the client.
func TestSameNameInOtherVaults(t *testing.T) {
	g := newRig(t)
	g.byKEK()
	g.kek = kek.New(g.vault, vault.KeyID{Name: "customer"})
	vaults, keks := []*vaulttest.Vault{g.vault}, []*kek.KEK{g.kek}
	for i := range 3 {
		v := vaulttest.New(&vaulttest.Options{Name: fmt.Sprintf("mem:other-%d", i), Clock: g.clock})
		v.CreateKey("customer")
		vaults, keks = append(vaults, v), append(keks, kek.New(v, vault.KeyID{Name: "customer"}))
	}
	r := g.create()
	require.Equal(t, g.key.Versionless(), r.KEK().ID())
	var records [][]byte
	for i := range keks {
		if i > 0 {
			require.NoError(t, r.ChangeKEK(t.Context(), keks[i]))
		}
		vaults[i].Rotate("customer")
		require.NoError(t, r.RotateKEK(t.Context()), "it still follows the key's versions")
		record, _ := newRecord(t, r)
		records = append(records, record)
	}
	require.NoError(t, r.ChangeKEK(t.Context(), keks[0]), "and back")
	for i, record := range records {
		require.NoError(t, opens(t, r, record), "of vault %d", i)
	}
	require.NoError(t, r.Close())

	// After a restart it is the caller who knows the others: those that say their vault
	// come before one that may be in any.
	exact := func(i int) *kek.KEK {
		return kek.New(vaults[i], vault.KeyID{Vault: vaults[i].Name(), Name: "customer"})
	}
	g.opts.OtherKEKs = []*kek.KEK{keks[3], exact(1), exact(2)}
	r = g.open()
	require.Equal(t, g.key.Versionless(), r.KEK().ID(), "the document says in which vault")
	for i, record := range records {
		require.NoError(t, opens(t, r, record), "of vault %d", i)
	}
	require.NoError(t, r.ChangeKEK(t.Context(), keks[1]))
	require.NoError(t, opens(t, r, records[0]))
}

// A KEK without a vault is that of the document's: another vault's answer is no.
func TestOpenWithTheSameNameInAnotherVault(t *testing.T) {
	g := newRig(t)
	require.NoError(t, g.create().Close())
	other := vaulttest.New(&vaulttest.Options{Name: "mem:other", Clock: g.clock})
	other.CreateKey("customer")
	r := g.open2(kek.New(other, vault.KeyID{Name: "customer"}))
	st := r.State()
	require.Equal(t, keyring.Inaccessible, st.Status)
	require.ErrorIs(t, st.Cause, vault.ErrKeyNotFound, "it was asked for the document's key")
	require.Zero(t, other.Calls().Wrap)
}

// Two keyrings may be given one Options.
func TestOptionsAreTheCallers(t *testing.T) {
	g, other := newRig(t), newRig(t)
	given := make([]*kek.KEK, 0, 8)
	done := make(chan error)
	for _, g := range []*rig{g, other} {
		g.byKEK()
		g.opts.OtherKEKs = given
		r := g.create()
		record, _ := newRecord(t, r)
		next := kek.New(g.vault, g.vault.CreateKey("next"))
		go func() {
			err := r.ChangeKEK(context.WithoutCancel(t.Context()), next)
			if err == nil {
				err = opens(t, r, record)
			}
			done <- err
		}()
	}
	require.NoError(t, <-done)
	require.NoError(t, <-done)
	require.Nil(t, given[:1][0], "the caller's memory is not written to")
}

// An Open that fails after the vault has said yes leaves no keys behind, and no timer;
// what it says is what failed.
func TestOpenThatFailsLate(t *testing.T) {
	bubble(t, func(t *testing.T, g *rig) {
		e := g.listen()
		require.NoError(t, g.create().Close())
		require.Zero(t, g.clock.Pending())
		e.take()
		g.storage.fail = true
		g.opts.EpochMaxDEKs, g.opts.RequireAccess = 1000, true // a policy to be saved
		r, err := keyring.Open(t.Context(), g.storage, g.kek, &g.opts)
		require.ErrorIs(t, err, errSave)
		require.NotErrorIs(t, err, keyring.ErrInaccessible)
		require.Nil(t, r)
		require.Zero(t, g.clock.Pending())
		changes := e.take(keyring.StateChanged)
		require.Len(t, changes, 2)
		require.Equal(t, keyring.Available, changes[0].To)
		require.Equal(t, keyring.Closed, changes[1].To, "what was opened is closed")
		calls := g.vault.Calls().Total()
		g.pass(20 * time.Minute)
		require.Equal(t, calls, g.vault.Calls().Total())

		g.vault.SetOutage(vaulttest.NetworkGone())
		_, err = keyring.Open(t.Context(), g.storage, g.kek, &g.opts)
		require.ErrorIs(t, err, keyring.ErrInaccessible)
		require.Zero(t, g.clock.Pending())
		for _, ev := range e.take(keyring.StateChanged) {
			require.Equal(t, keyring.Inaccessible, ev.To, "nothing was opened that is closed")
		}
	})
}
