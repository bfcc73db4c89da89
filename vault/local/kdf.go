package local

import (
	"crypto/fips140"
	"crypto/pbkdf2"
	"crypto/sha256"
	"fmt"

	"golang.org/x/crypto/argon2"
)

// KDFAlgorithm is how a passphrase becomes a key.
type KDFAlgorithm uint8

// The values are on disk and must not change.
const (
	// Argon2id is RFC 9106's, version 0x13. It is outside the FIPS 140-3 module.
	Argon2id KDFAlgorithm = 1
	// PBKDF2 is PBKDF2-HMAC-SHA256 (RFC 8018, NIST SP 800-132).
	PBKDF2 KDFAlgorithm = 2
)

// String returns "argon2id" or "PBKDF2-HMAC-SHA256".
func (a KDFAlgorithm) String() string {
	switch a {
	case Argon2id:
		return "argon2id"
	case PBKDF2:
		return "PBKDF2-HMAC-SHA256"
	}
	return fmt.Sprintf("KDFAlgorithm(%d)", uint8(a))
}

// KDF is a passphrase KDF and what it costs. The zero KDF is the default: argon2id
// with 3 passes over 64 MiB in 4 lanes (the second recommendation of RFC 9106,
// section 4), or, where [fips140.Enabled] reports true, PBKDF2-HMAC-SHA256 with
// 600,000 iterations (OWASP Password Storage Cheat Sheet, 2023). It is kept in
// the vault's file.
//
// There is a floor, below which a KDF is refused unless [Options.InsecureKDF] says
// otherwise: the weakest settings that the OWASP Password Storage Cheat Sheet (2023)
// recommends, which are weaker than RFC 9106's. For argon2id that is an amount of memory,
// in KiB, by the number of passes: 47,104 with 1, 19,456 with 2, 12,288 with 3, 9,216
// with 4, 7,168 with 5 or more. For PBKDF2-HMAC-SHA256 it is 600,000 iterations.
//
// With GODEBUG=fips140=on the default is PBKDF2, and what was made with argon2id opens,
// by code outside the FIPS 140-3 module. With fips140=only it does not ([ErrFIPS]).
type KDF struct {
	Algorithm KDFAlgorithm `json:"algorithm"`
	// Passes over the memory (argon2id, 1 to 64), or iterations (PBKDF2, 1 to
	// 100,000,000).
	Passes uint32 `json:"passes"`
	// Memory in KiB (argon2id, 8 for each lane to 2,097,152); 0 for PBKDF2.
	Memory uint32 `json:"memoryKiB,omitzero"`
	// Lanes (argon2id, 1 to 64), which is how many threads can work on it; 0 for PBKDF2.
	Lanes uint8 `json:"lanes,omitzero"`
}

// The bounds keep an edited file from making Open run out of memory or time.
const (
	maxArgonPasses  = 64
	maxArgonMemory  = 2 << 20 // KiB
	maxArgonLanes   = 64
	maxPBKDF2Rounds = 100_000_000

	minPBKDF2Rounds = 600_000 // the floor; argonFloor has argon2id's

	saltSize = 32
)

func (k KDF) withDefaults() KDF {
	switch {
	case k != KDF{}:
		return k
	case fips140.Enabled():
		return KDF{Algorithm: PBKDF2, Passes: 600_000}
	}
	return KDF{Algorithm: Argon2id, Passes: 3, Memory: 64 << 10, Lanes: 4}
}

func (k KDF) validate() error {
	switch k.Algorithm {
	case Argon2id:
		if k.Passes < 1 || k.Passes > maxArgonPasses || k.Lanes < 1 || k.Lanes > maxArgonLanes ||
			k.Memory < 8*uint32(k.Lanes) || k.Memory > maxArgonMemory {
			return fmt.Errorf("argon2id with %d passes over %d KiB in %d lanes is out of bounds", k.Passes, k.Memory, k.Lanes)
		}
	case PBKDF2:
		if k.Passes < 1 || k.Passes > maxPBKDF2Rounds || k.Memory != 0 || k.Lanes != 0 {
			return fmt.Errorf("PBKDF2 with %d iterations, memory %d and %d lanes is out of bounds", k.Passes, k.Memory, k.Lanes)
		}
	default:
		return fmt.Errorf("unknown passphrase KDF %d", uint8(k.Algorithm))
	}
	return nil
}

// argonFloor returns the least memory in KiB that argon2id needs with a number of passes.
// OWASP takes these pairs to be equally strong, with one lane; more lanes share the same
// memory and work, and do not weaken it against who has as many cores as there are lanes.
func argonFloor(passes uint32) uint32 {
	floor := [...]uint32{47_104, 19_456, 12_288, 9_216, 7_168}
	return floor[min(int(passes), len(floor))-1]
}

// admit checks that k is possible and, unless o says that this does not matter, that it
// is not below the floor.
func (k KDF) admit(o *Options) error {
	if err := k.validate(); err != nil || o.InsecureKDF {
		return err
	}
	switch {
	case k.Algorithm == PBKDF2 && k.Passes < minPBKDF2Rounds:
		return fmt.Errorf("PBKDF2 with %d iterations, the least is %d (or Options.InsecureKDF): %w", k.Passes, minPBKDF2Rounds, ErrWeakKDF)
	case k.Algorithm == Argon2id && k.Memory < argonFloor(k.Passes):
		return fmt.Errorf("argon2id with %d passes over %d KiB, the least with so many is %d KiB (or Options.InsecureKDF): %w",
			k.Passes, k.Memory, argonFloor(k.Passes), ErrWeakKDF)
	}
	return nil
}

// derive returns the key of a passphrase. k is valid.
func (k KDF) derive(passphrase, salt []byte) ([]byte, error) {
	if k.Algorithm == PBKDF2 {
		return pbkdf2.Key(sha256.New, string(passphrase), salt, int(k.Passes), keySize)
	}
	if fips140.Enforced() {
		return nil, fmt.Errorf("the vault's passphrase KDF is argon2id: open it with GODEBUG=fips140=on, or without that setting, and call ChangePassphrase with PBKDF2: %w", ErrFIPS)
	}
	return argon2.IDKey(passphrase, salt, k.Passes, k.Memory, k.Lanes, keySize), nil
}

// MarshalText is String, so that an encoder writes the name.
func (a KDFAlgorithm) MarshalText() ([]byte, error) { return []byte(a.String()), nil }
