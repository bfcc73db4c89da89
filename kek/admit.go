package kek

import (
	"crypto/rsa"
	"crypto/sha256"
	"crypto/x509"
	"fmt"
	"time"

	"github.com/blockseal/blockseal/vault"
)

// Bits is the only modulus size that is accepted.
const Bits = 2048

// MinExponent is the least public exponent that is accepted (FIPS 186-5,
// appendix A.1.1: odd, above 2^16). Go itself encrypts to e = 3 without complaint.
const MinExponent = 65537

// Admit says whether a key is acceptable as a KEK at now: RSA with a modulus of
// exactly 2048 bits and an odd public exponent of at least 65537, enabled, in
// date, and permitting wrapKey and unwrapKey. The error matches
// [vault.ErrUnsupportedKey], [vault.ErrKeyDisabled], [vault.ErrKeyNotYetValid] or
// [vault.ErrKeyExpired] and names what is wrong; of a date, also the time that was
// assumed ([vault.Key.InDate]).
func Admit(key vault.Key, now time.Time) error {
	refuse := func(kind error, format string, args ...any) error {
		return &vault.Error{Op: vault.OpGet, Key: key.ID, Kind: kind, Detail: fmt.Sprintf(format, args...)}
	}
	if err := AdmitPublic(key.Public); err != nil {
		return refuse(vault.ErrUnsupportedKey, "%v", err)
	}
	for _, op := range []vault.Operation{vault.OpWrapKey, vault.OpUnwrapKey} {
		if !key.Permits(op) {
			return refuse(vault.ErrUnsupportedKey, "its operations do not include %s", op)
		}
	}
	if !key.Enabled {
		return refuse(vault.ErrKeyDisabled, "enable the key version to use it")
	}
	return key.InDate(vault.OpGet, now)
}

// AdmitPublic says whether a public key has an acceptable shape, in an error
// that names what is wrong.
func AdmitPublic(pub *rsa.PublicKey) error {
	switch {
	case pub == nil || pub.N == nil:
		return fmt.Errorf("it has no RSA public key")
	case pub.N.Sign() <= 0:
		return fmt.Errorf("its modulus is not positive")
	case pub.N.BitLen() != Bits:
		return fmt.Errorf("its modulus has %d bits, want %d", pub.N.BitLen(), Bits)
	case pub.N.Bit(0) == 0:
		return fmt.Errorf("its modulus is even")
	case pub.E < MinExponent:
		return fmt.Errorf("its public exponent is %d, want at least %d", pub.E, MinExponent)
	case pub.E&1 == 0:
		return fmt.Errorf("its public exponent %d is even", pub.E)
	}
	return nil
}

// Fingerprint returns the SHA-256 of the public key's SubjectPublicKeyInfo
// (RFC 5280, section 4.1; DER): what tells one key's material from another's
// behind the same name and version. The key must have been admitted.
func Fingerprint(pub *rsa.PublicKey) ([sha256.Size]byte, error) {
	der, err := x509.MarshalPKIXPublicKey(pub)
	if err != nil {
		return [sha256.Size]byte{}, fmt.Errorf("kek: fingerprint: %w", err)
	}
	return sha256.Sum256(der), nil
}
