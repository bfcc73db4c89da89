package vaulttest

import (
	"bytes"
	"crypto/rsa"
	"crypto/sha256"
	"sync"
)

// unwrapped remembers what ciphertexts come to: those that the vault made, and those that it
// decrypted. The same ciphertext under the same key comes to the same secret, and a store
// that is checked every minute for a simulated year asks nothing else; an RSA decryption takes
// about a millisecond, and was a third of the time of this module's tests. What somebody else
// wrapped with the public key, or altered, is decrypted. Whether the vault answers at all is
// decided before.
type unwrapped struct {
	mu      sync.Mutex
	secrets map[ciphertext][]byte
}

type ciphertext struct {
	key   *rsa.PrivateKey // replaced, never changed
	bytes [256]byte
}

// maxUnwrapped bounds what is remembered, at 256 bytes for each and a little.
const maxUnwrapped = 1024

// decrypt is RSA-OAEP with SHA-256 (RFC 8017, section 7.1.2). The standard wants exactly
// the modulus' length; crypto/rsa also takes what is shorter, so that a ciphertext would
// pass without its leading zeros.
func (u *unwrapped) decrypt(key *rsa.PrivateKey, c []byte) ([]byte, error) {
	if len(c) != key.Size() {
		return nil, rsa.ErrDecryption
	}
	if len(c) != len(ciphertext{}.bytes) {
		return rsa.DecryptOAEP(sha256.New(), nil, key, c, nil)
	}
	at := ciphertext{key, [256]byte(c)}
	u.mu.Lock()
	known, ok := u.secrets[at]
	u.mu.Unlock()
	if ok {
		return bytes.Clone(known), nil
	}
	secret, err := rsa.DecryptOAEP(sha256.New(), nil, key, c, nil)
	if err != nil {
		return nil, err
	}
	u.remember(key, c, secret)
	return secret, nil
}

// remember notes what a ciphertext comes to.
func (u *unwrapped) remember(key *rsa.PrivateKey, c, secret []byte) {
	if len(c) != len(ciphertext{}.bytes) {
		return
	}
	u.mu.Lock()
	defer u.mu.Unlock()
	if u.secrets == nil || len(u.secrets) == maxUnwrapped {
		u.secrets = map[ciphertext][]byte{}
	}
	u.secrets[ciphertext{key, [256]byte(c)}] = bytes.Clone(secret)
}
