package keyvaulttest_test

import (
	"bytes"
	"encoding/base64"
	"encoding/json"
	"fmt"
	"io"
	"math/big"
	"net/http"
	"os"
	"strings"
	"sync"
	"testing"

	"github.com/Azure/azure-sdk-for-go/sdk/azcore/policy"
	"github.com/stretchr/testify/require"

	"github.com/blockseal/blockseal/internal/keyvaulttest"
	"github.com/blockseal/blockseal/vault"
	"github.com/blockseal/blockseal/vault/local"
)

// These tests speak HTTP and JSON, as Key Vault's REST reference has it. That the real
// client is content is for the tests of vault/azure.

type rig struct {
	*keyvaulttest.Server
	t      testing.TB
	client *http.Client
}

var testKey = sync.OnceValues(func() ([]byte, error) {
	return os.ReadFile("../../internal/keyfile/testdata/import/rsa2048.pem")
})

// newRig returns a server with a key, "kek", and an identity that may do everything,
// "all".
func newRig(t testing.TB, o *keyvaulttest.Options) *rig {
	t.Helper()
	s, err := keyvaulttest.New(o)
	require.NoError(t, err)
	t.Cleanup(func() { require.NoError(t, s.Close()) })
	pem, err := testKey()
	require.NoError(t, err)
	_, err = s.Vault().ImportFile(t.Context(), "kek", pem, nil, nil)
	require.NoError(t, err)
	_, err = s.AddIdentity("all", local.Permissions()...)
	require.NoError(t, err)
	return &rig{s, t, s.Client()}
}

func (r *rig) token(identity, audience string) string {
	r.t.Helper()
	tk, err := r.Credential(identity).GetToken(r.t.Context(), policy.TokenRequestOptions{Scopes: []string{audience + "/.default"}})
	require.NoError(r.t, err)
	return tk.Token
}

const audience = "https://vault.azure.net"

// answer is a response with its body as JSON, and what is in it of an error.
type answer struct {
	*http.Response
	body        map[string]any
	code, inner string
	message     string
}

func (r *rig) send(method, path, token, body string) answer {
	r.t.Helper()
	return r.sendIn(keyvaulttest.APIVersion, method, path, token, body)
}

func (r *rig) sendIn(apiVersion, method, path, token, body string) answer {
	r.t.Helper()
	sep := "?"
	if strings.Contains(path, "?") {
		sep = "&"
	}
	req, err := http.NewRequestWithContext(r.t.Context(), method, r.URL()+path+sep+"api-version="+apiVersion, strings.NewReader(body))
	require.NoError(r.t, err)
	if token != "" {
		req.Header.Set("Authorization", "Bearer "+token)
	}
	resp, err := r.client.Do(req)
	require.NoError(r.t, err)
	defer resp.Body.Close()
	b, err := io.ReadAll(resp.Body)
	require.NoError(r.t, err)
	a := answer{Response: resp}
	if len(b) > 0 {
		require.NoError(r.t, json.Unmarshal(b, &a.body), string(b))
	}
	if e, ok := a.body["error"].(map[string]any); ok {
		a.code, a.message = e["code"].(string), e["message"].(string)
		if in, ok := e["innererror"].(map[string]any); ok {
			a.inner = in["code"].(string)
		}
	}
	return a
}

// all sends as the identity that may do everything.
func (r *rig) all(method, path, body string) answer {
	r.t.Helper()
	return r.send(method, path, r.token("all", audience), body)
}

func (r *rig) version() string {
	k, err := r.Vault().GetKey(r.t.Context(), vault.KeyID{Name: "kek"})
	require.NoError(r.t, err)
	return k.ID.Version
}

func b64(s string) string { return base64.RawURLEncoding.EncodeToString([]byte(s)) }

func TestChallenge(t *testing.T) {
	r := newRig(t, nil)
	a := r.send("GET", "/keys/kek", "", "")
	require.Equal(t, 401, a.StatusCode)
	require.Equal(t, "Unauthorized", a.code)
	require.Contains(t, a.message, "AKV10000")
	require.Equal(t, `Bearer authorization="https://login.microsoftonline.com/`+keyvaulttest.DefaultTenant+`", resource="https://vault.azure.net"`, a.Header.Get("WWW-Authenticate"))
	require.NotEmpty(t, a.Header.Get("x-ms-request-id"))
	require.NotEqual(t, a.Header.Get("x-ms-request-id"), r.send("GET", "/keys/kek", "", "").Header.Get("x-ms-request-id"))
}

