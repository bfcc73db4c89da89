package azure_test

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/http/httptest"
	"net/url"
	"strings"
	"sync/atomic"
	"testing"
	"testing/synctest"
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
	"github.com/blockseal/blockseal/vault/vaulttest"
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
	t.Parallel()
	r := newRig(t, nil)
	for name, tt := range map[string]struct {
		err  error
		says string // all after the key
		code string
	}{
		"the token endpoint fails":        {entraAnswers(503, "upstream hunter2"), "the token endpoint answered HTTP 503", ""},
		"the token endpoint throttles":    {entraAnswers(429, "slow down"), "the token endpoint answered HTTP 429", ""},
		"the token endpoint's name":       {fmt.Errorf("hunter2: %w", &net.DNSError{Err: "no such host", Name: "login.microsoftonline.com", IsNotFound: true}), "lookup login.microsoftonline.com: no such host", ""},
		"the network":                     {&url.Error{Op: "Post", URL: "https://hunter2", Err: &net.OpError{Op: "dial", Err: errors.New("no route")}}, "dial: no route", ""},
		"a code that may pass":            {errors.New("hunter2 AADSTS90033: A transient error has occurred."), "refused by Microsoft Entra ID", "AADSTS90033"},
		"a code that may pass, in a 400":  {entraAnswers(400, `{"error":"temporarily_unavailable","error_description":"AADSTS50196: hunter2"}`), "refused by Microsoft Entra ID", "AADSTS50196"},
		"anything":                        {errors.New("hunter2"), "*errors.errorString", ""},
		"a proxy, in azidentity's words":  {errors.New("WorkloadIdentityCredential: hunter2 Post \"https://login.microsoftonline.com/hunter2\": Proxy Authentication Required. To troubleshoot, visit https://aka.ms/azsdk/go/identity/troubleshoot#workload"), "Proxy Authentication Required", ""},
		"a page, in azidentity's words":   {errors.New("ClientSecretCredential authentication failed. \nPOST https://login.microsoftonline.com/t\n----\nRESPONSE 407: 407 Proxy Authentication Required\n----\n<html>hunter2"), "the token endpoint answered HTTP 407", ""},
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
	t.Parallel()
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
			v, newErr := azure.New(r.URL(), tokenless(err), r.options(atOnce))
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
			Pebble: block.PebbleOptions{FS: vfs.NewMem(), MemTable: 1 << 20, BlockCache: 1 << 20}, Keyring: keyring.Options{Clock: vault.SystemClock()}})
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

// A call ends in time, whatever its credential does. The sign-in goes on for a minute, one
// for all, and a credential that heeds no context leaves nothing more behind.
func TestASlowCredential(t *testing.T) {
	bubble(t, keyvaulttest.Options{}, func(t *testing.T, r *rig) {
		var asked atomic.Int32
		begun := time.Now()
		cred := credentialFunc(func(ctx context.Context, _ policy.TokenRequestOptions) (azcore.AccessToken, error) {
			asked.Add(1)
			<-ctx.Done()
			return azcore.AccessToken{}, ctx.Err()
		})
		v, err := azure.New(r.URL(), cred, r.options(func(o *azure.Options) { o.Timeout = 3 * time.Second }))
		require.NoError(t, err)
		start := time.Now()
		_, err = v.GetKey(t.Context(), r.key)
		require.ErrorIs(t, err, vault.ErrUnavailable)
		require.ErrorIs(t, err, context.DeadlineExceeded)
		require.ErrorContains(t, err, "the credential gave no token within 3s; if it needs longer, raise azure.Options.Timeout, and keyring.Options.VaultTimeout above that")
		require.Equal(t, 3*time.Second, time.Since(start))

		ctx, cancel := context.WithTimeout(t.Context(), time.Second)
		defer cancel()
		_, err = v.WrapKey(ctx, r.key, []byte("secret"))
		require.ErrorIs(t, err, context.DeadlineExceeded)
		require.EqualValues(t, 1, asked.Load())
		time.Sleep(time.Until(begun.Add(time.Minute)))
		synctest.Wait()
		_, err = v.GetKey(t.Context(), r.key)
		require.ErrorContains(t, err, "within 3s", "another sign-in")
		require.EqualValues(t, 2, asked.Load())
		time.Sleep(time.Minute)
	})
}

// takes returns a credential that needs d for each token, whether it heeds its context
// or not.
func (r *rig) takes(d time.Duration, heeds bool) credentialFunc {
	return func(ctx context.Context, o policy.TokenRequestOptions) (azcore.AccessToken, error) {
		ends := ctx.Done()
		if !heeds {
			ends = nil
		}
		select {
		case <-time.After(d):
			return r.Credential(store).GetToken(context.WithoutCancel(ctx), o)
		case <-ends:
			return azcore.AccessToken{}, ctx.Err()
		}
	}
}

