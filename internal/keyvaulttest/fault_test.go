package keyvaulttest_test

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"os"
	"runtime"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/blockseal/blockseal/internal/keyvaulttest"
	"github.com/blockseal/blockseal/vault/local"
)

// Each fault does what it says, as often as it says, to what it says.
func TestFaults(t *testing.T) {
	r := newRig(t, nil)
	get := func() (*http.Response, []byte, error) {
		req, err := http.NewRequestWithContext(t.Context(), "GET", r.URL()+"/keys/kek?api-version="+keyvaulttest.APIVersion, nil)
		require.NoError(t, err)
		req.Header.Set("Authorization", "Bearer "+r.token("all", audience))
		resp, err := r.client.Do(req)
		if err != nil {
			return nil, nil, err
		}
		defer resp.Body.Close()
		b, err := io.ReadAll(resp.Body)
		return resp, b, err
	}
	for name, f := range map[string]keyvaulttest.Fault{
		"of another operation": {Op: "wrapKey", Cut: true}, "of another key": {Key: "other", Cut: true}, "of another version": {Version: "0123", Cut: true},
	} {
		remove := r.Inject(f)
		resp, _, err := get()
		require.NoError(t, err, name)
		require.Equal(t, 200, resp.StatusCode)
		remove()
	}

	r.Inject(keyvaulttest.Fault{Op: "get", Key: "kek", Times: 2, Status: 503, Code: "ServiceUnavailable", Message: "later", Inner: "Why", RetryAfter: "7"})
	for range 2 {
		resp, b, err := get()
		require.NoError(t, err)
		require.Equal(t, 503, resp.StatusCode)
		require.Equal(t, "7", resp.Header.Get("Retry-After"))
		require.JSONEq(t, `{"error":{"code":"ServiceUnavailable","message":"later","innererror":{"code":"Why"}}}`, string(b))
	}
	resp, whole, err := get()
	require.NoError(t, err)
	require.Equal(t, 200, resp.StatusCode)

	body := func(f keyvaulttest.Fault) ([]byte, error) {
		remove := r.Inject(f)
		defer remove()
		_, b, err := get()
		return b, err
	}
	b, err := body(keyvaulttest.Fault{Status: 502, Body: "<html>"})
	require.NoError(t, err)
	require.Equal(t, "<html>", string(b))
	b, err = body(keyvaulttest.Fault{Replace: "instead"})
	require.NoError(t, err)
	require.Equal(t, "instead", string(b))
	b, err = body(keyvaulttest.Fault{Truncate: 20})
	require.NoError(t, err)
	require.Equal(t, string(whole[:20]), string(b))
	b, err = body(keyvaulttest.Fault{Mutate: func(m map[string]any) { m["key"] = "none" }})
	require.NoError(t, err)
	require.Contains(t, string(b), `"key":"none"`)
	_, err = body(keyvaulttest.Fault{Drop: 20})
	require.ErrorIs(t, err, io.ErrUnexpectedEOF)
	_, err = body(keyvaulttest.Fault{Cut: true})
	require.ErrorIs(t, err, io.EOF)
	_, err = body(keyvaulttest.Fault{Delay: time.Millisecond})
	require.NoError(t, err)
}

func TestHangEndsWithTheFaultOrTheCaller(t *testing.T) {
	r := newRig(t, nil)
	remove := r.Inject(keyvaulttest.Fault{Op: "get", Hang: true})
	ctx, cancel := context.WithCancel(t.Context())
	req, err := http.NewRequestWithContext(ctx, "GET", r.URL()+"/keys/kek?api-version="+keyvaulttest.APIVersion, nil)
	require.NoError(t, err)
	req.Header.Set("Authorization", "Bearer "+r.token("all", audience))
	go func() {
		for r.Requests("get") == 0 && t.Context().Err() == nil {
			runtime.Gosched()
		}
		cancel()
	}()
	_, err = r.client.Do(req)
	require.ErrorIs(t, err, context.Canceled)
	remove()
	require.Equal(t, 200, r.all("GET", "/keys/kek", "").StatusCode)
}