// Every token that is not exactly one of the server's own.
func TestTokens(t *testing.T) {
	r := newRig(t, nil)
	good := r.token("all", audience)
	require.Equal(t, 200, r.send("GET", "/keys/kek", good, "").StatusCode)
	parts := strings.Split(good, ".")
	for name, tt := range map[string]struct{ token, code string }{
		"another audience":  {r.token("all", "https://management.azure.com"), "AKV10022"},
		"no token at all":   {"x", "AKV10001"},
		"truncated":         {good[:len(good)-2], "AKV10001"},
		"another signature": {parts[0] + "." + parts[1] + "." + b64("forged"), "AKV10001"},
		"another payload":   {parts[0] + "." + b64(`{"aud":"https://vault.azure.net"}`) + "." + parts[2], "AKV10001"},
		"without signature": {parts[0] + "." + parts[1], "AKV10001"},
		"another's":         {newRig(t, nil).token("all", audience), "AKV10001"},
	} {
		a := r.send("GET", "/keys/kek", tt.token, "")
		require.Equal(t, 401, a.StatusCode, name)
		require.Contains(t, a.message, tt.code, name)
		require.NotEmpty(t, a.Header.Get("WWW-Authenticate"), name)
	}
	r.DeleteIdentity("all")
	require.Equal(t, 401, r.send("GET", "/keys/kek", good, "").StatusCode)
	r.RecoverIdentity("all")
	require.Equal(t, 200, r.send("GET", "/keys/kek", good, "").StatusCode)
	r.SetTenant("99999999-8888-7777-6666-555555555555")
	require.Contains(t, r.send("GET", "/keys/kek", good, "").message, "AKV10032")
	require.Equal(t, "99999999-8888-7777-6666-555555555555", r.Tenant())
}

// Each operation needs its permission, and no other is enough.
func TestPermissions(t *testing.T) {
	for _, policies := range []bool{false, true} {
		r := newRig(t, &keyvaulttest.Options{AccessPolicies: policies})
		inner := "ForbiddenByRbac"
		if policies {
			inner = "AccessDenied"
		}
		for op, call := range map[local.Permission]struct{ method, path, body string }{
			vault.OpGet:       {"GET", "/keys/kek", ""},
			vault.OpWrapKey:   {"POST", "/keys/kek/wrapkey", `{"alg":"RSA-OAEP-256","value":"YQ"}`},
			vault.OpUnwrapKey: {"POST", "/keys/kek/" + r.version() + "/unwrapkey", `{"alg":"RSA-OAEP-256","value":"YQ"}`},
			local.OpCreate:    {"POST", "/keys/new/create", `{"kty":"RSA"}`},
			local.OpUpdate:    {"PATCH", "/keys/kek/" + r.version(), `{}`},
			local.OpRotate:    {"POST", "/keys/kek/rotate", ``},
			local.OpBackup:    {"POST", "/keys/kek/backup", ``},
			local.OpRestore:   {"POST", "/keys/restore", `{"value":"YQ"}`},
			local.OpList:      {"GET", "/keys", ""},
			local.OpDelete:    {"DELETE", "/keys/kek", ""},
			local.OpRecover:   {"POST", "/deletedkeys/kek/recover", ""},
			local.OpPurge:     {"DELETE", "/deletedkeys/kek", ""},
		} {
			who := "without-" + string(op)
			others := []local.Permission{}
			for _, p := range local.Permissions() {
				if p != op {
					others = append(others, p)
				}
			}
			_, err := r.AddIdentity(who, others...)
			require.NoError(t, err)
			a := r.send(call.method, call.path, r.token(who, audience), call.body)
			require.Equal(t, 403, a.StatusCode, op)
			require.Equal(t, "Forbidden", a.code, op)
			require.Equal(t, inner, a.inner, op)
			require.Contains(t, a.message, "appid=", op)
		}
	}
}

