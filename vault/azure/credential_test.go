package azure_test

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/url"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"github.com/Azure/azure-sdk-for-go/sdk/azcore"
	"github.com/Azure/azure-sdk-for-go/sdk/azcore/policy"
	"github.com/cockroachdb/pebble/v2/vfs"
	"github.com/stretchr/testify/require"

	"github.com/blockseal/blockseal/block"
	"github.com/blockseal/blockseal/internal/keyvaulttest"
	"github.com/blockseal/blockseal/kek"
	"github.com/blockseal/blockseal/keyring"
	"github.com/blockseal/blockseal/vault"
	"github.com/blockseal/blockseal/vault/azure"
)

// credentialFunc is a credential that is a function.
type credentialFunc func(ctx context.Context, o policy.TokenRequestOptions) (azcore.AccessToken, error)

func (f credentialFunc) GetToken(ctx context.Context, o policy.TokenRequestOptions) (azcore.AccessToken, error) {
	return f(ctx, o)
}

// tokenless is a credential that gives no token, with err.
func tokenless(err error) credentialFunc {
	return func(context.Context, policy.TokenRequestOptions) (azcore.AccessToken, error) {
		return azcore.AccessToken{}, err
	}
}

func entraAnswers(status int, body string) error {
	return &azcore.ResponseError{StatusCode: status, ErrorCode: "entra", RawResponse: &http.Response{
		StatusCode: status, Status: fmt.Sprint(status), Body: io.NopCloser(strings.NewReader(body)),
		Request: &http.Request{Method: "POST", URL: &url.URL{Scheme: "https", Host: "login.microsoftonline.com"}}}}
}

// A credential that fails says nothing about the key, whatever its error is: those of
// the token endpoint and of the network are no answer of the vault.
func TestNoToken(t *testing.T) {
	r := newRig(t, nil)
	for name, tt := range map[string]struct {
		err  error
		says string // all after the key
		code string
	}{
		"the token endpoint fails":        {entraAnswers(503, "upstream hunter2"), "the token endpoint answered HTTP 503", ""},
		"the token endpoint throttles":    {entraAnswers(429, "slow down"), "the token endpoint answered HTTP 429", ""},
		"the token endpoint's name":       {fmt.Errorf("hunter2: %w", &net.DNSError{Err: "no such host", Name: "login.microsoftonline.com", IsNotFound: true}), "lookup login.microsoftonline.com: no such host", ""},
		"the network":                     {&url.Error{Op: "Post", URL: "https://hunter2", Err: &net.OpError{Op: "dial", Err: errors.New("no route")}}, "*net.OpError", ""},
		"a code that may pass":            {errors.New("hunter2 AADSTS90033: A transient error has occurred."), "refused by Microsoft Entra ID", "AADSTS90033"},
		"a code that may pass, in a 400":  {entraAnswers(400, `{"error":"temporarily_unavailable","error_description":"AADSTS50196: hunter2"}`), "refused by Microsoft Entra ID", "AADSTS50196"},
		"anything":                        {errors.New("hunter2"), "*errors.errorString", ""},
		"an end of connection":            {io.ErrUnexpectedEOF, "*errors.errorString", ""},
		"what looks like a bad challenge": {errors.New("challenge resource hunter2"), "*errors.errorString", ""},
	} {
		t.Run(name, func(t *testing.T) {
			v, err := azure.New(r.URL(), tokenless(tt.err), r.options())
			require.NoError(t, err)
			_, err = v.GetKey(t.Context(), r.key)
			require.True(t, vault.Transient(err), err)
			code := ""
			if tt.code != "" {
				code = " [" + tt.code + "]"
			}
			require.Equal(t, "vault: get <key>/<version>: vault unavailable: the credential gave no token; check the identity's configuration and sign-in"+code+": "+tt.says, r.anonymous(err.Error()))
			require.NotContains(t, err.Error(), "hunter2")
			require.ErrorIs(t, err, tt.err, "findable")
			require.Zero(t, r.Requests(""), "with a token")
		})
	}
}

