package vault

import (
	"crypto/sha256"
	"crypto/x509"
	"encoding/hex"
	"encoding/json"
	"time"
)

// MarshalJSON implements [json.Marshaler]. The public key is the SHA-256 of its
// SubjectPublicKeyInfo in hexadecimal digits, as in JSON of package keyring, and is left out if it
// cannot be encoded. A time that is not set is left out. It is not read back.
func (k Key) MarshalJSON() ([]byte, error) {
	out := struct {
		ID         KeyID       `json:"id"`
		PublicKey  string      `json:"publicKey,omitempty"`
		Enabled    bool        `json:"enabled"`
		NotBefore  time.Time   `json:"notBefore,omitzero"`
		Expires    time.Time   `json:"expires,omitzero"`
		Operations []Operation `json:"operations"`
		Created    time.Time   `json:"created,omitzero"`
		VaultTime  time.Time   `json:"vaultTime,omitzero"`
	}{k.ID, "", k.Enabled, k.NotBefore, k.Expires, k.Operations, k.Created, k.VaultTime}
	if k.Public != nil && k.Public.N != nil {
		if der, err := x509.MarshalPKIXPublicKey(k.Public); err == nil {
			sum := sha256.Sum256(der)
			out.PublicKey = hex.EncodeToString(sum[:])
		}
	}
	return json.Marshal(out)
}
