package block_test

import (
	"fmt"
	"sync"
	"testing"
	"time"

	"github.com/cockroachdb/pebble/v2/vfs"
	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/blockseal/blockseal/block"
	"github.com/blockseal/blockseal/internal/test/testkeys"
	"github.com/blockseal/blockseal/kek"
	"github.com/blockseal/blockseal/keyring"
	"github.com/blockseal/blockseal/vault"
	"github.com/blockseal/blockseal/vault/vaulttest"
)

// states returns what a receipt says of KEK versions, oldest first.
func states(r block.Receipt) (out []block.KeyState) {
	for _, k := range r.Keys {
		out = append(out, k.State)
	}
	return out
}

// A KEK version with which a copy of the files from before opens what was erased is named,
// however often the store was erased since that version wrapped its keyring.
func TestReceiptNamesWhatOpensOlderCopies(t *testing.T) {
	g := newRig(t)
	s := g.open()
	require.NoError(t, s.Put(g.ctx, []byte("X"), []byte("secret X")))
	copies := vfs.NewMem()
	_, err := vfs.Clone(g.opts.Pebble.FS, copies, g.dir, "raw", vfs.CloneSync)
	require.NoError(t, err)
	g.vault.Rotate("customer")
	require.NoError(t, s.RotateKEK(g.ctx))
	_, err = s.Erase(g.ctx, nil)
	require.NoError(t, err)
	require.NoError(t, s.Delete(g.ctx, []byte("X")))
	require.NoError(t, s.Close())
	s = g.open()
	r, err := s.Erase(g.ctx, nil)
	require.NoError(t, err)

	opts := g.opts
	opts.Pebble.FS, opts.ReadOnly, opts.RequireAccess = copies, true, true
	raw, err := block.Open(g.ctx, "raw", g.kek, &opts)
	require.NoError(t, err)
	defer raw.Close()
	got, err := raw.Get(g.ctx, []byte("X"), nil)
	require.NoError(t, err)
	require.Equal(t, "secret X", string(got))
	require.Contains(t, bare(r.Keys), block.ReceiptKey{Key: raw.State().KEK, State: block.KeyExists})
	require.Equal(t, g.key, raw.State().KEK)
}

// What the vault says of a version, in each of its ways.
func TestReceiptSaysWhatTheVaultSays(t *testing.T) {
	g := newRig(t)
	s := g.open()
	other := vaulttest.New(&vaulttest.Options{Name: "mem:other", Clock: g.clock})
	other.CreateKey("unused") // which is the key of "customer": the test vaults have the same keys
	own := other.CreateKey("own")
	require.NoError(t, s.ChangeKEK(g.ctx, kek.New(other, own.Versionless())))
	erase := func() []block.KeyState {
		t.Helper()
		r, err := s.Erase(g.ctx, nil)
		require.NoError(t, err)
		require.Equal(t, g.key, r.Keys[0].Key)
		require.Equal(t, own, r.Keys[1].Key)
		return states(r)
	}
	exists, unknown := block.KeyExists, block.KeyUnknown
	require.Equal(t, []block.KeyState{exists, exists}, erase())
	g.vault.SetEnabled(g.key, false)
	require.Equal(t, []block.KeyState{exists, exists}, erase(), "it can be enabled again")
	g.vault.SetEnabled(g.key, true)
	g.vault.Delete("customer")
	require.Equal(t, []block.KeyState{exists, exists}, erase(), "it can be recovered")
	g.vault.Recover("customer")
	g.vault.Revoke(vault.OpGet)
	require.Equal(t, []block.KeyState{unknown, exists}, erase())
	g.vault.Restore()
	g.vault.SetOutage(vaulttest.Unavailable())
	require.Equal(t, []block.KeyState{unknown, exists}, erase())
	g.vault.SetOutage(nil)
	remove := g.vault.Inject(vaulttest.Fault{Op: vault.OpGet, Stuck: true})
	done := make(chan []block.KeyState, 1)
	go func() { done <- erase() }()
	eventually(t, func() bool { return g.vault.Waiting() == 1 }, "it is asked")
	g.clock.Advance(10 * time.Second)
	require.Equal(t, []block.KeyState{unknown, exists}, <-done, "a client that does not come back is left behind")
	remove()
	g.vault.Purge("customer")
	require.Equal(t, []block.KeyState{block.KeyNotFound, exists}, erase())

	// Without a client for it nothing is known, and nothing is forgotten.
	require.NoError(t, s.Close())
	g.kek = kek.New(other, own.Versionless())
	s = g.open()
	require.Equal(t, []block.KeyState{unknown, exists}, erase())
}

