package main

import (
	"bytes"
	"context"
	"crypto/tls"
	"crypto/x509"
	"encoding/json"
	"flag"
	"io"
	"net/http"
	"net/url"
	"os"
	"path/filepath"
	"regexp"
	"strings"
	"testing"

	"github.com/stretchr/testify/require"
)

// started waits for a text of a program's output.
type started struct {
	text  string
	all   bytes.Buffer
	ready chan string // the output up to then
}

func (s *started) Write(p []byte) (int, error) {
	s.all.Write(p)
	if s.ready != nil && strings.Contains(s.all.String(), s.text) {
		s.ready <- s.all.String()
		s.ready = nil
	}
	return len(p), nil
}

// serve runs the program until the test ends and returns the variables it exports.
func serve(t *testing.T, args ...string) (env map[string]string, stop func() error) {
	ctx, cancel := context.WithCancel(t.Context())
	ready := make(chan string, 1)
	done := make(chan error, 1)
	go func() {
		done <- run(ctx, append([]string{"-env"}, args...), &started{text: "LAST_CLIENT_SECRET", ready: ready})
	}()
	select {
	case text := <-ready:
		env = map[string]string{}
		for _, m := range regexp.MustCompile(`(?m)^export (\w+)='(.*)'$`).FindAllStringSubmatch(text, -1) {
			env[m[1]] = m[2]
		}
	case err := <-done:
		require.NoError(t, err)
	}
	return env, func() error { cancel(); return <-done }
}

// As another program would: HTTP and JSON alone.
func TestAnotherProgramTalksToIt(t *testing.T) {
	dir := t.TempDir()
	env, stop := serve(t, "-dir", filepath.Join(dir, "vault"), "-cert", filepath.Join(dir, "ca.pem"),
		"-identity", "store=get,wrapKey,unwrapKey", "-identity", "last=get")
	require.Equal(t, "1", env["BLOCKSEAL_TEST_VAULT"], "what examples/azure needs; its tests use it")
	pem, err := os.ReadFile(env["SSL_CERT_FILE"])
	require.NoError(t, err)
	roots := x509.NewCertPool()
	require.True(t, roots.AppendCertsFromPEM(pem))
	client := &http.Client{Transport: &http.Transport{TLSClientConfig: &tls.Config{RootCAs: roots}, DisableKeepAlives: true}}
	call := func(method, path, token, body string) (int, map[string]any) {
		req, err := http.NewRequest(method, env["BLOCKSEAL_VAULT_URL"]+path+"?api-version=2025-07-01", strings.NewReader(body))
		require.NoError(t, err)
		req.Header.Set("Authorization", "Bearer "+token)
		resp, err := client.Do(req)
		require.NoError(t, err)
		defer resp.Body.Close()
		b, err := io.ReadAll(resp.Body)
		require.NoError(t, err)
		var m map[string]any
		require.NoError(t, json.Unmarshal(b, &m), string(b))
		return resp.StatusCode, m
	}
	token := func(id, secret string) string {
		resp, err := client.PostForm(env["AZURE_AUTHORITY_HOST"]+"/"+env["AZURE_TENANT_ID"]+"/oauth2/v2.0/token", url.Values{
			"grant_type": {"client_credentials"}, "client_id": {id}, "client_secret": {secret}, "scope": {"https://vault.azure.net/.default"}})
		require.NoError(t, err)
		defer resp.Body.Close()
		var m struct {
			Token string `json:"access_token"`
		}
		require.NoError(t, json.NewDecoder(resp.Body).Decode(&m))
		return m.Token
	}
	store := token(env["AZURE_CLIENT_ID"], env["AZURE_CLIENT_SECRET"])
	status, wrapped := call("POST", "/keys/kek/wrapkey", store, `{"alg":"RSA-OAEP-256","value":"c2VjcmV0"}`)
	require.Equal(t, 200, status, wrapped)
	_, version, _ := strings.Cut(wrapped["kid"].(string), "/keys/kek/")
	status, unwrapped := call("POST", "/keys/kek/"+version+"/unwrapkey", store, `{"alg":"RSA-OAEP-256","value":"`+wrapped["value"].(string)+`"}`)
	require.Equal(t, 200, status)
	require.Equal(t, "c2VjcmV0", unwrapped["value"])
	last := token(env["LAST_CLIENT_ID"], env["LAST_CLIENT_SECRET"])
	status, _ = call("GET", "/keys/kek", last, "")
	require.Equal(t, 200, status)
	status, refused := call("POST", "/keys/kek/wrapkey", last, `{"alg":"RSA-OAEP-256","value":"c2VjcmV0"}`)
	require.Equal(t, 403, status)
	require.Equal(t, "Forbidden", refused["error"].(map[string]any)["code"])
	require.Empty(t, token(env["LAST_CLIENT_ID"], "wrong"))
	require.NoError(t, stop())

	// What was made is there for the next time.
	env, stop = serve(t, "-dir", filepath.Join(dir, "vault"), "-identity", "store=get,unwrapKey", "-identity", "last=all")
	require.NoError(t, stop())
	require.NoFileExists(t, env["SSL_CERT_FILE"], "the temporary directory is gone")
}

func TestWhatItSays(t *testing.T) {
	ctx, cancel := context.WithCancel(t.Context())
	ready := make(chan string, 1)
	done := make(chan error, 1)
	go func() {
		done <- run(ctx, []string{"-key", "", "-listen", "127.0.0.1:0"}, &started{text: "Interrupt to end.", ready: ready})
	}()
	text := <-ready
	cancel()
	require.NoError(t, <-done)
	for _, want := range []string{"vault         https://127.0.0.1:", "identity      store: client id ", "identity      administrator", "curl -s --cacert"} {
		require.Contains(t, text, want)
	}
}

func TestUsage(t *testing.T) {
	var out strings.Builder
	require.ErrorIs(t, run(t.Context(), []string{"-h"}, &out), flag.ErrHelp)
	require.Contains(t, out.String(), "-retry-after")
	for _, args := range [][]string{{"more"}, {"-identity", "x"}, {"-identity", "x=fly"}, {"-no-such"}} {
		require.ErrorIs(t, run(t.Context(), args, &out), errUsage, args)
	}
	require.ErrorContains(t, run(t.Context(), []string{"-listen", "0.0.0.0:0"}, &out), "not a loopback address")
}
