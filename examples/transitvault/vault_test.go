package transitvault_test

import (
	"bytes"
	"context"
	"crypto/rand"
	"crypto/rsa"
	"crypto/sha256"
	"crypto/x509"
	"encoding/base64"
	"encoding/json"
	"encoding/pem"
	"errors"
	"fmt"
	"io"
	"net/http"
	"net/http/httptest"
	"strconv"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/blockseal/blockseal/examples/transitvault"
	"github.com/blockseal/blockseal/internal/test/testkeys"
	"github.com/blockseal/blockseal/kek"
	"github.com/blockseal/blockseal/vault"
	"github.com/blockseal/blockseal/vault/vaulttest"
)

const token = "hvs.only-a-test"

// engine is a server that does what the client uses of HashiCorp Vault's transit engine, with
// its paths, its members and its texts.
type engine struct {
	*httptest.Server
	mu      sync.Mutex
	keys    map[string]*key
	denied  map[string]bool // what the token's policy lacks: "keys", "encrypt", "decrypt"
	fault   http.HandlerFunc
	pairs   []*rsa.PrivateKey
	created time.Time
}

type key struct {
	versions []*rsa.PrivateKey
	least    int
}

func newEngine(t *testing.T) *engine {
	pairs, err := testkeys.Pairs()
	require.NoError(t, err)
	e := &engine{keys: map[string]*key{}, denied: map[string]bool{}, pairs: pairs, created: time.Date(2026, 3, 1, 12, 0, 0, 0, time.UTC)}
	e.Server = httptest.NewTLSServer(e)
	t.Cleanup(e.Close)
	return e
}

func (e *engine) rotate(name string) int {
	e.mu.Lock()
	defer e.mu.Unlock()
	k := e.keys[name]
	if k == nil {
		k = &key{least: 1}
		e.keys[name] = k
	}
	k.versions = append(k.versions, e.pairs[0])
	e.pairs = e.pairs[1:]
	return len(k.versions)
}

func (e *engine) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	e.mu.Lock()
	defer e.mu.Unlock()
	if e.fault != nil {
		e.fault(w, r)
		return
	}
	path, ok := strings.CutPrefix(r.URL.EscapedPath(), "/v1/transit/")
	what, name, two := strings.Cut(path, "/")
	k := e.keys[name]
	switch {
	case !ok || !two:
		refuse(w, http.StatusNotFound)
	case r.Header.Get("X-Vault-Token") != token || e.denied[what]:
		refuse(w, http.StatusForbidden, "1 error occurred:\n\t* permission denied\n\n")
	case what == "keys" && r.Method == http.MethodGet && k == nil:
		refuse(w, http.StatusNotFound)
	case what == "keys" && r.Method == http.MethodGet:
		answer(w, e.read(k))
	case r.Method != http.MethodPost:
		refuse(w, http.StatusMethodNotAllowed)
	case k == nil:
		refuse(w, http.StatusBadRequest, "encryption key not found")
	case what == "encrypt":
		encrypt(w, r, k)
	case what == "decrypt":
		decrypt(w, r, k)
	default:
		refuse(w, http.StatusNotFound)
	}
}

func (e *engine) read(k *key) any {
	keys := map[string]any{}
	for i, private := range k.versions {
		der, err := x509.MarshalPKIXPublicKey(&private.PublicKey)
		if err != nil {
			panic(err)
		}
		keys[strconv.Itoa(i+1)] = map[string]any{
			"public_key":    string(pem.EncodeToMemory(&pem.Block{Type: "PUBLIC KEY", Bytes: der})),
			"creation_time": e.created.Add(time.Duration(i) * time.Hour), "name": "rsa-2048",
		}
	}
	return map[string]any{"type": "rsa-2048", "latest_version": len(k.versions), "min_decryption_version": k.least, "keys": keys}
}

func encrypt(w http.ResponseWriter, r *http.Request, k *key) {
	var p struct {
		Plaintext []byte `json:"plaintext"`
		Version   int    `json:"key_version"`
	}
	if json.NewDecoder(r.Body).Decode(&p) != nil {
		refuse(w, http.StatusBadRequest, "missing plaintext")
		return
	}
	if p.Version == 0 {
		p.Version = len(k.versions)
	}
	switch {
	case p.Version > len(k.versions):
		refuse(w, http.StatusBadRequest, "requested version for encryption is higher than the latest key version")
		return
	case p.Version < k.least:
		refuse(w, http.StatusBadRequest, "requested version for encryption is less than the minimum encryption key version")
		return
	}
	c, err := rsa.EncryptOAEP(sha256.New(), rand.Reader, &k.versions[p.Version-1].PublicKey, p.Plaintext, nil)
	if err != nil {
		refuse(w, http.StatusBadRequest, "failed to RSA encrypt the plaintext")
		return
	}
	answer(w, map[string]any{"ciphertext": fmt.Sprintf("vault:v%d:%s", p.Version, base64.StdEncoding.EncodeToString(c)), "key_version": p.Version})
}

