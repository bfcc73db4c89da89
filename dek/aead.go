package dek

import (
	"crypto/aes"
	"crypto/cipher"
	"crypto/fips140"
	"crypto/rand"
	"errors"
	"slices"

	"github.com/blockseal/blockseal/internal/secret"
)

const (
	nonceSize = 12
	tagSize   = 16
)

var errAEAD = errors.New("dek: the bytes do not authenticate")

// AEAD is AES-256-GCM as this package uses it for blocks, and as a keyring uses it
// to wrap DEKs: 12 random bytes of nonce, the ciphertext, 16 bytes of tag.
//
// Seal and Open are safe for concurrent use; Destroy is not. The zero AEAD is
// one that was destroyed. It never prints its key.
type AEAD struct {
	gcm cipher.AEAD

	// inModule says that gcm draws its nonces itself, inside the FIPS 140-3 module,
	// as the module's security policy asks of AES-GCM. Otherwise the nonces come
	// from here: bytes of the same generator, but those of a key and of its nonce are
	// read in one go, which is a fifth of what sealing a small block costs.
	inModule bool
}

// NewAEAD returns the AEAD for a key of [Size] bytes.
func NewAEAD(key []byte) (AEAD, error) {
	b, err := aes.NewCipher(key)
	if err != nil {
		return AEAD{}, err
	}
	a := AEAD{inModule: fips140.Enabled()}
	if a.inModule {
		a.gcm, err = cipher.NewGCMWithRandomNonce(b)
	} else {
		a.gcm, err = cipher.NewGCM(b)
	}
	// The AEAD has a copy of the expanded key; this one has done its work.
	secret.WipeBlock(b)
	return a, err
}

// Seal appends the sealed plaintext, len(plaintext)+[Overhead] bytes, to dst and
// returns the extended slice, under a nonce from crypto/rand. The unused capacity
// of dst must not overlap plaintext. It panics on an AEAD that was destroyed.
func (a *AEAD) Seal(dst, plaintext, aad []byte) []byte {
	a.mustLive()
	if a.inModule {
		return a.gcm.Seal(dst, nil, plaintext, aad)
	}
	dst = slices.Grow(dst, len(plaintext)+Overhead)
	nonce := dst[len(dst) : len(dst)+nonceSize]
	rand.Read(nonce)
	return a.gcm.Seal(dst[:len(dst)+nonceSize], nonce, plaintext, aad)
}

// sealWith is Seal with a random nonce that was drawn already and that nothing else
// was or will be sealed with under this key.
func (a *AEAD) sealWith(nonce, dst, plaintext, aad []byte) []byte {
	if a.inModule {
		return a.gcm.Seal(dst, nil, plaintext, aad)
	}
	dst = append(slices.Grow(dst, len(plaintext)+Overhead), nonce...)
	return a.gcm.Seal(dst, nonce, plaintext, aad)
}

// Open appends the plaintext, len(sealed)-[Overhead] bytes, to dst and returns the
// extended slice. On error it returns nil and nothing of the plaintext. It panics
// on an AEAD that was destroyed.
func (a *AEAD) Open(dst, sealed, aad []byte) ([]byte, error) {
	a.mustLive()
	if a.inModule {
		return a.gcm.Open(dst, nil, sealed, aad)
	}
	if len(sealed) < Overhead {
		return nil, errAEAD
	}
	return a.gcm.Open(dst, sealed[:nonceSize], sealed[nonceSize:], aad)
}

func (a *AEAD) mustLive() {
	if a.gcm == nil {
		panic("dek: use of an AEAD that was destroyed")
	}
}

// Destroy overwrites the expanded key. To destroy again does nothing.
func (a *AEAD) Destroy() {
	secret.WipeAEAD(a.gcm)
	a.gcm = nil
}
