package azure_test

import (
	"context"
	"errors"
	"strings"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/blockseal/blockseal/internal/keyvaulttest"
	"github.com/blockseal/blockseal/vault"
	"github.com/blockseal/blockseal/vault/azure"
	"github.com/blockseal/blockseal/vault/local"
	"github.com/blockseal/blockseal/vault/vaulttest"
)

// localRig is a server, and a Vault that wraps locally, on one clock.
type localRig struct {
	*rig
	clock *vaulttest.Clock
	v     *azure.Vault
	id    vault.KeyID
}

func newLocalRig(t *testing.T) *localRig {
	clock := vaulttest.NewClock(time.Now())
	r := newRig(t, &keyvaulttest.Options{Clock: clock})
	v := r.client(func(o *azure.Options) { o.WrapLocally, o.Clock = true, clock })
	return &localRig{r, clock, v, r.key.Versionless()}
}

func (r *localRig) wrap() (vault.Wrapped, error) {
	return r.v.WrapKey(r.t.Context(), r.id, []byte("secret"))
}

// costs runs f and returns how many requests that took, as "get unwrapKey wrapKey".
func (r *localRig) costs(f func()) [3]int {
	ops := [3]string{"get", "unwrapKey", "wrapKey"}
	var n [3]int
	for i, op := range ops {
		n[i] = -r.Requests(op)
	}
	f()
	for i, op := range ops {
		n[i] += r.Requests(op)
	}
	return n
}

func (r *localRig) wraps() {
	r.t.Helper()
	w, err := r.wrap()
	require.NoError(r.t, err)
	plain, err := r.client().UnwrapKey(r.t.Context(), w)
	require.NoError(r.t, err)
	require.Equal(r.t, "secret", string(plain))
}

func (r *localRig) refuses(kind error, says string) {
	r.t.Helper()
	w, err := r.wrap()
	require.ErrorIs(r.t, err, kind)
	require.ErrorContains(r.t, err, says)
	require.Zero(r.t, w)
}

// A public key is proven by an unwrap once, asked for again when it is as old as the
// options say, and costs nothing in between.
func TestWrapLocallyCosts(t *testing.T) {
	t.Parallel()
	r := newLocalRig(t)
	wrap := func() {
		_, err := r.wrap()
		require.NoError(t, err)
	}
	require.Equal(t, [3]int{1, 1, 0}, r.costs(wrap), "a get, and an unwrap as proof")
	require.Equal(t, [3]int{}, r.costs(func() {
		for range 10 {
			wrap()
		}
		r.clock.Advance(azure.DefaultLocalWrapAge - 1)
		wrap()
	}))
	r.clock.Advance(1)
	require.Equal(t, [3]int{1, 0, 0}, r.costs(wrap), "another get, and no proof of what is proven")
	r.wraps()
}

// Its age says how late a change is noticed that no call tells of.
func TestWrapLocallyNoticesByItsAge(t *testing.T) {
	t.Parallel()
	for name, tt := range map[string]struct {
		change func(r *localRig)
		kind   error
		says   string
	}{
		"disabled": {func(r *localRig) { r.setEnabled(false) }, vault.ErrKeyDisabled, "enable the key version"},
		"expired":  {func(r *localRig) { expires := r.clock.Now(); r.update(r.key, local.Update{Expires: &expires}) }, vault.ErrKeyExpired, "it expired at"},
		"no operation": {func(r *localRig) {
			r.update(r.key, local.Update{Operations: []vault.Operation{vault.OpGet, vault.OpWrapKey}})
		}, vault.ErrUnsupportedKey, "its operations do not include unwrapKey"},
		"deleted": {func(r *localRig) { require.NoError(r.t, second(r.Server.Vault().DeleteKey(r.t.Context(), "kek"))) }, vault.ErrKeyNotFound, "there is no such key"},
		"revoked": {func(r *localRig) { require.NoError(r.t, r.Server.Vault().Revoke(r.t.Context(), store, vault.OpGet)) }, vault.ErrAccessDenied, "has no role"},
	} {
		t.Run(name, func(t *testing.T) {
			r := newLocalRig(t)
			r.wraps()
			tt.change(r)
			require.Equal(t, [3]int{}, r.costs(func() { require.NoError(t, second(r.wrap())) }))
			r.clock.Advance(azure.DefaultLocalWrapAge)
			r.refuses(tt.kind, tt.says)
			r.refuses(tt.kind, tt.says)
		})
	}
	r := newLocalRig(t)
	r.wraps()
	newer := r.newVersion("kek")
	w, err := r.wrap()
	require.NoError(t, err)
	require.Equal(t, r.key, w.KeyID)
	r.clock.Advance(azure.DefaultLocalWrapAge)
	w, err = r.wrap()
	require.NoError(t, err)
	require.Equal(t, newer, w.KeyID, "a rotation is followed")
	r.wraps()
}

// The dates are kept to the second, without asking.
func TestWrapLocallyKeepsTheDates(t *testing.T) {
	t.Parallel()
	r := newLocalRig(t)
	soon := r.clock.Now().Add(30 * time.Second).Truncate(time.Second)
	r.update(r.key, local.Update{Expires: &soon})
	r.wraps()
	require.Equal(t, [3]int{}, r.costs(func() {
		r.clock.Advance(soon.Sub(r.clock.Now()) - 1)
		require.NoError(t, second(r.wrap()))
		r.clock.Advance(1)
		r.refuses(vault.ErrKeyExpired, "it expired at "+soon.UTC().Format(time.RFC3339))
	}))

	r = newLocalRig(t)
	soon = r.clock.Now().Add(30 * time.Second).Truncate(time.Second)
	r.update(r.key, local.Update{NotBefore: &soon})
	r.refuses(vault.ErrKeyNotYetValid, "it is valid from")
	r.clock.Advance(30 * time.Second)
	r.wraps()
}

