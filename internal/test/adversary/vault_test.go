package adversary

import (
	"context"
	"errors"
	"fmt"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/blockseal/blockseal/block"
	"github.com/blockseal/blockseal/kek"
	"github.com/blockseal/blockseal/keyring"
	"github.com/blockseal/blockseal/vault"
	"github.com/blockseal/blockseal/vault/vaulttest"
)

// answers is what a vault unwraps to, in place of the secret.
func answers() map[string][]byte {
	out := map[string][]byte{"another secret": repeat(0x5a, 32), "zeros": make([]byte, 32)}
	for _, n := range []int{0, 1, 16, 31, 33, 190, 191, 4097} {
		out[fmt.Sprintf("%d bytes", n)] = append([]byte{}, repeat(0x5a, n)...)
	}
	return out
}

// A vault that unwraps to anything but what was wrapped gives no access, at whichever
// entrance, and is not believed about DEKs either.
func TestWrongAnswersOfUnwrap(t *testing.T) {
	for what, answer := range answers() {
		t.Run(what, func(t *testing.T) {
			g := newRig(t)
			g.fill("a", "b", "c")
			before := g.records()
			wrong := vaulttest.Fault{Op: vault.OpUnwrapKey, Times: 1 << 30, Plaintext: answer}

			// A new store.
			fresh := g.sibling()
			remove := g.vault.Inject(wrong)
			err := fresh.tryOpen()
			require.Error(t, err)
			require.True(t, vault.Denied(err) || damaged(err), "%v", err)
			require.Empty(t, files(t, fresh.opts.Pebble.FS, "."))

			// An existing one, and the way back to it.
			// 32 bytes that are not the secret look to Open like a document that was
			// altered; other sizes like a vault that says no.
			if len(answer) == 32 {
				require.ErrorIs(t, g.tryOpen(), block.ErrCorrupt)
				remove()
			}
			s, err := block.Open(g.ctx, g.dir, g.kek, &g.opts)
			require.NoError(t, err)
			if len(answer) != 32 {
				require.Equal(t, keyring.Inaccessible, s.State().Status)
				g.shut(s, block.ErrInaccessible)
				require.Error(t, s.Revalidate(g.ctx))
				g.shut(s, block.ErrInaccessible)
				require.NotContains(t, s.State().String(), canary)
				remove()
				require.NoError(t, s.Revalidate(g.ctx))
			}

			// A store that is open locks at the next check.
			remove = g.vault.Inject(wrong)
			require.Error(t, s.Revalidate(g.ctx))
			require.Equal(t, keyring.Inaccessible, s.State().Status)
			g.shut(s, block.ErrInaccessible)
			remove()
			require.NoError(t, s.Revalidate(g.ctx))

			// A change of the KEK is proven by an unwrap, or does not happen.
			other := kek.New(g.vault, g.vault.CreateKey("other").Versionless())
			wrong.Key = "other"
			remove = g.vault.Inject(wrong)
			require.Error(t, s.ChangeKEK(g.ctx, other))
			remove()
			require.NoError(t, s.Close())
			require.Equal(t, before, g.records())
			g.intact("a", "b", "c")
		})
	}
}

// The same of a DEK that was wrapped by the vault.
func TestWrongAnswersOfUnwrapForADEK(t *testing.T) {
	for what, answer := range answers() {
		t.Run(what, func(t *testing.T) {
			g := newRig(t)
			g.opts.Keyring.Wrapping = keyring.ByKEK
			g.opts.Keyring.DEKCache = -1
			g.fill("a", "b", "c")
			before := g.records()
			s, err := block.Open(g.ctx, g.dir, g.kek, &g.opts)
			require.NoError(t, err)
			remove := g.vault.Inject(vaulttest.Fault{Op: vault.OpUnwrapKey, Times: 1 << 30, Plaintext: answer})
			got, err := s.Get(g.ctx, []byte("a"), nil)
			require.Error(t, err)
			require.True(t, damaged(err) || vault.Denied(err), "%v", err)
			require.Nil(t, got)
			require.NotContains(t, err.Error(), canary)
			_, err = s.Verify(g.ctx, nil)
			require.Error(t, err)
			remove()
			require.NoError(t, s.Revalidate(g.ctx), "an answer of a size that no secret has is a no, and locks")
			got, err = s.Get(g.ctx, []byte("a"), nil)
			require.NoError(t, err)
			require.Equal(t, plain("a"), got)
			require.NoError(t, s.Close())
			require.Equal(t, before, g.records())
		})
	}
}