// A credential that needs longer than a call has opens the store all the same: what it
// ended with is there for the next check. Until then the error names the two options that
// together give it the time at once.
func TestACredentialSlowerThanACall(t *testing.T) {
	for name, heeds := range map[string]bool{"that heeds its context": true, "that does not": false} {
		t.Run(name, func(t *testing.T) {
			bubble(t, keyvaulttest.Options{}, func(t *testing.T, r *rig) {
				v, err := azure.New(r.URL(), r.takes(11*time.Second, heeds), r.options())
				require.NoError(t, err)
				opts := &keyring.Options{Clock: vault.SystemClock()}
				k := kek.New(v, r.key.Versionless())
				s := &keyring.MemStorage{}
				_, err = keyring.Create(t.Context(), s, kek.New(r.client(), r.key.Versionless()), opts)
				require.NoError(t, err)

				kr, err := keyring.Open(t.Context(), s, k, opts)
				require.NoError(t, err)
				defer func() { require.NoError(t, kr.Close()) }()
				require.Equal(t, keyring.Inaccessible, kr.State().Status)
				require.ErrorContains(t, kr.State().Cause, "the credential gave no token within 9s; if it needs longer, raise azure.Options.Timeout, and keyring.Options.VaultTimeout above that")
				time.Sleep(time.Minute)
				synctest.Wait()
				require.Equal(t, keyring.Available, kr.State().Status)

				both, err := azure.New(r.URL(), r.takes(11*time.Second, heeds), r.options(func(o *azure.Options) { o.Timeout = 30 * time.Second }))
				require.NoError(t, err)
				at, err := keyring.Open(t.Context(), s, kek.New(both, r.key.Versionless()), &keyring.Options{Clock: vault.SystemClock(), VaultTimeout: 31 * time.Second, RequireAccess: true})
				require.NoError(t, err)
				require.NoError(t, at.Close())
			})
		})
	}
}

// The reason for which a sign-in takes longer than a call is in the error, as far as its
// connections or the sign-in before tell it.
func TestWhyASignInIsSlow(t *testing.T) {
	t.Parallel()
	r := newRig(t, nil)
	refusing, err := net.Listen("tcp", "127.0.0.1:0")
	require.NoError(t, err)
	closed := refusing.Addr().String()
	require.NoError(t, refusing.Close())
	proxy := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) { w.WriteHeader(http.StatusProxyAuthRequired) }))
	defer proxy.Close()
	proxyURL, err := url.Parse(proxy.URL)
	require.NoError(t, err)

	for name, tt := range map[string]struct {
		transport *http.Transport
		says      string
	}{
		"connection refused": {&http.Transport{DialContext: func(ctx context.Context, network, _ string) (net.Conn, error) {
			return (&net.Dialer{}).DialContext(ctx, network, closed)
		}}, "connection refused"},
		"refused by a proxy": {&http.Transport{Proxy: http.ProxyURL(proxyURL)}, "a proxy at " + proxyURL.Host + " did not let it through"},
	} {
		t.Run(name, func(t *testing.T) {
			tried := make(chan struct{})
			// It tries twice and then waits for longer than anybody has, as azidentity may.
			cred := credentialFunc(func(ctx context.Context, _ policy.TokenRequestOptions) (azcore.AccessToken, error) {
				for range 2 {
					req, err := http.NewRequestWithContext(ctx, http.MethodPost, "https://login.example/token", nil)
					if err != nil {
						return azcore.AccessToken{}, err
					}
					if resp, err := (&http.Client{Transport: tt.transport}).Do(req); err == nil {
						resp.Body.Close()
					}
				}
				close(tried)
				<-ctx.Done()
				return azcore.AccessToken{}, ctx.Err()
			})
			clock := vaulttest.NewClock(time.Now())
			v, err := azure.New(r.URL(), cred, r.options(func(o *azure.Options) { o.Clock = clock }))
			require.NoError(t, err)
			go func() {
				<-tried
				clock.Advance(time.Minute)
			}()
			_, err = v.GetKey(t.Context(), r.key)
			require.True(t, vault.Transient(err), err)
			require.ErrorContains(t, err, "the credential gave no token within 1m0s")
			require.ErrorContains(t, err, tt.says)
		})
	}
}

// What a sign-in that ended too late for its call failed with is told to the next one.
func TestTheReasonOfTheSignInBefore(t *testing.T) {
	bubble(t, keyvaulttest.Options{}, func(t *testing.T, r *rig) {
		cred := credentialFunc(func(context.Context, policy.TokenRequestOptions) (azcore.AccessToken, error) {
			time.Sleep(10 * time.Second)
			return azcore.AccessToken{}, errors.New(`ClientSecretCredential: hunter2 Post "https://login.microsoftonline.com/t/oauth2/v2.0/token": Proxy Authentication Required. To troubleshoot, visit https://aka.ms/x`)
		})
		v, err := azure.New(r.URL(), cred, r.options())
		require.NoError(t, err)
		_, err = v.GetKey(t.Context(), r.key)
		require.ErrorContains(t, err, "the credential gave no token within 9s")
		for range 3 {
			time.Sleep(time.Minute)
			_, err = v.GetKey(t.Context(), r.key)
			require.ErrorContains(t, err, "the credential gave no token within 9s")
			require.ErrorContains(t, err, ": the sign-in before failed: Proxy Authentication Required")
			require.NotContains(t, err.Error(), "hunter2")
			require.NotContains(t, err.Error(), "troubleshoot")
		}
		time.Sleep(time.Minute)
	})
}
