package kek_test

import (
	"bytes"
	"context"
	"crypto/rand"
	"errors"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/blockseal/blockseal/kek"
	"github.com/blockseal/blockseal/vault"
	"github.com/blockseal/blockseal/vault/vaulttest"
)

func newKEK() (*vaulttest.Vault, *kek.KEK) {
	v := vaulttest.New(nil)
	return v, kek.New(v, v.CreateKey("kek").Versionless())
}

func TestNewDoesNoIO(t *testing.T) {
	v := vaulttest.New(nil)
	id := vault.KeyID{Name: "none"}
	k := kek.New(v, id)
	require.Equal(t, id, k.ID())
	require.Same(t, v, k.Vault())
	pinned := k.WithVersion("1")
	require.Equal(t, vault.KeyID{Name: "none", Version: "1"}, pinned.ID())
	require.Equal(t, id, k.ID(), "the original keeps its id")
	require.Zero(t, v.Calls())
}

func TestCheckMakesThreeCalls(t *testing.T) {
	v, k := newKEK()
	require.NoError(t, k.Check(t.Context()))
	require.Equal(t, vaulttest.Calls{Get: 1, Wrap: 1, Unwrap: 1}, v.Calls())
}

func TestCheckTriesTheVersionThatItAdmitted(t *testing.T) {
	v, k := newKEK()
	var admitted, used string
	v.Inject(vaulttest.Fault{MutateKey: func(key *vault.Key) {
		admitted = key.ID.Version
		v.Rotate("kek") // between GetKey and WrapKey
	}})
	v.Inject(vaulttest.Fault{MutateWrapped: func(w *vault.Wrapped) { used = w.KeyID.Version }})
	require.NoError(t, k.Check(t.Context()))
	require.Equal(t, admitted, used)
}

func TestCheckFindsEachPermissionLost(t *testing.T) {
	for op, calls := range map[vault.Operation]vaulttest.Calls{
		vault.OpGet:       {Get: 1},
		vault.OpWrapKey:   {Get: 1, Wrap: 1},
		vault.OpUnwrapKey: {Get: 1, Wrap: 1, Unwrap: 1},
	} {
		v, k := newKEK()
		v.Revoke(op)
		err := k.Check(t.Context())
		require.ErrorIs(t, err, vault.ErrAccessDenied)
		require.ErrorContains(t, err, string(op))
		require.Equal(t, calls, v.Calls(), "it stops at the first refusal")
	}
}

func TestCheckJudgesDatesThatTheVaultLetsPass(t *testing.T) {
	v, k := newKEK()
	v.SetDates(k.ID(), time.Time{}, time.Now().Add(-time.Second))
	require.ErrorIs(t, k.Check(t.Context()), vault.ErrKeyExpired)
	require.Zero(t, v.Calls().Unwrap)
}

func TestGetReturnsThePropertiesWithTheRefusal(t *testing.T) {
	v, k := newKEK()
	v.SetEnabled(k.ID(), false)
	key, err := k.Get(t.Context(), now)
	require.ErrorIs(t, err, vault.ErrKeyDisabled)
	require.NotNil(t, key.Public)
	v.Purge("kek")
	key, err = k.Get(t.Context(), now)
	require.ErrorIs(t, err, vault.ErrKeyNotFound)
	require.Zero(t, key)
}

