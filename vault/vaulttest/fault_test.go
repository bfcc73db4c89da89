package vaulttest_test

import (
	"context"
	"encoding/pem"
	"errors"
	"io"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/blockseal/blockseal/vault"
	"github.com/blockseal/blockseal/vault/vaulttest"
)

func decodePEM(t *testing.T, data []byte) []byte {
	t.Helper()
	block, _ := pem.Decode(data)
	require.NotNil(t, block, "no PEM block")
	return block.Bytes
}

func get(t *testing.T, v *vaulttest.Vault, name string) error {
	t.Helper()
	_, err := v.GetKey(t.Context(), vault.KeyID{Name: name})
	return err
}

func TestFaultNthAndTimes(t *testing.T) {
	for _, tt := range []struct {
		name  string
		fault vaulttest.Fault
		fails string // of six calls: x fails, . does not
	}{
		{"every", vaulttest.Fault{}, "xxxxxx"},
		{"the next", vaulttest.Fault{Nth: 1}, "x....."},
		{"the third", vaulttest.Fault{Nth: 3}, "..x..."},
		{"two from the third on", vaulttest.Fault{Nth: 3, Times: 2}, "..xx.."},
		{"the next two", vaulttest.Fault{Times: 2}, "xx...."},
		{"of this key", vaulttest.Fault{Key: "kek"}, "xxxxxx"},
		{"of another key", vaulttest.Fault{Key: "other"}, "......"},
		{"of this operation", vaulttest.Fault{Op: vault.OpGet}, "xxxxxx"},
		{"of another operation", vaulttest.Fault{Op: vault.OpWrapKey}, "......"},
	} {
		t.Run(tt.name, func(t *testing.T) {
			v := vaulttest.New(nil)
			v.CreateKey("kek")
			tt.fault.Err = vault.ErrThrottled
			remove := v.Inject(tt.fault)
			var got []byte
			for range 6 {
				if err := get(t, v, "kek"); err != nil {
					require.ErrorIs(t, err, vault.ErrThrottled)
					got = append(got, 'x')
				} else {
					got = append(got, '.')
				}
			}
			require.Equal(t, tt.fails, string(got))
			remove()
			remove() // again does nothing
			require.NoError(t, get(t, v, "kek"))
		})
	}
}

func TestFaultErrors(t *testing.T) {
	v := vaulttest.New(nil)
	id := v.CreateKey("kek").Versionless()
	for _, tt := range []struct {
		name string
		err  error
		kind error
		text string
	}{
		{"a sentinel", vault.ErrKeyDisabled, vault.ErrKeyDisabled, "vault: get mem:test/keys/kek: key disabled"},
		{"a vault error", &vault.Error{Kind: vault.ErrThrottled, Code: "Throttled"}, vault.ErrThrottled, "vault: get mem:test/keys/kek: throttled [Throttled]"},
		{"any other error", io.ErrUnexpectedEOF, vault.ErrUnavailable, "vault: get mem:test/keys/kek: vault unavailable: unexpected EOF"},
		{"a wrapped sentinel", errors.Join(vault.ErrKeyExpired, io.EOF), vault.ErrKeyExpired, "vault: get mem:test/keys/kek: key expired: key expired\nEOF"},
	} {
		t.Run(tt.name, func(t *testing.T) {
			for how, inject := range map[string]func() func(){
				"fault":  func() func() { return v.Inject(vaulttest.Fault{Err: tt.err}) },
				"outage": func() func() { v.SetOutage(tt.err); return func() { v.SetOutage(nil) } },
			} {
				end := inject()
				_, err := v.GetKey(t.Context(), id)
				var e *vault.Error
				require.ErrorAs(t, err, &e, how)
				require.Equal(t, vault.OpGet, e.Op)
				require.Equal(t, tt.kind, vault.Kind(err))
				require.EqualError(t, err, tt.text)
				end()
				_, err = v.GetKey(t.Context(), id)
				require.NoError(t, err)
			}
		})
	}
	given := vaulttest.AccessDeniedByRBAC()
	v.SetOutage(given)
	require.Error(t, get(t, v, "kek"))
	require.Empty(t, given.Op, "the caller's error is not written to")
}

func TestFaultHangEndsWithTheContext(t *testing.T) {
	v := vaulttest.New(nil)
	id := v.CreateKey("kek")
	v.Inject(vaulttest.Fault{Op: vault.OpUnwrapKey, Hang: true})
	w, err := v.WrapKey(t.Context(), id, []byte("secret"))
	require.NoError(t, err)
	ctx, cancel := context.WithTimeout(t.Context(), 10*time.Millisecond)
	defer cancel()
	_, err = v.UnwrapKey(ctx, w)
	require.ErrorIs(t, err, context.DeadlineExceeded)
	require.True(t, vault.Transient(err))
	require.Zero(t, v.Waiting())
}

