package local

import (
	"crypto/rsa"
	"errors"
	"fmt"
	"slices"
	"time"

	"github.com/blockseal/blockseal/vault"
)

// What a key must be, and what its properties must be.
const (
	keyBits     = 2048
	minExponent = 65537 // FIPS 186-5, appendix A.1.1: odd, above 2^16
)

func checkPublic(pub *rsa.PublicKey) error {
	refuse := func(format string, args ...any) error {
		return fmt.Errorf("%s: %w", fmt.Sprintf(format, args...), vault.ErrUnsupportedKey)
	}
	switch {
	case pub == nil || pub.N == nil || pub.N.Sign() <= 0:
		return refuse("there is no RSA key")
	case pub.N.BitLen() != keyBits:
		return refuse("an RSA key of %d bits, want %d", pub.N.BitLen(), keyBits)
	case pub.N.Bit(0) == 0:
		return refuse("an RSA key with an even modulus")
	case pub.E < minExponent || pub.E&1 == 0:
		return refuse("an RSA key with the public exponent %d, want an odd one of at least %d", pub.E, minExponent)
	}
	return nil
}

func checkPrivate(private *rsa.PrivateKey) error {
	if private == nil {
		return fmt.Errorf("there is no key: %w", vault.ErrUnsupportedKey)
	}
	if err := checkPublic(&private.PublicKey); err != nil {
		return err
	}
	if len(private.Primes) != 2 {
		return fmt.Errorf("an RSA key with %d primes, want 2: %w", len(private.Primes), vault.ErrUnsupportedKey)
	}
	if private.D == nil || slices.Contains(private.Primes, nil) {
		return fmt.Errorf("an RSA key without its private part: %w", vault.ErrUnsupportedKey)
	}
	if err := private.Validate(); err != nil {
		return fmt.Errorf("an RSA key whose parts do not fit together: %w", vault.ErrUnsupportedKey)
	}
	return nil
}

func checkDates(notBefore, expires int64) error {
	switch {
	case !validTime(notBefore) || !validTime(expires):
		return errors.New("a date is before 1970 or after 9999")
	case notBefore != 0 && expires != 0 && expires <= notBefore:
		return errors.New("it would expire before it is valid")
	}
	return nil
}

// toUnix returns whole seconds since 1970, and 0 for the zero time.
func toUnix(t time.Time) (int64, error) {
	if t.IsZero() {
		return 0, nil
	}
	s := t.Unix()
	if s <= 0 || s > maxUnix {
		return 0, errors.New("a date is before 1970 or after 9999")
	}
	return s, nil
}

func checkOperations(ops []vault.Operation) error {
	for i, op := range ops {
		switch {
		case op == OpImport && len(ops) > 1:
			// Key Vault's rule too: what unwraps transported keys unwraps nothing else.
			return errors.New("a key that permits import must permit nothing else")
		case op != OpImport && !slices.Contains(DataPlane(), op):
			return fmt.Errorf("a key has no operation %q", op)
		case slices.Contains(ops[:i], op):
			return fmt.Errorf("the operation %q is there twice", op)
		}
	}
	return nil
}
