package azure_test

import (
	"bytes"
	"context"
	"encoding/json"
	"io"
	"net/http"
	"strings"
	"testing"

	"github.com/Azure/azure-sdk-for-go/sdk/azcore"
	"github.com/Azure/azure-sdk-for-go/sdk/azcore/policy"
	"github.com/stretchr/testify/require"

	"github.com/blockseal/blockseal/vault"
	"github.com/blockseal/blockseal/vault/azure"
)

// echo answers with the request's own token, wherever an answer has room for a text.
type echo struct {
	status int
	seen   []string // tokens
}

func (e *echo) Do(r *http.Request) (*http.Response, error) {
	out := &http.Response{Request: r, Header: http.Header{}, ProtoMajor: 1, ProtoMinor: 1, StatusCode: e.status}
	token, ok := strings.CutPrefix(r.Header.Get("Authorization"), "Bearer ")
	if !ok {
		out.StatusCode = http.StatusUnauthorized
		out.Header.Set("WWW-Authenticate", `Bearer authorization="https://login.microsoftonline.com/tenant", resource="https://vault.azure.net"`)
		out.Body = http.NoBody
		return out, nil
	}
	e.seen = append(e.seen, token)
	body, err := json.Marshal(map[string]any{"error": map[string]any{
		"code": token, "message": "Authorization: Bearer " + token + "\r\nagain " + token, "innererror": map[string]any{"code": "x" + token}}})
	out.Header.Set("X-Ms-Request-Id", token)
	out.Body = io.NopCloser(bytes.NewReader(body))
	return out, err
}

// A vault, or a proxy, that repeats the request does not get the token into an error,
// whether it looks like a token or not, nor into what is noted of the request.
func TestNoTokenInAnError(t *testing.T) {
	t.Parallel()
	for _, token := range []string{"eyJhbGciOiJIUzI1NiJ9.eyJhdWQiOiJ2YXVsdCJ9.c2lnbmF0dXJl", "opaque~0123456789abcdef"} {
		for _, status := range []int{400, 401, 403, 404, 409, 418, 429, 500} {
			answer := &echo{status: status}
			o := &azure.Options{}
			atOnce(o)
			o.ClientOptions.Transport, o.ClientOptions.Retry.MaxRetries = answer, -1
			v, err := azure.New(vaultURL, credentialFunc(func(context.Context, policy.TokenRequestOptions) (azcore.AccessToken, error) {
				return azcore.AccessToken{Token: token, ExpiresOn: farFuture}, nil
			}), o)
			require.NoError(t, err)
			var noted []string
			ctx := vault.OnRequestID(t.Context(), func(id string) { noted = append(noted, id) })
			id := vault.KeyID{Name: "kek", Version: "0123456789abcdef0123456789abcdef"}
			calls := []func() error{func() error { return second(v.GetKey(ctx, id)) }}
			if status != 429 { // the gate is closed after the first
				calls = append(calls, func() error { return second(v.WrapKey(ctx, id, []byte("secret"))) },
					func() error {
						return second(v.UnwrapKey(ctx, vault.Wrapped{KeyID: id, Ciphertext: make([]byte, vault.WrappedSize)}))
					})
			}
			for _, call := range calls {
				err := call()
				require.NotNil(t, vault.Kind(err), "%d: %v", status, err)
				for e := err; e != nil; {
					require.NotContains(t, e.Error(), token, status)
					require.NotContains(t, e.Error(), "\n")
					ve, ok := e.(*vault.Error)
					if !ok {
						break
					}
					for _, field := range []string{ve.Code, ve.Detail, ve.RequestID} {
						require.NotContains(t, field, token)
					}
					e = ve.Err
				}
				require.ErrorContains(t, err, "[redacted]")
			}
			require.Contains(t, answer.seen, token)
			require.NotEmpty(t, noted)
			for _, id := range noted {
				require.NotContains(t, id, token)
			}
		}
	}
}