// That a client knows no key of another vault says nothing about that key.
func TestReceiptWithAClientOfSomeVault(t *testing.T) {
	g := newRig(t)
	s := g.open()
	other := vaulttest.New(&vaulttest.Options{Name: "mem:other", Clock: g.clock})
	other.CreateKey("customer")
	require.NoError(t, s.ChangeKEK(g.ctx, kek.New(other, vault.KeyID{Name: "customer"})))
	require.NoError(t, s.Close())
	g.kek = kek.New(other, vault.KeyID{Name: "customer"})
	g.opts.Keyring.OtherKEKs = []*kek.KEK{g.kek}
	s = g.open()
	r, err := s.Erase(g.ctx, nil)
	require.NoError(t, err)
	require.Equal(t, g.key, r.Keys[0].Key)
	require.Equal(t, []block.KeyState{block.KeyUnknown, block.KeyExists}, states(r))
}

// A version is forgotten when it has not been found for longer than a vault can bring it
// back, and not when it was found in between.
func TestReceiptForgetsWhatIsLongGone(t *testing.T) {
	g := newRig(t)
	s := g.open()
	g.vault.CreateKey("next")
	require.NoError(t, s.ChangeKEK(g.ctx, kek.New(g.vault, vault.KeyID{Vault: g.key.Vault, Name: "next"})))
	erase := func(want ...block.KeyState) {
		t.Helper()
		r, err := s.Erase(g.ctx, nil)
		require.NoError(t, err)
		require.Equal(t, want, states(r))
		require.False(t, r.Incomplete)
	}
	later := func(d time.Duration) { g.clock.Step(d) }
	const day = 24 * time.Hour
	// As a Key Vault, which does not tell what was deleted from what was purged.
	hide := func() (remove func()) {
		return g.vault.Inject(vaulttest.Fault{Op: vault.OpGet, Key: "customer", Err: vault.ErrKeyNotFound})
	}
	remove := hide()
	erase(block.KeyNotFound, block.KeyExists)
	later(300 * day)
	erase(block.KeyNotFound, block.KeyExists)
	remove()
	later(100 * day)
	erase(block.KeyExists, block.KeyExists)
	hide()
	erase(block.KeyNotFound, block.KeyExists)
	later(300 * day)
	erase(block.KeyNotFound, block.KeyExists)
	later(100 * day)
	erase(block.KeyNotFound, block.KeyExists) // for the last time
	erase(block.KeyExists)
	in := fmt.Sprint(s.State().KEK)
	require.NoError(t, s.Close())
	seen, err := block.Inspect(g.ctx, g.dir, &g.opts)
	require.NoError(t, err)
	require.Len(t, seen.PastKEKs, 1)
	require.Equal(t, in, fmt.Sprint(seen.PastKEKs[0]))
}

// A version that comes to wrap the document while Erase is at work opens what a copy of
// the files has that is made then.
func TestReceiptNamesAKEKThatComesMeanwhile(t *testing.T) {
	g := newRig(t)
	s := g.open()
	remove := g.vault.Inject(vaulttest.Fault{Op: vault.OpGet, Nth: 1, Hang: true})
	done := make(chan block.Receipt, 1)
	go func() {
		r, err := s.Erase(g.ctx, nil)
		assert.NoError(t, err)
		done <- r
	}()
	eventually(t, func() bool { return g.vault.Waiting() == 1 }, "it asks for those that there are")
	second := g.vault.Rotate("customer")
	require.NoError(t, s.RotateKEK(g.ctx))
	remove()
	require.Equal(t, []block.ReceiptKey{{Key: g.key, State: block.KeyExists}, {Key: second, State: block.KeyExists}}, bare((<-done).Keys))
}

// bare is the keys of a receipt without which key each is.
func bare(keys []block.ReceiptKey) (out []block.ReceiptKey) {
	for _, k := range keys {
		out = append(out, block.ReceiptKey{Key: k.Key, State: k.State})
	}
	return out
}

