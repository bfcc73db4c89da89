package local

import (
	"crypto/aes"
	"crypto/cipher"
	"crypto/rsa"
	"crypto/x509"
	"errors"
	"fmt"

	"github.com/blockseal/blockseal/internal/secret"
)

// Everything sealed here is AES-256-GCM (NIST SP 800-38D) with a random 96-bit
// nonce in front, drawn by the standard library inside the FIPS 140-3 module:
//
//	nonce 12 | ciphertext, as long as the plaintext | tag 16
//
// One master key seals the body once for each change of the vault and each
// private key once, far below the 2^32 times that SP 800-38D, section 8.3, allows
// with random nonces. The AADs below keep the two kinds apart.
const (
	keySize  = 32
	overhead = 28
)

var errOpen = errors.New("it does not authenticate")

// seal returns plaintext sealed under a key of 32 bytes.
func seal(key, plaintext, aad []byte) []byte {
	a := newAEAD(key)
	defer secret.WipeAEAD(a)
	return a.Seal(nil, nil, plaintext, aad)
}

// open is the inverse of seal.
func open(key, sealed, aad []byte) ([]byte, error) {
	a := newAEAD(key)
	defer secret.WipeAEAD(a)
	plaintext, err := a.Open(nil, nil, sealed, aad)
	if err != nil {
		return nil, errOpen
	}
	return plaintext, nil
}

func newAEAD(key []byte) cipher.AEAD {
	b, err := aes.NewCipher(key)
	if err == nil {
		// The AEAD has a copy of the expanded key; this one has done its work.
		defer secret.WipeBlock(b)
		var a cipher.AEAD
		if a, err = cipher.NewGCMWithRandomNonce(b); err == nil {
			return a
		}
	}
	// 32 bytes are always a valid AES-256 key, and GCM takes any AES block.
	panic("local: AES-256-GCM refused a key of this package: " + err.Error())
}

// The AAD of a private key binds it to its place, so that sealed keys cannot be
// exchanged for one another, nor carried from vault to vault:
//
//	"blockseal/local/private-key/1" | 0 | vault id 16 | name | "/" | version 32
//
// A name cannot contain a slash.
func privateAAD(vaultID [idSize]byte, name, version string) []byte {
	aad := append([]byte("blockseal/local/private-key/1\x00"), vaultID[:]...)
	return append(aad, name+"/"+version...)
}

// The AAD of the backup secret: "blockseal/local/backup-secret/1" | 0 | vault id 16.
func backupSecretAAD(vaultID [idSize]byte) []byte {
	return append([]byte("blockseal/local/backup-secret/1\x00"), vaultID[:]...)
}

// sealPrivate returns a private key as PKCS#8, sealed for its place.
func sealPrivate(master []byte, vaultID [idSize]byte, name, version string, key *rsa.PrivateKey) ([]byte, error) {
	der, err := x509.MarshalPKCS8PrivateKey(key)
	if err != nil {
		return nil, fmt.Errorf("encode the private key: %w", err)
	}
	defer clear(der)
	return seal(master, der, privateAAD(vaultID, name, version)), nil
}

// openSealed returns what sealPrivate sealed. The caller clears it.
func openSealed(master []byte, vaultID [idSize]byte, name string, v *version) ([]byte, error) {
	der, err := open(master, v.Private, privateAAD(vaultID, name, v.ID))
	if err != nil {
		return nil, fmt.Errorf("the private key of %s version %s: %w: %w", name, v.ID, err, ErrCorrupt)
	}
	return der, nil
}

// openPrivate is the inverse of sealPrivate. It requires that the key is the one
// that the version's public half says.
func openPrivate(master []byte, vaultID [idSize]byte, name string, v *version) (*rsa.PrivateKey, error) {
	der, err := openSealed(master, vaultID, name, v)
	if err != nil {
		return nil, err
	}
	defer clear(der)
	parsed, err := x509.ParsePKCS8PrivateKey(der)
	key, ok := parsed.(*rsa.PrivateKey)
	if err != nil || !ok || !key.PublicKey.Equal(v.public) {
		return nil, fmt.Errorf("the private key of %s version %s is not that of its public key: %w", name, v.ID, ErrCorrupt)
	}
	return key, nil
}