func decrypt(w http.ResponseWriter, r *http.Request, k *key) {
	var p struct{ Ciphertext string }
	err := json.NewDecoder(r.Body).Decode(&p)
	parts := strings.Split(p.Ciphertext, ":")
	if err != nil || len(parts) != 3 || parts[0] != "vault" {
		refuse(w, http.StatusBadRequest, "invalid ciphertext: no prefix")
		return
	}
	n, err := strconv.Atoi(strings.TrimPrefix(parts[1], "v"))
	switch {
	case err != nil:
		refuse(w, http.StatusBadRequest, "invalid ciphertext: version number could not be decoded")
		return
	case n > len(k.versions):
		refuse(w, http.StatusBadRequest, "invalid ciphertext: version is too new")
		return
	case n < k.least:
		refuse(w, http.StatusBadRequest, "ciphertext or signature version is disallowed by policy (too old)")
		return
	}
	c, err := base64.StdEncoding.DecodeString(parts[2])
	if err == nil && len(c) != 256 {
		err = rsa.ErrDecryption
	}
	if err == nil {
		c, err = rsa.DecryptOAEP(sha256.New(), nil, k.versions[n-1], c, nil)
	}
	if err != nil {
		refuse(w, http.StatusBadRequest, "failed to RSA decrypt the ciphertext")
		return
	}
	answer(w, map[string]any{"plaintext": c})
}

func answer(w http.ResponseWriter, data any) {
	json.NewEncoder(w).Encode(map[string]any{"request_id": "0000-request", "data": data})
}

func refuse(w http.ResponseWriter, status int, errors ...string) {
	w.WriteHeader(status)
	json.NewEncoder(w).Encode(map[string]any{"errors": append([]string{}, errors...)})
}

func (e *engine) client(t *testing.T) *transitvault.Vault {
	t.Helper()
	v, err := transitvault.New(e.URL+"/v1/transit/", func(context.Context) (string, error) { return token, nil }, e.Client())
	require.NoError(t, err)
	return v
}

func TestConforms(t *testing.T) {
	vaulttest.Run(t, func(t *testing.T) vaulttest.Subject {
		e := newEngine(t)
		e.rotate("customer")
		policy := map[vault.Operation]string{vault.OpGet: "keys", vault.OpWrapKey: "encrypt", vault.OpUnwrapKey: "decrypt"}
		deny := func(denied bool) func(vault.Operation) {
			return func(op vault.Operation) {
				e.mu.Lock()
				defer e.mu.Unlock()
				e.denied[policy[op]] = denied
			}
		}
		return vaulttest.Subject{
			Vault: e.client(t), Key: vault.KeyID{Vault: e.URL + "/v1/transit", Name: "customer"},
			Rotate: func(name string) vault.KeyID {
				return vault.KeyID{Vault: e.URL + "/v1/transit", Name: name, Version: fmt.Sprint("v", e.rotate(name))}
			},
			// There is no soft delete, and no state or date of a single version.
			Purge: func(name string) {
				e.mu.Lock()
				defer e.mu.Unlock()
				delete(e.keys, name)
			},
			Revoke: deny(true), Grant: deny(false),
		}
	})
}