// A vault that answers for something else than was asked must not be believed.
func TestAnswersForAnotherKeyAreRefused(t *testing.T) {
	for _, tt := range []struct {
		what   string
		change func(*vault.KeyID)
		pinned bool // ask for a version
		says   string
	}{
		{"another name", func(id *vault.KeyID) { id.Name = "other" }, false, "answered for another key, mem:test/keys/other"},
		{"another vault", func(id *vault.KeyID) { id.Vault = "mem:other" }, false, "answered for another key, mem:other"},
		{"no vault", func(id *vault.KeyID) { id.Vault = "" }, false, "answered for another key"},
		{"another version", func(id *vault.KeyID) { id.Version = "ff" }, true, "answered for another key"},
		{"no version", func(id *vault.KeyID) { id.Version = "" }, false, "did not say which version"},
		{"no version, one asked for", func(id *vault.KeyID) { id.Version = "" }, true, "answered for another key"},
		{"an impossible version", func(id *vault.KeyID) { id.Version = "../x" }, false, "the version may have"},
	} {
		t.Run(tt.what, func(t *testing.T) {
			v := vaulttest.New(nil)
			id := v.CreateKey("kek")
			if !tt.pinned {
				id = id.Versionless()
			}
			k := kek.New(v, id)

			remove := v.Inject(vaulttest.Fault{MutateKey: func(key *vault.Key) { tt.change(&key.ID) }})
			_, err := k.Get(t.Context(), now)
			require.ErrorIs(t, err, vault.ErrUnsupportedKey)
			require.ErrorContains(t, err, tt.says)
			require.ErrorIs(t, k.Check(t.Context()), vault.ErrUnsupportedKey)
			remove()

			v.Inject(vaulttest.Fault{MutateWrapped: func(w *vault.Wrapped) { tt.change(&w.KeyID) }})
			w, err := k.Wrap(t.Context(), []byte("secret"))
			require.ErrorIs(t, err, vault.ErrUnsupportedKey)
			require.ErrorContains(t, err, tt.says)
			require.Zero(t, w)
		})
	}
}

func TestWrapRefusesTheVaultsWrongAnswers(t *testing.T) {
	secret := make([]byte, 32)
	rand.Read(secret)
	inClear := make([]byte, vault.WrappedSize)
	copy(inClear[100:], secret)
	for _, tt := range []struct {
		what       string
		ciphertext []byte
		says       string
	}{
		{"nothing", nil, "returned 0 wrapped bytes"},
		{"too short", make([]byte, 255), "returned 255 wrapped bytes, an RSA-2048 key gives 256"},
		{"too long", make([]byte, 257), "returned 257 wrapped bytes"},
		{"of an RSA-3072 key", make([]byte, 384), "returned 384 wrapped bytes"},
		{"the secret in clear", inClear, "returned the secret unencrypted"},
	} {
		t.Run(tt.what, func(t *testing.T) {
			v, k := newKEK()
			v.Inject(vaulttest.Fault{MutateWrapped: func(w *vault.Wrapped) { w.Ciphertext = tt.ciphertext }})
			w, err := k.Wrap(t.Context(), secret)
			require.ErrorIs(t, err, vault.ErrUnsupportedKey)
			require.ErrorContains(t, err, tt.says)
			require.Zero(t, w)
			require.False(t, bytes.Contains([]byte(err.Error()), secret))
		})
	}
}

func TestWrapRefusesSizesWithoutACall(t *testing.T) {
	v, k := newKEK()
	for _, n := range []int{0, vault.MaxSecret + 1} {
		_, err := k.Wrap(t.Context(), make([]byte, n))
		require.ErrorContains(t, err, "1 to 190 bytes")
		require.False(t, vault.Denied(err), "it says nothing about the key")
	}
	require.Zero(t, v.Calls())
	for _, n := range []int{1, 32, vault.MaxSecret} {
		want := bytes.Repeat([]byte{7}, n)
		w, err := k.Wrap(t.Context(), want)
		require.NoError(t, err)
		got, err := k.Unwrap(t.Context(), w)
		require.NoError(t, err)
		require.Equal(t, want, got)
	}
}

func TestUnwrapRefusesWithoutACall(t *testing.T) {
	v, k := newKEK()
	good, err := k.Wrap(t.Context(), []byte("secret"))
	require.NoError(t, err)
	v.ResetCalls()
	// The key as a caller names it who knows which vault it is in.
	k = kek.New(v, good.KeyID.Versionless())
	for _, tt := range []struct {
		what   string
		change func(*vault.Wrapped)
		kind   error
		says   string
	}{
		{"no version", func(w *vault.Wrapped) { w.KeyID.Version = "" }, nil, "names no key version"},
		{"another name", func(w *vault.Wrapped) { w.KeyID.Name = "other" }, vault.ErrBadCiphertext, "wrapped with another key, mem:test/keys/other"},
		{"another vault", func(w *vault.Wrapped) { w.KeyID.Vault = "mem:other" }, vault.ErrBadCiphertext, "wrapped with another key, mem:other"},
		{"no vault", func(w *vault.Wrapped) { w.KeyID.Vault = "" }, vault.ErrBadCiphertext, "wrapped with another key"},
		{"empty", func(w *vault.Wrapped) { w.Ciphertext = nil }, vault.ErrBadCiphertext, "it has 0 bytes, want 256"},
		{"too short", func(w *vault.Wrapped) { w.Ciphertext = w.Ciphertext[:255] }, vault.ErrBadCiphertext, "it has 255 bytes"},
		{"too long", func(w *vault.Wrapped) { w.Ciphertext = append(bytes.Clone(w.Ciphertext), 0) }, vault.ErrBadCiphertext, "it has 257 bytes"},
	} {
		t.Run(tt.what, func(t *testing.T) {
			w := good
			tt.change(&w)
			got, err := k.Unwrap(t.Context(), w)
			require.ErrorContains(t, err, tt.says)
			require.Equal(t, tt.kind, vault.Kind(err))
			require.Nil(t, got)
		})
	}
	require.Zero(t, v.Calls())
}