// What a public key wraps must be something that the vault unwraps. A key that
// somebody between put into the answer is not used.
func TestWrapLocallyProvesTheKey(t *testing.T) {
	t.Parallel()
	r := newLocalRig(t)
	remove := r.Inject(mutateKey(func(k map[string]any) {
		n := k["n"].(string)
		k["n"] = n[:100] + strings.Repeat("A", 10) + n[110:]
	}))
	w, err := r.wrap()
	require.True(t, vault.Denied(err), err)
	require.Zero(t, w)
	remove()

	r = newLocalRig(t)
	remove = r.Inject(keyvaulttest.Fault{Op: "unwrapKey", Mutate: func(b map[string]any) { b["value"] = strings.Repeat("A", 43) }})
	r.refuses(vault.ErrUnsupportedKey, "the vault unwraps to another secret than was wrapped with its public key")
	r.refuses(vault.ErrUnsupportedKey, "the vault unwraps to another secret") // not taken for proven now
	remove()
	r.wraps()

	r = newLocalRig(t)
	remove = r.Inject(keyvaulttest.Fault{Op: "unwrapKey", Status: 503})
	r.refuses(vault.ErrUnavailable, "the vault service failed")
	remove()
	r.wraps()
}

// What fails is the wrap that was asked for, whatever was asked of the vault for it; and a
// context that has ended ends it, also when nothing is left to ask.
func TestWrapLocallyFailsAsAWrap(t *testing.T) {
	t.Parallel()
	for op, question := range map[string]string{
		"get":       "asked to get <key>, to wrap locally: ",
		"unwrapKey": "asked to unwrapKey <key>/<version>, to wrap locally: ",
	} {
		r := newLocalRig(t)
		remove := r.Inject(keyvaulttest.Fault{Op: op, Status: 403, Code: "Forbidden", Inner: "ForbiddenByRbac"})
		_, err := r.wrap()
		e, ok := errors.AsType[*vault.Error](err)
		require.True(t, ok)
		require.Equal(t, vault.OpWrapKey, e.Op)
		require.ErrorIs(t, err, vault.ErrAccessDenied)
		require.Contains(t, r.anonymous(err.Error()), "vault: wrapKey <key>: access denied: "+question+"the caller's identity has no role")
		remove()
		r.wraps()

		ctx, cancel := context.WithCancel(t.Context())
		cancel()
		require.Equal(t, [3]int{}, r.costs(func() {
			w, err := r.v.WrapKey(ctx, r.id, []byte("secret"))
			require.ErrorIs(t, err, context.Canceled)
			require.True(t, vault.Transient(err))
			require.ErrorContains(t, err, "wrapKey")
			require.Zero(t, w)
		}))
		r.wraps()
	}
}

// A denial ends what is known of the key at once, however young that is. A ciphertext
// that is not the key's says nothing about the key.
func TestADenialIsNotWrappedUnder(t *testing.T) {
	t.Parallel()
	r := newLocalRig(t)
	w, err := r.wrap()
	require.NoError(t, err)
	r.setEnabled(false)
	require.NoError(t, second(r.wrap()), "nobody has asked")
	require.ErrorIs(t, second(r.v.UnwrapKey(t.Context(), w)), vault.ErrKeyDisabled)
	r.refuses(vault.ErrKeyDisabled, "enable the key version")
	r.setEnabled(true)
	require.Equal(t, [3]int{1, 1, 0}, r.costs(func() { require.NoError(t, second(r.wrap())) }), "it is proven anew")

	require.NoError(t, r.Server.Vault().Revoke(t.Context(), store, vault.OpGet))
	require.ErrorIs(t, second(r.v.GetKey(t.Context(), r.key)), vault.ErrAccessDenied)
	r.refuses(vault.ErrAccessDenied, "has no role")
	require.NoError(t, r.Server.Vault().Grant(t.Context(), store, vault.OpGet))
	r.wraps()

	altered := vault.Wrapped{KeyID: w.KeyID, Ciphertext: make([]byte, vault.WrappedSize)}
	require.ErrorIs(t, second(r.v.UnwrapKey(t.Context(), altered)), vault.ErrBadCiphertext)
	require.Equal(t, [3]int{}, r.costs(func() { require.NoError(t, second(r.wrap())) }))

	other := r.newVersion("other")
	_, err = r.v.WrapKey(t.Context(), other, []byte("secret"))
	require.NoError(t, err)
	r.Inject(keyvaulttest.Fault{Op: "unwrapKey", Key: "kek", Status: 403, Code: "Forbidden", Inner: "ForbiddenByRbac"})
	require.ErrorIs(t, second(r.v.UnwrapKey(t.Context(), w)), vault.ErrAccessDenied)
	require.Equal(t, [3]int{}, r.costs(func() { require.NoError(t, second(r.v.WrapKey(t.Context(), other, []byte("secret")))) }), "another key's denial")
}