// held makes a call that a fault holds, waits until it is held, and returns its
// result to come.
func held(t *testing.T, ctx context.Context, v *vaulttest.Vault, id vault.KeyID) <-chan error {
	t.Helper()
	result := make(chan error, 1)
	go func() {
		_, err := v.GetKey(ctx, id)
		result <- err
	}()
	require.Eventually(t, func() bool { return v.Waiting() == 1 }, time.Minute, time.Millisecond)
	return result
}

func TestFaultStuckOutlivesTheContext(t *testing.T) {
	v := vaulttest.New(nil)
	id := v.CreateKey("kek")
	remove := v.Inject(vaulttest.Fault{Stuck: true})
	ctx, cancel := context.WithCancel(t.Context())
	result := held(t, ctx, v, id)
	cancel()
	select {
	case err := <-result:
		t.Fatalf("the call returned: %v", err)
	case <-time.After(20 * time.Millisecond):
	}
	remove()
	require.NoError(t, <-result, "the answer comes late, and is an answer")
}

func TestFaultRemovedReleasesAHungCall(t *testing.T) {
	v := vaulttest.New(nil)
	id := v.CreateKey("kek")
	remove := v.Inject(vaulttest.Fault{Hang: true, Err: vault.ErrUnavailable})
	result := held(t, t.Context(), v, id)
	remove()
	require.ErrorIs(t, <-result, vault.ErrUnavailable)
}

func TestFaultDelay(t *testing.T) {
	t.Run("by the fake clock", func(t *testing.T) {
		clock := vaulttest.NewClock(start)
		v := vaulttest.New(&vaulttest.Options{Clock: clock})
		id := v.CreateKey("kek")
		v.Inject(vaulttest.Fault{Delay: time.Hour, Nth: 1})
		result := held(t, t.Context(), v, id)
		require.Equal(t, 1, clock.Pending(), "a call that waits has its timer")
		clock.Advance(time.Hour - 1)
		require.Equal(t, 1, v.Waiting())
		clock.Advance(1)
		require.NoError(t, <-result)
		require.Zero(t, clock.Pending())
	})
	t.Run("by the system's clock", func(t *testing.T) {
		v := vaulttest.New(nil)
		v.CreateKey("kek")
		v.Inject(vaulttest.Fault{Delay: 5 * time.Millisecond})
		began := time.Now()
		require.NoError(t, get(t, v, "kek"))
		require.GreaterOrEqual(t, time.Since(began), 5*time.Millisecond)
	})
	t.Run("ended by the context", func(t *testing.T) {
		clock := vaulttest.NewClock(start)
		v := vaulttest.New(&vaulttest.Options{Clock: clock})
		id := v.CreateKey("kek")
		v.Inject(vaulttest.Fault{Delay: time.Hour})
		ctx, cancel := context.WithCancel(t.Context())
		result := held(t, ctx, v, id)
		cancel()
		require.ErrorIs(t, <-result, context.Canceled)
		require.Zero(t, clock.Pending(), "no timer is left behind")
	})
}

func TestFaultWrongAnswers(t *testing.T) {
	v := vaulttest.New(nil)
	id := v.CreateKey("kek")
	ctx := t.Context()

	remove := v.Inject(vaulttest.Fault{MutateWrapped: func(w *vault.Wrapped) { w.Ciphertext = w.Ciphertext[:255] }})
	w, err := v.WrapKey(ctx, id, []byte("secret"))
	require.NoError(t, err)
	require.Len(t, w.Ciphertext, 255)
	remove()

	w, err = v.WrapKey(ctx, id, []byte("secret"))
	require.NoError(t, err)
	for _, answer := range [][]byte{{}, []byte("another secret")} {
		remove = v.Inject(vaulttest.Fault{Plaintext: answer})
		got, err := v.UnwrapKey(ctx, w)
		require.NoError(t, err)
		require.Equal(t, string(answer), string(got))
		remove()
	}

	remove = v.Inject(vaulttest.Fault{MutateKey: func(k *vault.Key) { k.Public.E = 3; k.Operations[0] = "none" }})
	key, err := v.GetKey(ctx, id)
	require.NoError(t, err)
	require.Equal(t, 3, key.Public.E)
	remove()
	key, err = v.GetKey(ctx, id)
	require.NoError(t, err)
	require.Equal(t, 65537, key.Public.E, "the key itself is not touched")
	require.Equal(t, vault.OpGet, key.Operations[0])
}