func TestUnwrapTakesWhatAnOlderVersionWrapped(t *testing.T) {
	v, k := newKEK()
	w, err := k.Wrap(t.Context(), []byte("secret"))
	require.NoError(t, err)
	newest := v.Rotate("kek")
	for _, k := range []*kek.KEK{k, k.WithVersion(newest.Version)} {
		got, err := k.Unwrap(t.Context(), w)
		require.NoError(t, err)
		require.Equal(t, "secret", string(got))
	}
}

func TestUnwrapRefusesTheVaultsWrongAnswers(t *testing.T) {
	v, k := newKEK()
	w, err := k.Wrap(t.Context(), []byte("secret"))
	require.NoError(t, err)
	for n, says := range map[int]string{0: "returned 0 bytes, want 1 to 190", 191: "returned 191 bytes", 4096: "returned 4096 bytes"} {
		remove := v.Inject(vaulttest.Fault{Plaintext: bytes.Repeat([]byte("s"), n)})
		got, err := k.Unwrap(t.Context(), w)
		require.ErrorIs(t, err, vault.ErrBadCiphertext)
		require.ErrorContains(t, err, says)
		require.ErrorContains(t, err, w.KeyID.Version, "it names the version")
		require.Nil(t, got)
		remove()
	}
}

func TestCheckFindsAnotherSecret(t *testing.T) {
	for what, answer := range map[string][]byte{
		"same length": make([]byte, 32),
		"shorter":     make([]byte, 31),
		"longer":      make([]byte, 33),
		"empty":       {},
	} {
		v, k := newKEK()
		v.Inject(vaulttest.Fault{Plaintext: answer})
		err := k.Check(t.Context())
		require.Error(t, err, what)
		require.True(t, vault.Denied(err), what)
	}
}

// secretWithError breaks the rules: it returns the secret with an error.
type secretWithError struct {
	vault.Vault
	secret []byte
}

func (s secretWithError) UnwrapKey(context.Context, vault.Wrapped) ([]byte, error) {
	return s.secret, errors.New("and yet")
}

func TestUnwrapClearsASecretThatComesWithAnError(t *testing.T) {
	v, k := newKEK()
	w, err := k.Wrap(t.Context(), []byte("secret"))
	require.NoError(t, err)
	leaked := []byte("secret")
	got, err := kek.New(secretWithError{v, leaked}, k.ID()).Unwrap(t.Context(), w)
	require.ErrorContains(t, err, "and yet")
	require.Nil(t, got)
	require.Equal(t, make([]byte, 6), leaked)
}

// keptSecrets is a vault that keeps what it hands out, to see what becomes of it.
type keptSecrets struct {
	vault.Vault
	out [][]byte
}

func (v *keptSecrets) UnwrapKey(ctx context.Context, w vault.Wrapped) ([]byte, error) {
	got, err := v.Vault.UnwrapKey(ctx, w)
	v.out = append(v.out, got)
	return got, err
}

// Check overwrites what the vault unwrapped, whatever came of it.
func TestCheckClearsTheSecret(t *testing.T) {
	v, k := newKEK()
	kept := &keptSecrets{Vault: v}
	require.NoError(t, kek.New(kept, k.ID()).Check(t.Context()))
	v.Inject(vaulttest.Fault{Plaintext: bytes.Repeat([]byte{1}, 32)})
	require.ErrorIs(t, kek.New(kept, k.ID()).Check(t.Context()), vault.ErrUnsupportedKey)
	require.Equal(t, [][]byte{make([]byte, 32), make([]byte, 32)}, kept.out)
}

