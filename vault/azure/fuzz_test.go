package azure_test

import (
	"bytes"
	"errors"
	"io"
	"net/http"
	"testing"
	"time"

	"github.com/Azure/azure-sdk-for-go/sdk/azcore"
	"github.com/Azure/azure-sdk-for-go/sdk/azcore/fake"
	"github.com/Azure/azure-sdk-for-go/sdk/azcore/policy"
	"github.com/Azure/azure-sdk-for-go/sdk/security/keyvault/azkeys"
	"github.com/stretchr/testify/require"

	"github.com/blockseal/blockseal/vault"
	"github.com/blockseal/blockseal/vault/azure"
)

// canned answers every request that has a token with the same thing.
type canned struct {
	status     int
	retryAfter string
	body       []byte
}

func (c *canned) Do(r *http.Request) (*http.Response, error) {
	out := &http.Response{Request: r, Header: http.Header{}, ProtoMajor: 1, ProtoMinor: 1}
	if r.Header.Get("Authorization") == "" {
		out.StatusCode = http.StatusUnauthorized
		out.Header.Set("WWW-Authenticate", `Bearer authorization="https://login.microsoftonline.com/11111111-2222-3333-4444-555555555555", resource="https://vault.azure.net"`)
		out.Body = http.NoBody
		return out, nil
	}
	out.StatusCode = c.status
	out.Header.Set("Content-Type", "application/json")
	if c.retryAfter != "" {
		out.Header.Set("Retry-After", c.retryAfter)
	}
	out.ContentLength = int64(len(c.body))
	out.Body = io.NopCloser(bytes.NewReader(c.body))
	return out, nil
}

// FuzzAnswer holds that whatever a vault answers, the client has either the answer to
// what it asked or an error of package vault, whose text has nothing of the secret.
func FuzzAnswer(f *testing.F) {
	const kid = `"kid":"https://contoso.vault.azure.net/keys/kek/0123456789abcdef0123456789abcdef"`
	for _, seed := range []struct {
		status int
		retry  string
		body   string
	}{
		{200, "", `{"key":{` + kid + `,"kty":"RSA","key_ops":["wrapKey","unwrapKey"],"n":"AQAB","e":"AQAB"},"attributes":{"enabled":true,"nbf":1,"exp":4102444800}}`},
		{200, "", `{` + kid + `,"value":"c2VjcmV0"}`},
		{200, "", `{"key":null}`},
		{200, "", `{` + kid + `,"value":null}`},
		{200, "", `[]`},
		{200, "", ``},
		{403, "", `{"error":{"code":"Forbidden","message":"m","innererror":{"code":"ForbiddenByRbac"}}}`},
		{403, "", `{"error":{"code":"Forbidden","innererror":{"innererror":{"code":"KeyDisabled"}}}}`},
		{401, "", `{"error":{"code":"Unauthorized","message":"AKV10032: Invalid issuer."}}`},
		{404, "", `{"error":{"code":"KeyNotFound","message":"\u001b[2J"}}`},
		{400, "", `{"error":{"code":"BadParameter"}}`},
		{409, "", `{"error":{"code":"Conflict","innererror":{"code":"ObjectIsDeletedButRecoverable"}}}`},
		{429, "7", `{"error":{"code":"Throttled"}}`},
		{429, "Mon, 23 Nov 2026 12:00:00 GMT", ``},
		{500, "-1", `<html>`},
		{301, "99999999999999999999", `{}`},
	} {
		f.Add(seed.status, seed.retry, []byte(seed.body))
	}
	f.Fuzz(func(t *testing.T, status int, retryAfter string, body []byte) {
		if status < 200 || status > 599 {
			return // no HTTP client gives such a status on
		}
		answer := &canned{status, retryAfter, body}
		v, err := azure.New("https://contoso.vault.azure.net", &fake.TokenCredential{}, &azure.Options{
			Timeout: 2 * time.Second,
			ClientOptions: azkeys.ClientOptions{ClientOptions: azcore.ClientOptions{
				Transport: answer, Retry: policy.RetryOptions{MaxRetries: -1},
			}},
		})
		require.NoError(t, err)
		id := vault.KeyID{Vault: "https://contoso.vault.azure.net", Name: "kek", Version: "0123456789abcdef0123456789abcdef"}
		secret := bytes.Repeat([]byte("a secret "), 4)
		refused := func(err error) {
			var e *vault.Error
			require.True(t, errors.As(err, &e), "%v", err)
			require.NotNil(t, vault.Kind(err), "%v", err)
			require.False(t, bytes.ContainsAny([]byte(err.Error()), "\x00\x1b\n\r"), "%q", err.Error())
			require.NotContains(t, err.Error(), string(secret))
			require.Less(t, len(err.Error()), 4000)
		}
		key, err := v.GetKey(t.Context(), id)
		if err != nil {
			refused(err)
		} else {
			require.Equal(t, id, key.ID)
			require.NotNil(t, key.Public)
		}
		if status == http.StatusTooManyRequests {
			return // it would wait as long as it was told to
		}
		w, err := v.WrapKey(t.Context(), id, secret)
		if err != nil {
			refused(err)
		} else {
			require.Equal(t, id, w.KeyID)
			require.Len(t, w.Ciphertext, vault.WrappedSize)
		}
		got, err := v.UnwrapKey(t.Context(), vault.Wrapped{KeyID: id, Ciphertext: make([]byte, vault.WrappedSize)})
		if err != nil {
			refused(err)
			require.Nil(t, got)
		} else {
			require.NotEmpty(t, got)
		}
	})
}