func TestWhatIsNoRequest(t *testing.T) {
	r := newRig(t, nil)
	for _, tt := range []struct {
		method, path, body string
		status             int
		code               string
	}{
		{"GET", "/", "", 405, "MethodNotAllowed"},
		{"GET", "/secrets/kek", "", 405, "MethodNotAllowed"},
		{"POST", "/keys/kek/sign", "{}", 405, "MethodNotAllowed"},
		{"DELETE", "/keys/kek/0123", "", 200, ""}, // Key Vault deletes keys, not versions; the path's rest is ignored
		{"GET", "/keys/none", "", 404, "KeyNotFound"},
		{"POST", "/deletedkeys/kek/recover", "", 200, ""},
		{"GET", "/keys/kek/0123456789abcdef0123456789abcdef", "", 404, "KeyNotFound"},
		{"POST", "/keys/kek/wrapkey", "{", 400, "BadParameter"},
		{"POST", "/keys/kek/wrapkey", `{"alg":"RSA-OAEP","value":"YQ"}`, 400, "BadParameter"},
		{"POST", "/keys/kek/wrapkey", `{"alg":"RSA-OAEP-256","value":"%%"}`, 400, "BadParameter"},
		{"POST", "/keys/kek/wrapkey", `{"alg":"RSA-OAEP-256","value":""}`, 400, "BadParameter"},
		{"POST", "/keys/kek/unwrapkey", `{"alg":"RSA-OAEP-256","value":"YQ"}`, 400, "BadParameter"},
		{"POST", "/keys/new/create", `{"kty":"EC"}`, 400, "BadParameter"},
		{"POST", "/keys/new/create", `{"kty":"RSA","key_size":4096}`, 400, "BadParameter"},
		{"POST", "/keys/no%2Fname/create", `{"kty":"RSA"}`, 405, "MethodNotAllowed"},
		{"PUT", "/keys/new", `{"key":{"kty":"RSA","n":"AQAB","e":"AQAB"}}`, 400, "BadParameter"},
		{"PUT", "/keys/new", `{"key":{"kty":"RSA","key_hsm":"e30"}}`, 400, "BadParameter"},
		{"PATCH", "/keys/kek", `{"attributes":{"exp":"soon"}}`, 400, "BadParameter"},
		{"PUT", "/keys/kek/rotationpolicy", `{"attributes":{"expiryTime":"P1D"}}`, 400, "BadParameter"},
		{"PUT", "/keys/kek/rotationpolicy", `{"attributes":{"expiryTime":"never"}}`, 400, "BadParameter"},
		{"POST", "/keys/restore", `{"value":"YQ"}`, 400, "BadParameter"},
	} {
		a := r.all(tt.method, tt.path, tt.body)
		require.Equal(t, tt.status, a.StatusCode, "%s %s %s: %v", tt.method, tt.path, tt.body, a.body)
		require.Equal(t, tt.code, a.code, "%s %s %s", tt.method, tt.path, tt.body)
	}
}

// Key Vault checks what it imports. A factor that is not prime passes crypto/rsa's own
// checks, and what is wrapped under it is anybody's who can factor it.
func TestImportsNoCompositeFactors(t *testing.T) {
	r := newRig(t, nil)
	pem, err := testKey()
	require.NoError(t, err)
	good, err := local.ParsePEM(pem, nil)
	require.NoError(t, err)
	one, e := big.NewInt(1), big.NewInt(int64(good.E))
	p := good.Primes[0]
	for q := new(big.Int).Add(good.Primes[1], big.NewInt(2)); ; q.Add(q, big.NewInt(2)) {
		n := new(big.Int).Mul(p, q)
		d := new(big.Int).ModInverse(e, new(big.Int).Mul(new(big.Int).Sub(p, one), new(big.Int).Sub(q, one)))
		if d == nil || n.BitLen() != 2048 || q.ProbablyPrime(20) {
			continue
		}
		a := r.all("PUT", "/keys/composite", fmt.Sprintf(`{"key":{"kty":"RSA","n":%q,"e":"AQAB","d":%q,"p":%q,"q":%q}}`,
			b64(string(n.Bytes())), b64(string(d.Bytes())), b64(string(p.Bytes())), b64(string(q.Bytes()))))
		require.Equal(t, 400, a.StatusCode, a.body)
		require.Equal(t, "BadParameter", a.code)
		require.Equal(t, 404, r.all("GET", "/keys/composite", "").StatusCode)
		return
	}
}

