package azure_test

import (
	"errors"
	"fmt"
	"strings"
	"testing"
	"time"

	"github.com/Azure/azure-sdk-for-go/sdk/azcore/policy"
	"github.com/stretchr/testify/require"

	"github.com/blockseal/blockseal/internal/keyvaulttest"
	"github.com/blockseal/blockseal/kek"
	"github.com/blockseal/blockseal/vault"
	"github.com/blockseal/blockseal/vault/azure"
)

// A page of something in between is not the vault's word, whatever its status.
func TestAPageIsNotTheVaultsWord(t *testing.T) {
	t.Parallel()
	r := newRig(t, nil)
	v := r.client()
	w, err := v.WrapKey(t.Context(), r.key, []byte("secret"))
	require.NoError(t, err)
	admin := r.admin()
	for _, status := range []int{400, 401, 403, 404, 407, 409, 451} {
		for what, body := range map[string]string{
			"HTML": "<html><title>Proxy says no</title></html>", "text": "denied", "JSON of another kind": `{"error":"access_denied","message":"no"}`,
			"JSON without a code": `{"error":{"message":"no"}}`,
		} {
			remove := r.Inject(keyvaulttest.Fault{Status: status, Body: body})
			for op, err := range map[string]error{
				"get":       second(v.GetKey(t.Context(), r.key)),
				"wrapKey":   second(v.WrapKey(t.Context(), r.key, []byte("secret"))),
				"unwrapKey": second(v.UnwrapKey(t.Context(), w)),
				"create":    second(admin.CreateKey(t.Context(), "new", nil)),
			} {
				require.Equal(t, vault.ErrUnavailable, vault.Kind(err), "%s %d %s: %v", op, status, what, err)
				require.True(t, vault.Transient(err))
				require.ErrorContains(t, err, fmt.Sprintf("something that is not a Key Vault answered; check the URL, and what stands between [HTTP %d]", status))
			}
			remove()
		}
	}
}

// A 401's text is quoted, as one line and without tokens, and nothing is guessed.
func TestThe401IsQuoted(t *testing.T) {
	t.Parallel()
	r := newRig(t, nil)
	v := r.client(atOnce)
	r.Inject(keyvaulttest.Fault{Status: 401, Code: "Unauthorized", Message: "AKV10001: Error validating token\r\nIDX10511: eyJhbGciOiJIUzI1NiJ9.eyJhdWQiOiJ2In0.c2ln " + strings.Repeat("x", 2000)})
	_, err := v.GetKey(t.Context(), r.key)
	require.ErrorIs(t, err, vault.ErrAccessDenied)
	require.ErrorContains(t, err, ": Key Vault says: AKV10001: Error validating token IDX10511: [redacted] xxx")
	require.NotContains(t, err.Error(), "\n")
	require.NotContains(t, err.Error(), "eyJ")
	require.NotContains(t, err.Error(), "deleted")
	require.Less(t, len(err.Error()), 1000)
}

// While a call tries again and again its time may be up: the reason for which it does is
// in the error all the same.
func TestTheReasonThatWasKnown(t *testing.T) {
	for name, tt := range map[string]struct {
		cut  func(r *rig)
		says string
	}{
		"no such host":   {func(r *rig) { r.NoSuchHost() }, "the vault's host name does not resolve"},
		"no name server": {func(r *rig) { r.NoNameServer() }, "the vault's host name cannot be looked up"},
		"no network":     {func(r *rig) { r.Unreachable() }, "the vault cannot be reached, check the network: dial tcp: network is unreachable"},
	} {
		t.Run(name, func(t *testing.T) {
			bubble(t, keyvaulttest.Options{}, func(t *testing.T, r *rig) {
				slow := func(o *azure.Options) { // each of its waits is longer than the call's time
					o.ClientOptions.Retry = policy.RetryOptions{MaxRetries: 3, RetryDelay: 20 * time.Second, MaxRetryDelay: time.Minute}
				}
				for _, v := range []*azure.Vault{r.client(slow), r.client(patient)} {
					tt.cut(r)
					for range 10 {
						start := time.Now()
						_, err := v.GetKey(t.Context(), r.key)
						require.True(t, vault.Transient(err), err)
						require.ErrorContains(t, err, tt.says)
						require.NotContains(t, err.Error(), "no answer within")
						require.LessOrEqual(t, time.Since(start), 9*time.Second)
					}
					r.Reachable()
				}
			})
		})
	}
}

// So is an answer that says nothing about the key, 408 as well as 429 and 5xx: what was heard
// last is told, and not that nothing was.
func TestTheSilenceThatWasHeard(t *testing.T) {
	for status, says := range map[int]string{
		408: "the vault service failed, try again later [HTTP 408]",
		429: "too many requests to this vault [HTTP 429]",
		500: "the vault service failed, try again later [HTTP 500]",
		503: "the vault service failed, try again later [HTTP 503]",
	} {
		bubble(t, keyvaulttest.Options{}, func(t *testing.T, r *rig) {
			r.Inject(keyvaulttest.Fault{Status: status, Body: "<html>upstream</html>"})
			once, slow := r.client(), r.client(func(o *azure.Options) { // whose wait is longer than the call's time
				o.ClientOptions.Retry = policy.RetryOptions{MaxRetries: 3, RetryDelay: 20 * time.Second, MaxRetryDelay: time.Minute}
			})
			for _, v := range []*azure.Vault{once, slow} {
				_, err := v.GetKey(t.Context(), r.key)
				require.True(t, vault.Transient(err), err)
				require.False(t, vault.Denied(err), err)
				require.ErrorContains(t, err, says)
				require.NotContains(t, err.Error(), "no answer within")
				require.NotContains(t, err.Error(), "not a Key Vault")
			}
		})
	}
}

// However a vault's URL is spelt, a key of it is a key of it, also for the administrator;
// another vault's is not.
func TestOneSpellingOfAVault(t *testing.T) {
	t.Parallel()
	r := newRig(t, &keyvaulttest.Options{URL: vaultURL})
	v, admin := r.client(), r.admin()
	for _, spelt := range []string{vaultURL, vaultURL + "/", "https://Contoso.Vault.Azure.NET", "HTTPS://contoso.vault.azure.net", vaultURL + ":443", vaultURL + ":443/"} {
		id := vault.KeyID{Vault: spelt, Name: r.key.Name}
		key, err := v.GetKey(t.Context(), id)
		require.NoError(t, err, spelt)
		require.Equal(t, r.key, key.ID)
		require.NoError(t, kek.New(v, id).Check(t.Context()), spelt)
		require.NoError(t, second(admin.GetKey(t.Context(), id)), spelt)
		w, err := v.WrapKey(t.Context(), id, []byte("secret"))
		require.NoError(t, err)
		w.KeyID.Vault = spelt
		require.NoError(t, second(v.UnwrapKey(t.Context(), w)))
		require.NoError(t, second(kek.New(v, r.key).Unwrap(t.Context(), w)))
	}
	for _, other := range []string{"https://contoso.vault.azure.net:8443", "https://fabrikam.vault.azure.net", "http://contoso.vault.azure.net"} {
		_, err := v.GetKey(t.Context(), vault.KeyID{Vault: other, Name: r.key.Name})
		require.ErrorIs(t, err, vault.ErrKeyNotFound, other)
	}
	for _, odd := range []string{" " + vaultURL, vaultURL + "\n", vaultURL + "//"} {
		_, err := v.GetKey(t.Context(), vault.KeyID{Vault: odd, Name: r.key.Name})
		require.Error(t, err, odd)
		require.False(t, errors.Is(err, vault.ErrUnavailable))
	}
}