// So often, and no more; and each for as long as it says.
func TestHangsSoOften(t *testing.T) {
	r := newRig(t, nil)
	remove := r.Inject(keyvaulttest.Fault{Op: "get", Hang: true, Times: 1})
	ctx, cancel := context.WithCancel(t.Context())
	defer cancel()
	req, err := http.NewRequestWithContext(ctx, "GET", r.URL()+"/keys/kek?api-version="+keyvaulttest.APIVersion, nil)
	require.NoError(t, err)
	req.Header.Set("Authorization", "Bearer "+r.token("all", audience))
	done := make(chan error, 1)
	go func() {
		resp, err := r.client.Do(req)
		if err == nil {
			err = resp.Body.Close()
		}
		done <- err
	}()
	for r.Requests("get") == 0 {
		runtime.Gosched()
	}
	require.Equal(t, 200, r.all("GET", "/keys/kek", "").StatusCode)
	select {
	case err := <-done:
		t.Fatalf("the request that hangs was answered: %v", err)
	default:
	}
	remove()
	require.NoError(t, <-done)
}

func TestNoNetwork(t *testing.T) {
	r := newRig(t, nil)
	send := func() error {
		resp, err := r.client.Get(r.URL() + "/keys/kek")
		if err == nil {
			resp.Body.Close()
		}
		return err
	}
	require.NoError(t, send())
	r.Unreachable()
	var op *net.OpError
	require.ErrorAs(t, send(), &op)
	r.NoSuchHost()
	var dns *net.DNSError
	require.ErrorAs(t, send(), &dns)
	require.True(t, dns.IsNotFound)
	r.NoNameServer()
	require.ErrorAs(t, send(), &dns)
	require.True(t, dns.IsTemporary)
	r.Reachable()
	require.NoError(t, send())
}

// In no window more than the limit, an operation with a key of type RSA-HSM counting
// twice.
func TestLimit(t *testing.T) {
	pem, err := testKey()
	require.NoError(t, err)
	key, err := local.ParsePEM(pem, nil)
	require.NoError(t, err)
	jwk := fmt.Sprintf(`{"Hsm":true,"key":{"kty":"RSA","key_ops":["wrapKey"],"n":%q,"e":"AQAB","d":%q,"p":%q,"q":%q},"attributes":{"enabled":false,"exp":4102444800}}`,
		b64(string(key.N.Bytes())), b64(string(key.D.Bytes())), b64(string(key.Primes[0].Bytes())), b64(string(key.Primes[1].Bytes())))
	for name, tt := range map[string]struct{ importing, served int }{"kek": {0, 6}, "inHSM": {1, 2}} {
		r := newRig(t, &keyvaulttest.Options{Limit: 6, LimitWindow: 24 * time.Hour, RetryAfter: "3"})
		for range tt.importing {
			a := r.all("PUT", "/keys/inHSM", jwk)
			require.Equal(t, 200, a.StatusCode, a.body)
			require.Equal(t, "RSA-HSM", a.body["key"].(map[string]any)["kty"])
			require.Equal(t, false, a.body["attributes"].(map[string]any)["enabled"])
			require.EqualValues(t, 4102444800, a.body["attributes"].(map[string]any)["exp"])
		}
		served := 0
		for range 8 {
			a := r.all("GET", "/keys/"+name, "")
			if a.StatusCode == 200 {
				served++
				continue
			}
			require.Equal(t, 429, a.StatusCode)
			require.Equal(t, "Throttled", a.code)
			require.Equal(t, "3", a.Header.Get("Retry-After"))
		}
		require.Equal(t, tt.served, served, name)
		require.Equal(t, 8, r.Requests("get"), "those that were refused, too")
	}
}

func TestCloseLeavesNothing(t *testing.T) {
	t.Setenv("TMPDIR", t.TempDir())
	s, err := keyvaulttest.New(nil)
	require.NoError(t, err)
	client := s.Client()
	resp, err := client.Get(s.URL() + "/keys")
	require.NoError(t, err)
	require.NoError(t, resp.Body.Close())
	require.Equal(t, 0, s.Requests(""), "it had no token")
	require.NoError(t, s.Close())
	_, err = client.Get(s.URL() + "/keys")
	require.Error(t, err)
	left, err := os.ReadDir(os.Getenv("TMPDIR"))
	require.NoError(t, err)
	require.Empty(t, left)

	_, err = keyvaulttest.New(&keyvaulttest.Options{Address: "0.0.0.0:0"})
	require.ErrorContains(t, err, "not a loopback address")
	_, err = keyvaulttest.New(&keyvaulttest.Options{Address: "127.0.0.1:none"})
	require.Error(t, err)
	require.False(t, errors.Is(err, os.ErrNotExist))
}