// So does Unwrap with what cannot be a secret.
func TestUnwrapClearsWhatIsTooLong(t *testing.T) {
	v, k := newKEK()
	w, err := k.Wrap(t.Context(), []byte("secret"))
	require.NoError(t, err)
	long := bytes.Repeat([]byte{1}, vault.MaxSecret+1)
	_, err = kek.New(answering{v, long}, k.ID()).Unwrap(t.Context(), w)
	require.ErrorIs(t, err, vault.ErrBadCiphertext)
	require.Equal(t, make([]byte, len(long)), long)
}

// answering is a vault that unwraps to what the test says.
type answering struct {
	vault.Vault
	secret []byte
}

func (a answering) UnwrapKey(context.Context, vault.Wrapped) ([]byte, error) { return a.secret, nil }

// A KEK that was given without a vault takes the vault's word for which it is, and so needs
// one.
func TestAnswersWithoutAVaultAreRefused(t *testing.T) {
	v, k := newKEK()
	id := k.ID()
	id.Vault = ""
	k = kek.New(v, id)
	_, err := k.Get(t.Context(), now)
	require.NoError(t, err)
	v.Inject(vaulttest.Fault{MutateKey: func(key *vault.Key) { key.ID.Vault = "" },
		MutateWrapped: func(w *vault.Wrapped) { w.KeyID.Vault = "" }})
	_, err = k.Get(t.Context(), now)
	require.ErrorIs(t, err, vault.ErrUnsupportedKey)
	require.ErrorContains(t, err, "did not say which vault it is")
	_, err = k.Wrap(t.Context(), []byte("secret"))
	require.ErrorIs(t, err, vault.ErrUnsupportedKey)
	require.ErrorContains(t, err, "did not say which vault it is")
}

// A ciphertext has few bytes in a row that are the secret's by chance: from 16 of them on it
// is no chance, and the secret is refused as one that came back in clear.
func TestHowLongASecretInClearIs(t *testing.T) {
	for size, refused := range map[int]bool{1: false, 15: false, 16: true, 17: true} {
		v, k := newKEK()
		secret := make([]byte, size)
		rand.Read(secret)
		v.Inject(vaulttest.Fault{MutateWrapped: func(w *vault.Wrapped) { copy(w.Ciphertext[7:], secret) }})
		_, err := k.Wrap(t.Context(), secret)
		if refused {
			require.ErrorContains(t, err, "unencrypted", "%d bytes", size)
		} else {
			require.NoError(t, err, "%d bytes", size)
		}
	}
}

func TestErrorsOfTheVaultComeThrough(t *testing.T) {
	v, k := newKEK()
	w, err := k.Wrap(t.Context(), []byte("secret"))
	require.NoError(t, err)
	v.SetOutage(vaulttest.Throttled(3 * time.Second))
	for op, call := range map[string]func() error{
		"check":  func() error { return k.Check(t.Context()) },
		"get":    func() error { _, err := k.Get(t.Context(), now); return err },
		"wrap":   func() error { _, err := k.Wrap(t.Context(), []byte("secret")); return err },
		"unwrap": func() error { _, err := k.Unwrap(t.Context(), w); return err },
	} {
		err := call()
		require.ErrorIs(t, err, vault.ErrThrottled, op)
		require.True(t, vault.Transient(err), op)
		require.Equal(t, 3*time.Second, vault.RetryAfter(err), op)
	}
	v.SetOutage(nil)
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	require.True(t, vault.Transient(k.Check(ctx)))
}

func BenchmarkWrap(b *testing.B) {
	_, k := newKEK()
	secret := make([]byte, 32)
	b.ReportAllocs()
	for b.Loop() {
		if _, err := k.Wrap(b.Context(), secret); err != nil {
			b.Fatal(err)
		}
	}
}

func BenchmarkUnwrap(b *testing.B) {
	_, k := newKEK()
	w, err := k.Wrap(b.Context(), make([]byte, 32))
	require.NoError(b, err)
	b.ReportAllocs()
	for b.Loop() {
		if _, err := k.Unwrap(b.Context(), w); err != nil {
			b.Fatal(err)
		}
	}
}