// What Microsoft Entra ID says of an identity that may have no token is a denial.
func TestEntraRefuses(t *testing.T) {
	r := newRig(t, nil)
	for code, why := range map[string]string{
		"AADSTS50034": "no such user", "AADSTS50057": "the user is disabled", "AADSTS50105": "not assigned",
		"AADSTS53003": "conditional access", "AADSTS70021": "no federated identity", "AADSTS700016": "no such application",
		"AADSTS700027": "certificate", "AADSTS700211": "issuer", "AADSTS700213": "subject", "AADSTS7000112": "the application is disabled",
		"AADSTS7000215": "the client secret is wrong", "AADSTS7000222": "the client secret expired", "AADSTS90002": "no such tenant",
	} {
		for _, err := range []error{
			fmt.Errorf("ClientSecretCredential authentication failed. hunter2\n%s: text", code),
			entraAnswers(401, `{"error":"invalid_client","error_description":"`+code+`: hunter2","error_codes":[7]}`),
		} {
			v, newErr := azure.New(r.URL(), tokenless(err), r.options())
			require.NoError(t, newErr)
			_, err := v.GetKey(t.Context(), r.key)
			require.ErrorIs(t, err, vault.ErrAccessDenied, code)
			require.True(t, vault.Denied(err))
			require.ErrorContains(t, err, "access denied: Microsoft Entra ID gives the caller's identity no token: ")
			require.ErrorContains(t, err, why)
			require.ErrorContains(t, err, " ["+code+"]: refused by Microsoft Entra ID")
			require.NotContains(t, err.Error(), "hunter2")
		}
	}
}

// A store whose token cannot be renewed serves until its lease ends: Microsoft Entra ID
// out of order is no reason to lock.
func TestAStoreOutlivesTheTokenEndpoint(t *testing.T) {
	bubble(t, keyvaulttest.Options{}, func(t *testing.T, r *rig) {
		ctx := t.Context()
		inner := r.Credential(store)
		var failing atomic.Pointer[error]
		fail := func(err error) { failing.Store(&err) }
		cred := credentialFunc(func(ctx context.Context, o policy.TokenRequestOptions) (azcore.AccessToken, error) {
			if err := failing.Load(); err != nil && *err != nil {
				return azcore.AccessToken{}, *err
			}
			token, err := inner.GetToken(ctx, o)
			token.ExpiresOn = time.Now().Add(6 * time.Minute) // renewed from 5 minutes before
			return token, err
		})
		v, err := azure.New(r.URL(), cred, r.options())
		require.NoError(t, err)
		s, err := block.Open(ctx, "store", kek.New(v, r.key.Versionless()), &block.Options{
			FS: vfs.NewMem(), MemTable: 1 << 20, BlockCache: 1 << 20})
		require.NoError(t, err)
		defer func() { require.NoError(t, s.Close()) }()
		require.NoError(t, s.Put(ctx, []byte("a"), []byte("data")))

		fail(entraAnswers(503, "upstream"))
		time.Sleep(7 * time.Minute)
		require.Equal(t, keyring.Degraded, s.State().Status)
		require.ErrorIs(t, s.State().Cause, vault.ErrUnavailable)
		require.NoError(t, second(s.Get(ctx, []byte("a"), nil)))
		fail(nil)
		require.NoError(t, s.Revalidate(ctx))
		require.Equal(t, keyring.Available, s.State().Status)

		fail(entraAnswers(401, "AADSTS7000222: expired"))
		time.Sleep(7 * time.Minute)
		require.Equal(t, keyring.Inaccessible, s.State().Status)
		require.ErrorIs(t, s.State().Cause, vault.ErrAccessDenied)
	})
}

// A credential that takes too long ends with the call.
func TestASlowCredential(t *testing.T) {
	bubble(t, keyvaulttest.Options{}, func(t *testing.T, r *rig) {
		cred := credentialFunc(func(ctx context.Context, _ policy.TokenRequestOptions) (azcore.AccessToken, error) {
			<-ctx.Done()
			return azcore.AccessToken{}, ctx.Err()
		})
		v, err := azure.New(r.URL(), cred, r.options(func(o *azure.Options) { o.Timeout = 3 * time.Second }))
		require.NoError(t, err)
		start := time.Now()
		_, err = v.GetKey(t.Context(), r.key)
		require.ErrorIs(t, err, vault.ErrUnavailable)
		require.ErrorContains(t, err, "the credential gave no token within 3s")
		require.Equal(t, 3*time.Second, time.Since(start))

		ctx, cancel := context.WithTimeout(t.Context(), time.Second)
		defer cancel()
		_, err = v.WrapKey(ctx, r.key, []byte("secret"))
		require.ErrorIs(t, err, context.DeadlineExceeded)
	})
}
