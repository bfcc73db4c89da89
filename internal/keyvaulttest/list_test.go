package keyvaulttest_test

import (
	"fmt"
	"math/big"
	"net/url"
	"strings"
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/blockseal/blockseal/internal/keyvaulttest"
	"github.com/blockseal/blockseal/vault/local"
)

// pages reads a list to its end, and returns what the items of each page are called.
func (r *rig) pages(path string) [][]string {
	r.t.Helper()
	var all [][]string
	for path != "" {
		a := r.all("GET", path, "")
		require.Equal(r.t, 200, a.StatusCode, a.message)
		names := []string{}
		for _, v := range a.body["value"].([]any) {
			kid := v.(map[string]any)["kid"].(string)
			names = append(names, kid[strings.LastIndexByte(kid, '/')+1:])
		}
		all = append(all, names)
		require.Contains(r.t, a.body, "nextLink")
		next, _ := a.body["nextLink"].(string)
		if path = ""; next != "" {
			u, err := url.Parse(next)
			require.NoError(r.t, err)
			require.NotEmpty(r.t, u.Port(), "as Key Vault writes it")
			q := u.Query()
			require.Equal(r.t, keyvaulttest.APIVersion, q.Get("api-version"))
			q.Del("api-version") // send adds it
			path = u.Path + "?" + q.Encode()
		}
	}
	return all
}

// manyKeys are named k00, k01 and so on, beside kek.
func manyKeys(r *rig, n int) {
	pem, err := testKey()
	require.NoError(r.t, err)
	for i := range n {
		_, err := r.Vault().ImportFile(r.t.Context(), fmt.Sprintf("k%02d", i), pem, nil, nil)
		require.NoError(r.t, err)
	}
}

// jwkParts are the parts of a key as a request to import it has them.
func jwkParts(t *testing.T) string {
	pem, err := testKey()
	require.NoError(t, err)
	k, err := local.ParsePEM(pem, nil)
	require.NoError(t, err)
	part := func(name string, n *big.Int) string { return fmt.Sprintf("%q:%q", name, b64(string(n.Bytes()))) }
	return strings.Join([]string{part("n", k.N), part("e", big.NewInt(int64(k.E))), part("d", k.D), part("p", k.Primes[0]), part("q", k.Primes[1])}, ",")
}

func TestPages(t *testing.T) {
	r := newRig(t, nil)
	manyKeys(r, 26)
	sizes := func(pages [][]string) (n []int) {
		for _, p := range pages {
			n = append(n, len(p))
		}
		return n
	}
	require.Equal(t, []int{25, 2}, sizes(r.pages("/keys")), "25 is the most, and the default")
	require.Equal(t, []int{20, 7}, sizes(r.pages("/keys?maxresults=20")), "maxresults goes on in the link")
	require.Equal(t, []int{9, 9, 9}, sizes(r.pages("/keys?maxresults=9")), "no page is empty that need not be")
	for _, bad := range []string{"0", "26", "-1", "x"} {
		a := r.all("GET", "/keys?maxresults="+bad, "")
		require.Equal(t, []any{400, "BadParameter"}, []any{a.StatusCode, a.code}, bad)
		require.Contains(t, a.message, "maxresults")
	}
	a := r.all("GET", "/keys?$skiptoken=x", "")
	require.Equal(t, []any{400, "BadParameter"}, []any{a.StatusCode, a.code})

	// A key that is deleted between two pages takes none with it.
	first := r.all("GET", "/keys?maxresults=3", "")
	next := first.body["nextLink"].(string)
	for _, name := range []string{"k00", "k02"} {
		require.Equal(t, 200, r.all("DELETE", "/keys/"+name, "").StatusCode)
	}
	rest := r.pages(next[strings.Index(next, "/keys"):strings.Index(next, "?")+1] + next[strings.Index(next, "$"):])
	require.Equal(t, []string{"k03", "k04", "k05"}, rest[0], "the page before ended with k02")
	require.Equal(t, [][]string{{"k00"}, {"k02"}}, r.pages("/deletedkeys?maxresults=1"))
}

func TestPageSize(t *testing.T) {
	r := newRig(t, &keyvaulttest.Options{PageSize: 2})
	manyKeys(r, 2)
	require.Equal(t, [][]string{{"k00", "k01"}, {"kek"}}, r.pages("/keys"))
	require.Equal(t, [][]string{{"k00", "k01", "kek"}}, r.pages("/keys?maxresults=3"))
}