// A vault that wraps to nonsense makes no store, and takes none over.
func TestWrongAnswersOfWrap(t *testing.T) {
	for what, change := range map[string]func(*vault.Wrapped){
		"nothing":         func(w *vault.Wrapped) { w.Ciphertext = nil },
		"a byte short":    func(w *vault.Wrapped) { w.Ciphertext = w.Ciphertext[:255] },
		"a byte more":     func(w *vault.Wrapped) { w.Ciphertext = append(w.Ciphertext, 0) },
		"zeros":           func(w *vault.Wrapped) { w.Ciphertext = make([]byte, 256) },
		"altered":         func(w *vault.Wrapped) { w.Ciphertext[100] ^= 1 },
		"4,097 bytes":     func(w *vault.Wrapped) { w.Ciphertext = make([]byte, 4097) },
		"another key":     func(w *vault.Wrapped) { w.KeyID.Name = "another" },
		"another vault":   func(w *vault.Wrapped) { w.KeyID.Vault = "mem:another" },
		"no version":      func(w *vault.Wrapped) { w.KeyID.Version = "" },
		"another version": func(w *vault.Wrapped) { w.KeyID.Version = "ffffffffffffffffffffffffffffffff" },
		"an odd version":  func(w *vault.Wrapped) { w.KeyID.Version = "../../x\n" },
	} {
		t.Run(what, func(t *testing.T) {
			g := newRig(t)
			g.fill("a", "b", "c")
			before := g.records()
			g.vault.CreateKey("other")
			fresh := g.sibling()
			remove := g.vault.Inject(vaulttest.Fault{Op: vault.OpWrapKey, Key: "customer", Times: 1 << 30, MutateWrapped: change})
			require.Error(t, fresh.tryOpen())
			require.Empty(t, files(t, fresh.opts.Pebble.FS, "."))
			remove()
			s, err := block.Open(g.ctx, g.dir, g.kek, &g.opts)
			require.NoError(t, err)
			g.vault.Inject(vaulttest.Fault{Op: vault.OpWrapKey, Key: "other", Times: 1 << 30, MutateWrapped: change})
			require.Error(t, s.ChangeKEK(g.ctx, kek.New(g.vault, vault.KeyID{Vault: g.key.Vault, Name: "other"})))
			require.NoError(t, s.Close())
			require.Equal(t, before, g.records())
			g.intact("a", "b", "c")
		})
	}
}

// A vault that does not answer holds up nothing but what asks it: blocks are read and
// written until the lease ends, and not after. It does not matter whether it heeds the
// context that it was given.
func TestVaultThatHangs(t *testing.T) {
	for name, fault := range map[string]vaulttest.Fault{"heeding its context": {Hang: true}, "heeding nothing": {Stuck: true}} {
		t.Run(name, func(t *testing.T) {
			g := newRig(t)
			s := g.open()
			require.NoError(t, s.Put(g.ctx, []byte("a"), plain("a")))
			fault.Times = 1 << 30
			remove := g.vault.Inject(fault)
			defer remove()
			for i := range 9 { // minutes
				g.clock.Advance(time.Minute)
				got, err := s.Get(g.ctx, []byte("a"), nil)
				require.NoError(t, err, "minute %d", i+1)
				require.Equal(t, plain("a"), got)
				require.NoError(t, s.Put(g.ctx, []byte("b"), plain("b")))
			}
			g.clock.Advance(time.Minute)
			_, err := s.Get(g.ctx, []byte("a"), nil)
			require.ErrorIs(t, err, block.ErrInaccessible)
			require.ErrorIs(t, s.Put(g.ctx, []byte("a"), nil), block.ErrInaccessible)
			ctx, cancel := context.WithTimeout(g.ctx, 20*time.Millisecond)
			defer cancel()
			require.Error(t, s.Revalidate(ctx))
			got, err := s.Get(g.ctx, []byte("a"), nil)
			require.ErrorIs(t, err, block.ErrInaccessible)
			require.Nil(t, got)
			remove()
			require.Eventually(t, func() bool { return s.Revalidate(g.ctx) == nil }, time.Minute, 5*time.Millisecond)
			require.Equal(t, keyring.Available, s.State().Status)
		})
	}
}

// Opening against a vault that hangs ends when the caller gives up, and leaves a
// directory as it was.
func TestOpenAgainstAVaultThatHangs(t *testing.T) {
	g := newRig(t)
	remove := g.vault.Inject(vaulttest.Fault{Stuck: true, Times: 1 << 30})
	defer remove()
	ctx, cancel := context.WithTimeout(g.ctx, 20*time.Millisecond)
	defer cancel()
	_, err := block.Open(ctx, g.dir, g.kek, &g.opts)
	require.Error(t, err)
	require.True(t, vault.Transient(err) || errors.Is(err, context.DeadlineExceeded), "%v", err)
	require.Empty(t, files(t, g.opts.Pebble.FS, "."))
}

// A vault that answers with a DEK of somebody's choosing, together with one who writes the
// disk and has sealed a block under it: the record says which DEK it is, and it is not that
// one. The store, reopened, keeps what it had.
func TestVaultChoosesADEK(t *testing.T) {
	g := newRig(t)
	g.opts.Keyring.Wrapping = keyring.ByKEK
	g.fill("a", "b", "c")
	good := g.records()
	store, chosen := good[documentKey][14:30], repeat(0x5a, 32)
	forged := "\x01" + string(seal(t, chosen, []byte("what the forger wrote"), []byte("\x01"+store+"a")))
	g.set(map[string]string{dataKey("a"): forged})
	s, err := block.Open(g.ctx, g.dir, g.kek, &g.opts)
	require.NoError(t, err)
	remove := g.vault.Inject(vaulttest.Fault{Op: vault.OpUnwrapKey, Times: 1 << 30, Plaintext: chosen})
	for what, read := range map[string]func() ([]byte, error){
		"Get": func() ([]byte, error) { return s.Get(g.ctx, []byte("a"), nil) },
		"Blocks": func() ([]byte, error) {
			for b, err := range s.Blocks(g.ctx, block.Range{Start: []byte("a"), End: []byte("b")}) {
				return b.Data, err
			}
			return nil, nil
		},
		"Rekey": func() ([]byte, error) { return nil, s.Rekey(g.ctx, block.Range{}, nil) },
	} {
		got, err := read()
		require.Empty(t, got, what)
		require.True(t, errors.Is(err, vault.ErrUnsupportedKey) || errors.Is(err, block.ErrInaccessible), "%s: %v", what, err)
	}
	remove()
	require.NoError(t, s.Close())
	g.set(map[string]string{dataKey("a"): good[dataKey("a")]})
	g.intact("a", "b", "c")
}