// What the suite cannot ask: this vault's way to say that a version is of no use, and each
// answer that is none.
func TestAnswers(t *testing.T) {
	ctx := t.Context()
	e := newEngine(t)
	e.rotate("customer")
	v := e.client(t)
	k := kek.New(v, vault.KeyID{Name: "customer"})
	require.NoError(t, k.Check(ctx))
	w, err := v.WrapKey(ctx, vault.KeyID{Name: "customer"}, []byte("a secret"))
	require.NoError(t, err)
	e.rotate("customer")

	e.mu.Lock()
	e.keys["customer"].least = 2
	e.mu.Unlock()
	_, err = v.UnwrapKey(ctx, w)
	require.ErrorIs(t, err, vault.ErrKeyDisabled)
	_, err = v.WrapKey(ctx, w.KeyID, []byte("a secret"))
	require.ErrorIs(t, err, vault.ErrKeyDisabled)
	old, err := v.GetKey(ctx, w.KeyID)
	require.NoError(t, err)
	require.False(t, old.Enabled)
	require.NoError(t, k.Check(ctx), "the current version serves")

	for _, tt := range []struct {
		what  string
		kind  error
		fault http.HandlerFunc
	}{
		{"sealed", vault.ErrUnavailable, func(w http.ResponseWriter, _ *http.Request) { refuse(w, 503, "Vault is sealed") }},
		{"an error within", vault.ErrUnavailable, func(w http.ResponseWriter, _ *http.Request) { refuse(w, 500, "internal error") }},
		{"too many", vault.ErrThrottled, func(w http.ResponseWriter, _ *http.Request) {
			w.Header().Set("Retry-After", "7")
			refuse(w, 429, "request path: rate limit quota exceeded")
		}},
		{"a proxy's page", vault.ErrUnavailable, func(w http.ResponseWriter, _ *http.Request) {
			w.WriteHeader(403)
			fmt.Fprint(w, "<html>blocked</html>")
		}},
		{"a page instead of an answer", vault.ErrUnavailable, func(w http.ResponseWriter, _ *http.Request) { fmt.Fprint(w, "<html>") }},
		{"no data", vault.ErrUnavailable, func(w http.ResponseWriter, _ *http.Request) { fmt.Fprint(w, `{"data":"none"}`) }},
		{"a redirection", vault.ErrUnavailable, func(w http.ResponseWriter, r *http.Request) {
			http.Redirect(w, r, "https://elsewhere.invalid/", http.StatusTemporaryRedirect)
		}},
		{"cut off", vault.ErrUnavailable, func(w http.ResponseWriter, _ *http.Request) {
			w.Header().Set("Content-Length", "1000")
			fmt.Fprint(w, `{"data":`)
		}},
	} {
		t.Run(tt.what, func(t *testing.T) {
			e.mu.Lock()
			e.fault = tt.fault
			e.mu.Unlock()
			_, err := v.UnwrapKey(ctx, w)
			require.ErrorIs(t, err, tt.kind)
			require.False(t, vault.Denied(err))
			require.NotContains(t, err.Error(), token)
			if tt.kind == vault.ErrThrottled {
				require.Equal(t, 7*time.Second, vault.RetryAfter(err))
			}
		})
	}
	e.Close()
	_, err = v.GetKey(ctx, w.KeyID)
	require.ErrorIs(t, err, vault.ErrUnavailable)
}

// No token, and a URL that cannot be right.
func TestNew(t *testing.T) {
	for url, says := range map[string]string{
		"http://vault.example/v1/transit":       "does not start with https://",
		"https://vault.example/v1/keys/transit": "contains",
		"":                                      "does not start with https://",
	} {
		_, err := transitvault.New(url, nil, nil)
		require.ErrorContains(t, err, says, url)
	}
	sealed := errors.New("the agent is not there")
	v, err := transitvault.New("https://VAULT.example:443/v1/transit", func(context.Context) (string, error) { return "", sealed }, nil)
	require.NoError(t, err)
	_, err = v.GetKey(t.Context(), vault.KeyID{Vault: "https://vault.example/v1/transit", Name: "customer"})
	require.ErrorIs(t, err, vault.ErrUnavailable)
	require.ErrorIs(t, err, sealed)
}

// Whatever answers: no panic, no secret of the request in an error, and a success only with
// what was asked for.
func FuzzAnswer(f *testing.F) {
	f.Add(200, []byte(`{"request_id":"r","data":{"ciphertext":"vault:v1:AAAA","plaintext":"AAAA","latest_version":1,"keys":{"1":{"public_key":"-----BEGIN PUBLIC KEY-----\n-----END PUBLIC KEY-----"}}}}`))
	f.Add(400, []byte(`{"errors":["invalid ciphertext: version is too new"]}`))
	f.Add(403, []byte(`{"errors":null}`))
	f.Add(200, []byte(`{"data":{"ciphertext":"vault:v01:","keys":{"0":{}}}}`))
	var status int
	var body []byte
	client := &http.Client{Transport: answers(func(*http.Request) (*http.Response, error) {
		return &http.Response{StatusCode: status, Header: http.Header{}, Body: io.NopCloser(bytes.NewReader(body))}, nil
	})}
	v, err := transitvault.New("https://vault.example/v1/transit", func(context.Context) (string, error) { return token, nil }, client)
	require.NoError(f, err)
	f.Fuzz(func(t *testing.T, code int, text []byte) {
		status, body = code, text
		id := vault.KeyID{Vault: "https://vault.example/v1/transit", Name: "customer", Version: "v1"}
		key, err := v.GetKey(t.Context(), id)
		if err == nil {
			require.Equal(t, id, key.ID)
			require.NotNil(t, key.Public)
		}
		w, err := v.WrapKey(t.Context(), id, []byte("a secret of the test"))
		if err == nil {
			require.Equal(t, id, w.KeyID)
			require.Len(t, w.Ciphertext, vault.WrappedSize)
		} else {
			require.NotNil(t, vault.Kind(err))
			require.NotContains(t, err.Error(), token)
		}
		secret, err := v.UnwrapKey(t.Context(), vault.Wrapped{KeyID: id, Ciphertext: make([]byte, vault.WrappedSize)})
		require.Equal(t, err == nil, len(secret) != 0)
	})
}

type answers func(*http.Request) (*http.Response, error)

func (f answers) RoundTrip(r *http.Request) (*http.Response, error) { return f(r) }