// Key Vault lists no versions of a key that is not there, or was deleted, and does not say
// that there is none.
func TestVersions(t *testing.T) {
	r := newRig(t, nil)
	want := []string{r.version()}
	for range 2 {
		k, err := r.Vault().RotateKey(t.Context(), "kek")
		require.NoError(t, err)
		want = append(want, k.ID.Version)
	}
	pages := r.pages("/keys/kek/versions?maxresults=2")
	require.Len(t, pages, 2)
	require.ElementsMatch(t, want, append(pages[0], pages[1]...))
	require.Equal(t, [][]string{{}}, r.pages("/keys/no-such-key/versions"))
	require.Equal(t, 200, r.all("DELETE", "/keys/kek", "").StatusCode)
	require.Equal(t, [][]string{{}}, r.pages("/keys/kek/versions"))
	_, err := r.AddIdentity("getter", "get")
	require.NoError(t, err)
	require.Equal(t, 403, r.send("GET", "/keys/no-such-key/versions", r.token("getter", audience), "").StatusCode)
}

// The official clients cannot read a key whose operations are left out.
func TestKeyOperationsAreAlwaysSaid(t *testing.T) {
	r := newRig(t, nil)
	ops := func(a answer) any {
		require.Equal(t, 200, a.StatusCode, a.message)
		return a.body["key"].(map[string]any)["key_ops"]
	}
	require.Equal(t, []any{"wrapKey", "unwrapKey"}, ops(r.all("GET", "/keys/kek", "")))
	require.Equal(t, []any{}, ops(r.all("PATCH", "/keys/kek/", `{"key_ops":[]}`)))
	require.Equal(t, []any{}, ops(r.all("GET", "/keys/kek/"+r.version(), "")))
	require.Equal(t, []any{}, ops(r.all("DELETE", "/keys/kek", "")))
	require.Equal(t, []any{}, ops(r.all("GET", "/deletedkeys/kek", "")))
}

