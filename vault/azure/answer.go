package azure

import (
	"bytes"
	"crypto/rsa"
	"crypto/sha256"
	"math/big"
	"strings"
	"time"

	"github.com/Azure/azure-sdk-for-go/sdk/security/keyvault/azkeys"

	"github.com/blockseal/blockseal/vault"
)

// An answer that makes no sense (JSON that ends early, fields that are missing)
// proves nothing about the key and is vault.ErrUnavailable, like no answer. One that
// makes sense and is not an answer to the question (another key, version or length,
// another public key under a known version) is a denial: whatever sent it is not to
// be trusted with the key, or holds another one.

func malformed(op vault.Operation, id vault.KeyID, what string) error {
	return refuse(op, id, vault.ErrUnavailable, "the vault's answer is cut short or malformed: %s", what)
}

// answers checks that an answer is about the key that was asked for, and returns its
// complete id. Host names and key names do not differ by case in Key Vault; the id
// has the name as it was asked for.
func (c *client) answers(op vault.Operation, id vault.KeyID, kid *azkeys.ID) (vault.KeyID, error) {
	if kid == nil {
		return vault.KeyID{}, malformed(op, id, "it has no key identifier")
	}
	got, err := vault.ParseKeyID(string(*kid))
	if err != nil {
		return vault.KeyID{}, malformed(op, id, "its key identifier cannot be parsed")
	}
	if got.Vault, err = parseVaultURL(got.Vault); err != nil {
		return vault.KeyID{}, malformed(op, id, "its key identifier names no vault")
	}
	switch {
	case got.Vault != c.url,
		!strings.EqualFold(got.Name, id.Name),
		id.Version != "" && !strings.EqualFold(got.Version, id.Version):
		return vault.KeyID{}, refuse(op, id, vault.ErrUnsupportedKey, "the vault answered for another key, %s", got)
	case got.Version == "":
		return vault.KeyID{}, refuse(op, id, vault.ErrUnsupportedKey, "the vault did not say which version it used")
	}
	if id.Version == "" {
		id.Version = got.Version
	}
	return id, nil
}

// key reads a key bundle: the answer to GetKey.
func (c *client) key(op vault.Operation, id vault.KeyID, b azkeys.KeyBundle) (vault.Key, error) {
	jwk, at := b.Key, b.Attributes
	if jwk == nil || jwk.Kty == nil || at == nil || at.Enabled == nil {
		return vault.Key{}, malformed(op, id, "it has no key, or no attributes")
	}
	id, err := c.answers(op, id, jwk.KID)
	if err != nil {
		return vault.Key{}, err
	}
	if *jwk.Kty != azkeys.KeyTypeRSA && *jwk.Kty != azkeys.KeyTypeRSAHSM {
		return vault.Key{}, refuse(op, id, vault.ErrUnsupportedKey, "it is a key of type %s, want RSA-2048", clean(string(*jwk.Kty), "", 32))
	}
	if len(jwk.N) == 0 || len(jwk.E) == 0 {
		return vault.Key{}, malformed(op, id, "its key has no modulus or no exponent")
	}
	e := new(big.Int).SetBytes(jwk.E)
	if e.BitLen() > 31 {
		return vault.Key{}, refuse(op, id, vault.ErrUnsupportedKey, "its public exponent has %d bits, want at most 31", e.BitLen())
	}
	key := vault.Key{
		ID:         id,
		Public:     &rsa.PublicKey{N: new(big.Int).SetBytes(jwk.N), E: int(e.Int64())},
		Enabled:    *at.Enabled,
		Created:    date(at.Created),
		NotBefore:  date(at.NotBefore),
		Expires:    date(at.Expires),
		Operations: []vault.Operation{vault.OpGet}, // no key forbids it
	}
	for _, o := range jwk.KeyOps {
		if o != nil {
			key.Operations = append(key.Operations, vault.Operation(*o))
		}
	}
	c.setSoftware(id.Name, *jwk.Kty == azkeys.KeyTypeRSA && !c.managedHSM())
	return key, nil
}

func date(t *time.Time) time.Time {
	if t == nil {
		return time.Time{}
	}
	return t.UTC()
}

// usable says whether a key can serve as a KEK now. It is what package kek asks of
// one: RSA, 2048 bits, an odd exponent of at least 65537, both operations, enabled,
// in date.
func usable(op vault.Operation, key vault.Key, now time.Time) error {
	if why := unacceptable(key.Public); why != "" {
		return refuse(op, key.ID, vault.ErrUnsupportedKey, "%s", why)
	}
	for _, o := range []vault.Operation{vault.OpWrapKey, vault.OpUnwrapKey} {
		if !key.Permits(o) {
			return refuse(op, key.ID, vault.ErrUnsupportedKey, "its operations do not include %s", o)
		}
	}
	return inUse(op, key, now)
}

// inUse says whether a key is enabled and in date.
func inUse(op vault.Operation, key vault.Key, now time.Time) error {
	if !key.Enabled {
		return refuse(op, key.ID, vault.ErrKeyDisabled, "enable the key version to use it")
	}
	return key.InDate(op, now)
}

// unacceptable says what is wrong with the shape of a public key, or "".
func unacceptable(pub *rsa.PublicKey) string {
	switch {
	case pub.N.BitLen() != 2048:
		return "its modulus does not have 2048 bits"
	case pub.N.Bit(0) == 0:
		return "its modulus is even"
	case pub.E < 65537 || pub.E&1 == 0:
		return "its public exponent is not odd and at least 65537"
	}
	return ""
}

// fingerprint tells one public key from another.
func fingerprint(pub *rsa.PublicKey) [sha256.Size]byte {
	return sha256.Sum256(bytes.Join([][]byte{big.NewInt(int64(pub.E)).Bytes(), pub.N.Bytes()}, []byte{0}))
}
