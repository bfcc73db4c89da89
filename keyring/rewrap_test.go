package keyring_test

import (
	"bytes"
	"errors"
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/blockseal/blockseal/dek"
	"github.com/blockseal/blockseal/keyring"
	"github.com/blockseal/blockseal/vault"
	"github.com/blockseal/blockseal/vault/vaulttest"
)

// rewrapper is a keyring whose KEK was rotated, and a record of before.
type rewrapper struct {
	*rig
	r      *keyring.Keyring
	record []byte
	bytes  []byte // of the DEK
}

func newRewrapper(t *testing.T, w keyring.Wrapping) *rewrapper {
	g := newRig(t)
	g.opts.Wrapping, g.opts.DEKCache = w, -1
	r := g.create()
	key, record, err := r.NewDEK(t.Context(), []byte("block"))
	require.NoError(t, err)
	out := &rewrapper{g, r, record, bytes.Clone(key.Bytes())}
	key.Destroy()
	g.vault.Rotate("customer")
	require.NoError(t, r.RotateKEK(t.Context()))
	return out
}

func (g *rewrapper) rewrap(dst, record []byte, opens func(*dek.Key) error) ([]byte, error) {
	h, err := g.r.Acquire()
	require.NoError(g.t, err)
	defer func() { h.Release() }()
	var b keyring.Binding
	b.Set([]byte("block"))
	return h.RewrapKEK(g.t.Context(), dst, record, &b, opens)
}

// What is made is appended, opens to the same DEK, and names the KEK of now; the DEK that
// was shown meanwhile is gone.
func TestRewrapKEK(t *testing.T) {
	g := newRewrapper(t, keyring.ByKEK)
	var shown *dek.Key
	before := g.vault.Calls()
	got, err := g.rewrap([]byte("before"), g.record, func(k *dek.Key) error {
		require.Equal(t, g.bytes, k.Bytes())
		shown = k
		return nil
	})
	require.NoError(t, err)
	require.Panics(t, func() { shown.Bytes() }, "it was destroyed")
	calls := g.vault.Calls()
	require.Equal(t, 2, calls.Unwrap-before.Unwrap, "the old wrap, and the new one, which proves it")
	require.Equal(t, 1, calls.Wrap-before.Wrap)
	again, ok := bytes.CutPrefix(got, []byte("before"))
	require.True(t, ok)
	in, err := keyring.ParseRecord(again)
	require.NoError(t, err)
	_, active := g.r.KEKs()
	require.Equal(t, active, in.KEK)
	key, err := g.r.OpenDEK(t.Context(), again, []byte("block"))
	require.NoError(t, err)
	require.Equal(t, g.bytes, key.Bytes())

	// Again it needs nothing.
	before = g.vault.Calls()
	same, err := g.rewrap([]byte("before"), again, func(*dek.Key) error { t.Error("it is not opened"); return nil })
	require.NoError(t, err)
	require.Equal(t, got, same)
	require.Equal(t, before, g.vault.Calls())
}

// What is not wrapped by a KEK needs nothing, either.
func TestRewrapKEKOfARecordByTheKeyring(t *testing.T) {
	g := newRewrapper(t, keyring.ByKeyring)
	before := g.vault.Calls()
	got, err := g.rewrap([]byte("before"), g.record, func(*dek.Key) error { t.Error("it is not opened"); return nil })
	require.NoError(t, err)
	require.Equal(t, append([]byte("before"), g.record...), got)
	require.Equal(t, before, g.vault.Calls())
}

// A DEK that does not open what it has sealed is wrapped by nothing, and a wrap that does not
// come back takes no place: the caller's error, or the vault's, and nothing of a record.
func TestRewrapKEKRefuses(t *testing.T) {
	g := newRewrapper(t, keyring.ByKEK)
	before := g.vault.Calls().Wrap
	damaged := errors.New("it does not open the block")
	got, err := g.rewrap(nil, g.record, func(*dek.Key) error { return damaged })
	require.ErrorIs(t, err, damaged)
	require.Nil(t, got)
	require.Equal(t, before, g.vault.Calls().Wrap)

	for name, record := range map[string][]byte{
		"empty": nil, "cut off": g.record[:len(g.record)-1], "altered": append(bytes.Clone(g.record[:len(g.record)-1]), g.record[len(g.record)-1]^1),
	} {
		got, err = g.rewrap(nil, record, func(*dek.Key) error { return nil })
		require.ErrorIs(t, err, keyring.ErrCorrupt, name)
		require.Nil(t, got, name)
	}

	// The vault wraps to something that it cannot undo; the old wrap it still can.
	remove := g.vault.Inject(vaulttest.Fault{Op: vault.OpWrapKey, MutateWrapped: func(w *vault.Wrapped) { w.Ciphertext[9] ^= 1 }})
	got, err = g.rewrap(nil, g.record, func(*dek.Key) error { return nil })
	require.ErrorContains(t, err, "the vault's new wrap of the DEK is of no use")
	require.Nil(t, got)
	remove()
	got, err = g.rewrap(nil, g.record, func(*dek.Key) error { return nil })
	require.NoError(t, err)
	require.NotEqual(t, g.record, got)
}
