// Package transitvault is a [vault.Vault] on a service that encrypts and decrypts with keys
// that never leave it, in the manner of HashiCorp Vault's transit engine: HTTP and JSON,
// versions "v1", "v2" and so on, no soft delete. docs/write-a-vault.md goes through it as an
// example of how a vault is written; the test beside it runs the suite of vault/vaulttest
// against a small server.
//
// Read vault.go for the three operations, answer.go for what a refusal means.
package transitvault

import (
	"context"
	"crypto/rsa"
	"crypto/x509"
	"encoding/base64"
	"encoding/pem"
	"errors"
	"fmt"
	"net/http"
	"strconv"
	"strings"
	"time"

	"github.com/blockseal/blockseal/vault"
)

// Vault is the engine at one mount, with one token. It is safe for concurrent use.
type Vault struct {
	mount  string // URL of the engine: the KeyID.Vault of its keys
	token  func(context.Context) (string, error)
	client *http.Client
}

var _ vault.Vault = (*Vault)(nil)

// New returns the vault of the engine at a URL such as https://vault.example/v1/transit. token
// is asked for the token of each request, so that one that is renewed is used. The client may
// be nil; whatever it is, it follows no redirection, which would carry the token elsewhere.
func New(mount string, token func(context.Context) (string, error), client *http.Client) (*Vault, error) {
	mount = vault.KeyID{Vault: strings.TrimSuffix(mount, "/")}.Canonical().Vault
	if err := (vault.KeyID{Vault: mount, Name: "key"}).Validate(); err != nil {
		return nil, fmt.Errorf("transitvault: %w", err)
	}
	if !strings.HasPrefix(mount, "https://") {
		return nil, fmt.Errorf("transitvault: the URL %q does not start with https://: tokens and secrets would go in the clear", mount)
	}
	own := http.Client{Timeout: 10 * time.Second}
	if client != nil {
		own = *client
	}
	own.CheckRedirect = func(*http.Request, []*http.Request) error { return http.ErrUseLastResponse }
	return &Vault{mount, token, &own}, nil
}

// own returns the id with its vault and version as this vault has them, or a refusal: of
// an id that no key can have it is a mistake of the caller's and nothing is sent, since a name
// becomes a part of a URL.
func (v *Vault) own(op vault.Operation, id vault.KeyID) (vault.KeyID, int, error) {
	if id = id.Canonical(); id.Vault != "" && id.Vault != v.mount {
		return id, 0, &vault.Error{Op: op, Key: id, Kind: vault.ErrKeyNotFound, Detail: "it is not a key of this vault, " + v.mount}
	}
	id.Vault = v.mount
	if err := id.Validate(); err != nil {
		return id, 0, fmt.Errorf("transitvault: %s %s: %w", op, id, err)
	}
	if id.Version == "" {
		return id, 0, nil
	}
	n, err := strconv.ParseUint(strings.TrimPrefix(id.Version, "v"), 10, 31)
	if err != nil || n == 0 || id.Version != version(int(n)) {
		return id, 0, &vault.Error{Op: op, Key: id, Kind: vault.ErrKeyNotFound, Detail: "a version of this vault is v1, v2 and so on"}
	}
	return id, int(n), nil
}

func version(n int) string { return "v" + strconv.Itoa(n) }

// GetKey implements [vault.Vault]. The engine has no dates, and instead of a state for each
// version one bound: versions below min_decryption_version are of no use.
func (v *Vault) GetKey(ctx context.Context, id vault.KeyID) (vault.Key, error) {
	const op = vault.OpGet
	id, n, err := v.own(op, id)
	if err != nil {
		return vault.Key{}, err
	}
	var key struct {
		Latest int `json:"latest_version"`
		Least  int `json:"min_decryption_version"`
		Keys   map[string]struct {
			Public  string    `json:"public_key"`
			Created time.Time `json:"creation_time"`
		} `json:"keys"`
	}
	if err := v.call(ctx, op, id, http.MethodGet, "keys/"+id.Name, nil, &key); err != nil {
		return vault.Key{}, err
	}
	if n == 0 {
		n = key.Latest
	}
	of, ok := key.Keys[strconv.Itoa(n)]
	if !ok {
		return vault.Key{}, &vault.Error{Op: op, Key: id, Kind: vault.ErrKeyNotFound, Detail: "the key has no such version"}
	}
	id.Version = version(n)
	public, err := parsePublic(of.Public)
	if err != nil {
		return vault.Key{}, &vault.Error{Op: op, Key: id, Kind: vault.ErrUnsupportedKey, Detail: fmt.Sprintf("%v; make it with type=rsa-2048", err)}
	}
	return vault.Key{
		ID: id, Public: public, Created: of.Created, Enabled: n >= key.Least,
		Operations: []vault.Operation{vault.OpGet, vault.OpWrapKey, vault.OpUnwrapKey},
	}, nil
}

