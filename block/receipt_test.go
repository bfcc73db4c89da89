package block_test

import (
	"fmt"
	"testing"
	"time"

	"github.com/cockroachdb/pebble/v2/vfs"
	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/blockseal/blockseal/block"
	"github.com/blockseal/blockseal/kek"
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
	_, err := vfs.Clone(g.opts.FS, copies, g.dir, "raw", vfs.CloneSync)
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
	opts.FS, opts.ReadOnly, opts.RequireAccess = copies, true, true
	raw, err := block.Open(g.ctx, "raw", g.kek, &opts)
	require.NoError(t, err)
	defer raw.Close()
	got, err := raw.Get(g.ctx, []byte("X"), nil)
	require.NoError(t, err)
	require.Equal(t, "secret X", string(got))
	require.Contains(t, r.Keys, block.ReceiptKey{KeyID: raw.State().KEK, State: block.KeyExists})
	require.Equal(t, g.key, raw.State().KEK)
}

// What the vault says of a version, in each of its ways.
func TestReceiptSaysWhatTheVaultSays(t *testing.T) {
	g := newRig(t)
	s := g.open()
	other := vaulttest.New(&vaulttest.Options{Name: "mem:other", Clock: g.clock})
	own := other.CreateKey("own")
	require.NoError(t, s.ChangeKEK(g.ctx, kek.New(other, own.Versionless())))
	erase := func() []block.KeyState {
		t.Helper()
		r, err := s.Erase(g.ctx, nil)
		require.NoError(t, err)
		require.Equal(t, g.key, r.Keys[0].KeyID)
		require.Equal(t, own, r.Keys[1].KeyID)
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
	require.Equal(t, g.key, r.Keys[0].KeyID)
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
	require.Equal(t, []block.ReceiptKey{{KeyID: g.key, State: block.KeyExists}, {KeyID: second, State: block.KeyExists}}, (<-done).Keys)
}