// Each error says what Key Vault says, or says something.
func TestErrorsHaveMessages(t *testing.T) {
	r := newRig(t, nil)
	_, err := r.AddIdentity("data", local.DataPlane()...)
	require.NoError(t, err)
	require.Equal(t, 200, r.all("PUT", "/keys/wrap-only", `{"key":{"kty":"RSA","key_ops":["wrapKey"],`+jwkParts(t)+`}}`).StatusCode)
	require.Equal(t, 200, r.all("PUT", "/keys/disabled", `{"key":{"kty":"RSA",`+jwkParts(t)+`},"attributes":{"enabled":false}}`).StatusCode)
	require.Equal(t, 200, r.all("PUT", "/keys/deleted", `{"key":{"kty":"RSA",`+jwkParts(t)+`}}`).StatusCode)
	backup := r.all("POST", "/keys/deleted/backup", "").body["value"].(string)
	require.Equal(t, 200, r.all("DELETE", "/keys/deleted", "").StatusCode)
	wrapped := `{"alg":"RSA-OAEP-256","value":"` + strings.Repeat("A", 342) + `"}`
	for _, c := range []struct {
		name, method, path, body string
		status                   int
		code, inner, message     string
	}{
		{"an unknown key", "GET", "/keys/no-such", "", 404, "KeyNotFound", "",
			"A key with (name/id) no-such was not found in this key vault. If you recently deleted this key you may be able to recover it using the correct recovery command. For help resolving this issue, please see https://go.microsoft.com/fwlink/?linkid=2125182"},
		{"an unknown version", "GET", "/keys/kek/" + strings.Repeat("0", 32), "", 404, "KeyNotFound", "", "was not found in this key vault"},
		{"an unknown deleted key", "GET", "/deletedkeys/no-such", "", 404, "KeyNotFound", "", "Deleted Key not found: no-such"},
		{"a deleted name", "POST", "/keys/deleted/create", `{"kty":"RSA"}`, 409, "Conflict", "ObjectIsDeletedButRecoverable", "currently in a deleted but recoverable state"},
		{"a restore onto a deleted key", "POST", "/keys/restore", `{"value":"` + backup + `"}`, 409, "Conflict", "ObjectIsDeletedButRecoverable", "recoverable"},
		{"a disabled key", "POST", "/keys/disabled//unwrapkey", wrapped, 403, "Forbidden", "KeyDisabled", "Operation unwrapKey is not allowed on a disabled key."},
		{"an operation that the key does not have", "POST", "/keys/wrap-only//unwrapkey", wrapped, 403, "Forbidden", "KeyOperationForbidden", "Operation unwrapKey is not permitted on this key."},
		{"an altered ciphertext", "POST", "/keys/kek//unwrapkey", wrapped, 400, "BadParameter", "", "Error occurred while decoding OAEP padding."},
		{"a short ciphertext", "POST", "/keys/kek//unwrapkey", `{"alg":"RSA-OAEP-256","value":"AAAA"}`, 400, "BadParameter", "", "Error occurred while decoding OAEP padding."},
		{"no base64", "POST", "/keys/kek//unwrapkey", `{"alg":"RSA-OAEP-256","value":"!"}`, 400, "BadParameter", "", "Content of 'value' is not base64url."},
		{"a secret that is too long", "POST", "/keys/kek/wrapkey", `{"alg":"RSA-OAEP-256","value":"` + strings.Repeat("A", 400) + `"}`, 400, "BadParameter", "", "190 bytes"},
		{"another algorithm", "POST", "/keys/kek/wrapkey", `{"alg":"RSA1_5","value":"AAAA"}`, 400, "BadParameter", "", "RSA1_5"},
		{"no backup", "POST", "/keys/restore", `{"value":"AAAA"}`, 400, "BadParameter", "", "backup"},
		{"what the server does not have", "POST", "/keys/kek//sign", `{}`, 405, "MethodNotAllowed", "", "/keys/kek//sign"},
	} {
		a := r.all(c.method, c.path, c.body)
		require.Equal(t, []any{c.status, c.code, c.inner}, []any{a.StatusCode, a.code, a.inner}, "%s: %s", c.name, a.message)
		require.Contains(t, a.message, c.message, c.name)
	}
	a := r.send("POST", "/keys/new/create", r.token("data", audience), `{"kty":"RSA"}`)
	require.Equal(t, []any{403, "Forbidden", "ForbiddenByRbac"}, []any{a.StatusCode, a.code, a.inner})
	require.Contains(t, a.message, "Caller is not authorized to perform action on resource.")
}

// What the clients for Go, JavaScript and Python send, and nothing else.
func TestAPIVersions(t *testing.T) {
	r := newRig(t, nil)
	get := func(version string) answer {
		return r.sendIn(version, "GET", "/keys/kek", r.token("all", audience), "")
	}
	for _, v := range []string{"7.0", "7.3", "7.4-preview.1", "7.4", "7.5", "7.6", "2025-07-01"} {
		require.Equal(t, 200, get(v).StatusCode, v)
	}
	for _, v := range []string{"", "6.0", "7.99", "2015-06-01"} {
		a := get(v)
		require.Equal(t, []any{400, "BadParameter"}, []any{a.StatusCode, a.code}, v)
		require.Contains(t, a.message, "The specified version ("+v+") is not recognized. Consider using the latest supported version (2025-07-01).")
	}
}

// The JavaScript client takes no discovery document without jwks_uri.
func TestDiscovery(t *testing.T) {
	r := newRig(t, nil)
	doc := r.send("GET", "/"+r.Tenant()+"/v2.0/.well-known/openid-configuration", "", "").body
	for _, name := range []string{"issuer", "authorization_endpoint", "token_endpoint", "jwks_uri"} {
		require.Contains(t, doc[name], r.URL()+"/"+r.Tenant()+"/", name)
	}
	keys := r.send("GET", strings.TrimPrefix(doc["jwks_uri"].(string), r.URL()), "", "")
	require.Equal(t, 200, keys.StatusCode)
	require.Equal(t, map[string]any{"keys": []any{}}, keys.body)
	refused := r.send("POST", strings.TrimPrefix(doc["token_endpoint"].(string), r.URL()), "", "")
	require.Equal(t, 400, refused.StatusCode)
	require.Equal(t, []any{float64(700016)}, refused.body["error_codes"])
	require.Contains(t, refused.body["error_description"], "AADSTS700016")
}