func TestFaultsCombine(t *testing.T) {
	v := vaulttest.New(nil)
	v.CreateKey("kek")
	v.Inject(vaulttest.Fault{Err: vault.ErrThrottled, Nth: 1})
	v.Inject(vaulttest.Fault{Err: vault.ErrUnavailable, Nth: 2})
	v.SetOutage(vault.ErrAccessDenied)
	require.ErrorIs(t, get(t, v, "kek"), vault.ErrThrottled)
	require.ErrorIs(t, get(t, v, "kek"), vault.ErrUnavailable)
	require.ErrorIs(t, get(t, v, "kek"), vault.ErrAccessDenied)
}

// TestRefusals is what a user reads in each of Key Vault's cases.
func TestRefusals(t *testing.T) {
	for _, tt := range []struct {
		err       *vault.Error
		kind      error
		transient bool
		text      string // of the middle of the line
	}{
		{vaulttest.AccessDeniedByRBAC(), vault.ErrAccessDenied, false, "has no role that permits it"},
		{vaulttest.AccessDeniedByPolicy(), vault.ErrAccessDenied, false, "[Forbidden/AccessDenied]"},
		{vaulttest.KeyOperationForbidden(), vault.ErrAccessDenied, false, "[KeyOperationForbidden]"},
		{vaulttest.ForbiddenByFirewall(), vault.ErrAccessDenied, false, "[Forbidden/ForbiddenByFirewall]"},
		{vaulttest.ForbiddenByConnection(), vault.ErrAccessDenied, false, "private endpoint [Forbidden/ForbiddenByConnection]"},
		{vaulttest.IdentityDeleted(), vault.ErrAccessDenied, false, "identity was not accepted"},
		{vaulttest.WrongTenant(), vault.ErrWrongTenant, false, "AKV10032"},
		{vaulttest.Throttled(5 * time.Second), vault.ErrThrottled, true, "(retry after 5s)"},
		{vaulttest.Throttled(0), vault.ErrThrottled, true, "too many requests"},
		{vaulttest.Unavailable(), vault.ErrUnavailable, true, "[ServiceUnavailable]"},
		{vaulttest.InternalError(), vault.ErrUnavailable, true, "[InternalServerError]"},
		{vaulttest.NetworkGone(), vault.ErrUnavailable, true, "network is unreachable"},
		{vaulttest.VaultDeleted(), vault.ErrUnavailable, true, "no such host"},
	} {
		t.Run(tt.text, func(t *testing.T) {
			v := vaulttest.New(nil)
			v.CreateKey("kek")
			v.SetOutage(tt.err)
			err := get(t, v, "kek")
			require.Equal(t, tt.kind, vault.Kind(err))
			require.Equal(t, tt.transient, vault.Transient(err))
			require.Equal(t, !tt.transient, vault.Denied(err))
			require.ErrorContains(t, err, "vault: get mem:test/keys/kek: ")
			require.ErrorContains(t, err, tt.text)
			require.NotEmpty(t, tt.err.Detail, "it says what to do")
			require.Equal(t, tt.err.RetryAfter, vault.RetryAfter(err))
		})
	}
}

func TestScript(t *testing.T) {
	clock := vaulttest.NewClock(start)
	v := vaulttest.New(&vaulttest.Options{Clock: clock})
	id := v.CreateKey("kek")
	clock.Advance(time.Hour) // a script's times count from its own start
	stop := v.Script(clock, []vaulttest.Step{
		{At: 5 * time.Minute, Do: func(v *vaulttest.Vault) { v.SetOutage(vaulttest.NetworkGone()) }},
		{At: 9 * time.Minute, Do: func(v *vaulttest.Vault) { v.SetOutage(nil) }},
		{At: 10 * time.Minute, Do: func(v *vaulttest.Vault) { v.SetEnabled(id, false) }},
		{At: 10 * time.Minute, Do: func(v *vaulttest.Vault) { v.Delete("kek") }},
		{At: 20 * time.Minute, Do: func(v *vaulttest.Vault) { v.Purge("kek") }},
	})
	for _, tt := range []struct {
		advance time.Duration
		want    error
	}{
		{4 * time.Minute, nil},
		{time.Minute, vault.ErrUnavailable},
		{4*time.Minute - 1, vault.ErrUnavailable},
		{1, nil},
		{time.Minute, vault.ErrKeyDeleted},
	} {
		clock.Advance(tt.advance)
		require.Equal(t, tt.want, vault.Kind(get(t, v, "kek")), clock.Elapsed())
	}
	stop()
	clock.Advance(time.Hour)
	require.ErrorIs(t, get(t, v, "kek"), vault.ErrKeyDeleted, "a stopped script does no more")
	require.Zero(t, clock.Pending())
}