func parsePublic(text string) (*rsa.PublicKey, error) {
	block, _ := pem.Decode([]byte(text))
	if block == nil {
		return nil, errors.New("it has no public half in PEM, so that it is no RSA key")
	}
	public, err := x509.ParsePKIXPublicKey(block.Bytes)
	if err != nil {
		return nil, errors.New("its public half cannot be parsed")
	}
	key, ok := public.(*rsa.PublicKey)
	if !ok {
		return nil, errors.New("it is no RSA key")
	}
	return key, nil
}

// WrapKey implements [vault.Vault]. The answer names the version that was used. It does not
// read the key before: a caller may wrap who may not read.
func (v *Vault) WrapKey(ctx context.Context, id vault.KeyID, secret []byte) (vault.Wrapped, error) {
	const op = vault.OpWrapKey
	id, n, err := v.own(op, id)
	if err != nil {
		return vault.Wrapped{}, err
	}
	if len(secret) == 0 || len(secret) > vault.MaxSecret {
		return vault.Wrapped{}, fmt.Errorf("transitvault: %s %s: a secret has 1 to %d bytes, not %d", op, id, vault.MaxSecret, len(secret))
	}
	asked := struct {
		Plaintext []byte `json:"plaintext"`
		Version   int    `json:"key_version,omitempty"`
	}{secret, n}
	var answer struct {
		Ciphertext string `json:"ciphertext"`
	}
	if err := v.call(ctx, op, id, http.MethodPost, "encrypt/"+id.Name, asked, &answer); err != nil {
		return vault.Wrapped{}, err
	}
	used, ciphertext, err := parseCiphertext(answer.Ciphertext)
	if err != nil || n != 0 && used != n {
		return vault.Wrapped{}, &vault.Error{Op: op, Key: id, Kind: vault.ErrUnavailable, Detail: "the vault's answer has no ciphertext of the version that was asked for"}
	}
	if len(ciphertext) != vault.WrappedSize {
		return vault.Wrapped{}, &vault.Error{Op: op, Key: id, Kind: vault.ErrUnsupportedKey, Detail: "it is not RSA-2048; make it with type=rsa-2048"}
	}
	id.Version = version(used)
	return vault.Wrapped{KeyID: id, Ciphertext: ciphertext}, nil
}

// parseCiphertext reads "vault:vN:BASE64".
func parseCiphertext(s string) (int, []byte, error) {
	parts := strings.Split(s, ":")
	if len(parts) != 3 || parts[0] != "vault" {
		return 0, nil, errors.New("not of the form vault:vN:BASE64")
	}
	n, err := strconv.ParseUint(strings.TrimPrefix(parts[1], "v"), 10, 31)
	if err != nil || n == 0 || parts[1] != version(int(n)) {
		return 0, nil, errors.New("no version")
	}
	b, err := base64.StdEncoding.DecodeString(parts[2])
	return int(n), b, err
}

// UnwrapKey implements [vault.Vault].
func (v *Vault) UnwrapKey(ctx context.Context, w vault.Wrapped) ([]byte, error) {
	const op = vault.OpUnwrapKey
	id, n, err := v.own(op, w.KeyID)
	if err != nil {
		return nil, err
	}
	if n == 0 {
		return nil, fmt.Errorf("transitvault: %s %s: the wrapped secret names no key version", op, id)
	}
	asked := map[string]string{"ciphertext": "vault:" + version(n) + ":" + base64.StdEncoding.EncodeToString(w.Ciphertext)}
	var answer struct {
		Plaintext []byte `json:"plaintext"`
	}
	if err := v.call(ctx, op, id, http.MethodPost, "decrypt/"+id.Name, asked, &answer); err != nil {
		return nil, err
	}
	if len(answer.Plaintext) == 0 {
		return nil, &vault.Error{Op: op, Key: id, Kind: vault.ErrBadCiphertext, Detail: "it is no wrapped secret"}
	}
	return answer.Plaintext, nil
}