// When a policy notifies, and a version's tags, are kept as they were given.
func TestPoliciesAndTags(t *testing.T) {
	r := newRig(t, nil)
	notify := func(a answer) string {
		t.Helper()
		require.Equal(t, 200, a.StatusCode, a.body)
		for _, action := range a.body["lifetimeActions"].([]any) {
			action := action.(map[string]any)
			if action["action"].(map[string]any)["type"] == "Notify" {
				return action["trigger"].(map[string]any)["timeBeforeExpiry"].(string)
			}
		}
		return ""
	}
	const policy = "/keys/kek/rotationpolicy"
	require.Equal(t, "P30D", notify(r.all("GET", policy, "")), "Key Vault's default")
	require.Equal(t, "P60D", notify(r.all("PUT", policy, `{"lifetimeActions":[{"trigger":{"timeBeforeExpiry":"P2M"},"action":{"type":"notify"}},{"trigger":{"timeAfterCreate":"P90D"},"action":{"type":"Rotate"}}]}`)))
	require.Equal(t, "P60D", notify(r.all("GET", policy, "")))
	require.Equal(t, "P30D", notify(r.all("PUT", policy, `{"lifetimeActions":[]}`)))
	for _, bad := range []string{`{"timeBeforeExpiry":"soon"}`, `{"timeAfterCreate":"P1D"}`, `{}`} {
		require.Equal(t, 400, r.all("PUT", policy, `{"lifetimeActions":[{"trigger":`+bad+`,"action":{"type":"Notify"}}]}`).StatusCode, bad)
	}
	require.Equal(t, 400, r.all("PUT", policy, `{"lifetimeActions":[{"trigger":{"timeAfterCreate":"P1D"},"action":{"type":"Explode"}}]}`).StatusCode)

	a := r.all("POST", "/keys/tagged/create", `{"kty":"RSA","tags":{"a":"1","b":""}}`)
	require.Equal(t, map[string]any{"a": "1", "b": ""}, a.body["tags"])
	first := strings.TrimPrefix(a.body["key"].(map[string]any)["kid"].(string), r.URL())
	tags := func(path string) any { return r.all("GET", path, "").body["tags"] }
	require.Equal(t, map[string]any{"a": "1", "b": ""}, tags("/keys/tagged"))
	require.Nil(t, tags("/keys/kek"))
	require.Equal(t, map[string]any{"a": "1", "b": ""}, r.all("POST", "/keys/tagged/rotate", "").body["tags"], "the next version has them, too")
	require.Equal(t, map[string]any{"c": "3"}, r.all("PATCH", "/keys/tagged", `{"tags":{"c":"3"}}`).body["tags"])
	require.Equal(t, map[string]any{"c": "3"}, r.all("PATCH", "/keys/tagged", `{}`).body["tags"])
	require.Equal(t, map[string]any{"a": "1", "b": ""}, tags(first))
	listed := r.all("GET", "/keys", "").body["value"].([]any)[1].(map[string]any)
	require.Equal(t, map[string]any{"c": "3"}, listed["tags"])
	require.Len(t, r.all("GET", "/keys/tagged/versions", "").body["value"], 2)
	require.Equal(t, map[string]any{"c": "3"}, r.all("DELETE", "/keys/tagged", "").body["tags"])
	require.Equal(t, map[string]any{"c": "3"}, r.all("GET", "/deletedkeys", "").body["value"].([]any)[0].(map[string]any)["tags"])
}

// Any request gets an answer, and what is not as asked is one of Key Vault's errors.
func FuzzRequest(f *testing.F) {
	f.Add("GET", "/keys/kek", []byte(""))
	f.Add("POST", "/keys/kek/wrapkey", []byte(`{"alg":"RSA-OAEP-256","value":"YQ"}`))
	f.Add("PUT", "/keys/imported", []byte(`{"key":{"kty":"RSA","n":"AQAB","e":"AQAB","d":"AQ","p":"Aw","q":"Aw"}}`))
	f.Add("PUT", "/keys/imported", []byte(`{"Hsm":true,"key":{"kty":"RSA-HSM","key_hsm":"e30"}}`))
	f.Add("PATCH", "/keys/kek/0123", []byte(`{"attributes":{"exp":null,"nbf":1,"enabled":false}}`))
	f.Add("PUT", "/keys/kek/rotationpolicy", []byte(`{"lifetimeActions":[{"trigger":{"timeAfterCreate":"P1Y"},"action":{"type":"Rotate"}}],"attributes":{"expiryTime":"P2Y"}}`))
	f.Add("POST", "/keys/restore", []byte(`{"value":"YQ"}`))
	f.Add("GET", "/deletedkeys", []byte(""))
	r := newRig(f, &keyvaulttest.Options{InMemory: true})
	token := r.token("all", audience)
	f.Fuzz(func(t *testing.T, method, path string, body []byte) {
		if strings.HasSuffix(path, "/create") || strings.HasSuffix(path, "/rotate") {
			return // making a key pair takes up to a second
		}
		req, err := http.NewRequest(method, "https://contoso.vault.azure.net", bytes.NewReader(body))
		if err != nil {
			return
		}
		req.URL.Path = path
		req.URL.RawQuery = "api-version=" + keyvaulttest.APIVersion
		req.Header.Set("Authorization", "Bearer "+token)
		w := &recorder{header: http.Header{}, status: 200}
		r.ServeHTTP(w, req)
		require.GreaterOrEqual(t, w.status, 200)
		require.Less(t, w.status, 500, w.body.String())
		if w.status >= 400 {
			var e struct {
				Error struct{ Code, Message string }
			}
			require.NoError(t, json.Unmarshal(w.body.Bytes(), &e))
			require.NotEmpty(t, e.Error.Code)
		}
	})
}

type recorder struct {
	header http.Header
	status int
	body   bytes.Buffer
}

func (r *recorder) Header() http.Header         { return r.header }
func (r *recorder) WriteHeader(status int)      { r.status = status }
func (r *recorder) Write(b []byte) (int, error) { return r.body.Write(b) }
