package keyfile

import (
	"crypto/rsa"
	"fmt"
	"slices"

	"github.com/blockseal/blockseal/vault"
)

// What a key must be.
const (
	KeyBits     = 2048
	minExponent = 65537 // FIPS 186-5, appendix A.1.1: odd, above 2^16
)

func CheckPublic(pub *rsa.PublicKey) error {
	refuse := func(format string, args ...any) error {
		return fmt.Errorf("%s: %w", fmt.Sprintf(format, args...), vault.ErrUnsupportedKey)
	}
	switch {
	case pub == nil || pub.N == nil || pub.N.Sign() <= 0:
		return refuse("there is no RSA key")
	case pub.N.BitLen() != KeyBits:
		return refuse("an RSA key of %d bits, want %d", pub.N.BitLen(), KeyBits)
	case pub.N.Bit(0) == 0:
		return refuse("an RSA key with an even modulus")
	case pub.E < minExponent || pub.E&1 == 0:
		return refuse("an RSA key with the public exponent %d, want an odd one of at least %d", pub.E, minExponent)
	}
	return nil
}

func CheckPrivate(private *rsa.PrivateKey) error {
	if private == nil {
		return fmt.Errorf("there is no key: %w", vault.ErrUnsupportedKey)
	}
	if err := CheckPublic(&private.PublicKey); err != nil {
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
	// crypto/rsa takes factors for prime without looking. With primes, what it does
	// check leaves no other inconsistency. ProbablyPrime adds a Baillie-PSW test to the
	// rounds of Miller-Rabin, and no composite is known that passes it; the rounds are as
	// many as are asked for when primes of 1024 bits are made (FIPS 186-5, appendix B.3).
	for _, p := range private.Primes {
		if !p.ProbablyPrime(5) {
			return fmt.Errorf("an RSA key with a factor that is not prime: %w", vault.ErrUnsupportedKey)
		}
	}
	return nil
}