// The same key under another version, name and vault is the same key: a rotation to it is
// refused, a move to it is said to be one of the address alone, KeyUsage and Inspect name
// them together, and a receipt does not say that it is gone as long as one of them is
// there.
func TestOneKeyUnderManyNames(t *testing.T) {
	pairs, err := testkeys.Pairs()
	require.NoError(t, err)
	key := pairs[len(pairs)-1] // the rig's vault begins with the first
	g := newRig(t)
	var mu sync.Mutex
	var moved []string
	g.opts.Keyring.OnEvent = func(e keyring.Event) {
		if e.Kind == keyring.KEKChanged {
			mu.Lock()
			defer mu.Unlock()
			moved = append(moved, e.Detail)
		}
	}
	first := g.vault.ImportKey("imported", key)
	g.kek = kek.New(g.vault, first.Versionless())
	s := g.open()
	require.NoError(t, s.Put(g.ctx, []byte("a"), []byte("1")))

	again := g.vault.ImportVersion("imported", key)
	require.NotEqual(t, first, again)
	err = s.RotateKEK(g.ctx)
	require.ErrorIs(t, err, keyring.ErrSameKey)
	require.ErrorContains(t, err, again.String())
	require.ErrorContains(t, err, first.String())
	require.Equal(t, first, s.State().KEK)
	require.NoError(t, s.ChangeKEK(g.ctx, kek.New(g.vault, again)))
	other := vaulttest.New(&vaulttest.Options{Name: "mem:other", Clock: g.clock})
	restored := other.ImportKey("restored", key)
	require.NoError(t, s.ChangeKEK(g.ctx, kek.New(other, restored)))
	require.Equal(t, restored, s.State().KEK)
	eventually(t, func() bool { mu.Lock(); defer mu.Unlock(); return len(moved) == 2 }, "both moves are told")
	require.Equal(t, []string{
		"change KEK; its public key is that of " + first.String() + ": a new address of the same key",
		"change KEK; its public key is that of " + again.String() + ": a new address of the same key"}, moved)

	g.vault.Purge("imported")
	states := func() (out []block.KeyState) {
		r, err := s.Erase(g.ctx, nil)
		require.NoError(t, err)
		for i, id := range []vault.KeyID{first, again, restored} {
			require.Equal(t, id, r.Keys[i].Key)
			require.Len(t, r.Keys[i].PublicKey, 64)
			require.Equal(t, r.Keys[0].PublicKey, r.Keys[i].PublicKey)
			out = append(out, r.Keys[i].State)
		}
		return out
	}
	require.Equal(t, []block.KeyState{block.KeyElsewhere, block.KeyElsewhere, block.KeyExists}, states())
	uses, err := s.KeyUsage(g.ctx)
	require.NoError(t, err)
	require.Len(t, uses, 1)
	require.Equal(t, restored, uses[0].Key)
	require.ElementsMatch(t, []vault.KeyID{first, again}, uses[0].SameAs)
	require.Len(t, uses[0].PublicKey, 64)

	require.NoError(t, s.ChangeKEK(g.ctx, kek.New(other, other.CreateKey("next"))))
	other.Revoke(vault.OpGet)
	require.Equal(t, []block.KeyState{block.KeyUnknown, block.KeyUnknown, block.KeyUnknown}, states())
	other.Restore()
	other.Purge("restored")
	require.Equal(t, []block.KeyState{block.KeyNotFound, block.KeyNotFound, block.KeyNotFound}, states(), "now it is gone")
	require.NoError(t, s.Close())
	in, err := block.Inspect(g.ctx, g.dir, &g.opts)
	require.NoError(t, err)
	require.Len(t, in.Keys, 1)
	require.Empty(t, in.Keys[0].SameAs)
}

// A version that the vault has and that is the same key is taken up by itself, because the
// one before may not serve for long; the event says that it is no other key.
func TestSameKeyIsTakenUpAndSaidToBe(t *testing.T) {
	pairs, err := testkeys.Pairs()
	require.NoError(t, err)
	key := pairs[len(pairs)-1] // the rig's vault begins with the first
	g := newRig(t)
	told := make(chan string, 16)
	g.opts.Keyring.OnEvent = func(e keyring.Event) {
		if e.Kind == keyring.KEKChanged {
			told <- e.Detail
		}
	}
	first := g.vault.ImportKey("imported", key)
	g.kek = kek.New(g.vault, first.Versionless())
	s := g.open()
	again := g.vault.ImportVersion("imported", key)
	require.NoError(t, s.Revalidate(g.ctx))
	require.Equal(t, again, s.State().KEK)
	require.Equal(t, "a newer version; its public key is that of "+first.String()+": a new address of the same key", <-told)
	// To wrap it anew, under a fresh secret, is what it was.
	require.NoError(t, s.RotateKEK(g.ctx))
}
